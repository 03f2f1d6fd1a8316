"""``recsys train``: a session dataset in, a model directory out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from recsys.cli.ctrl_c import ends_at_ctrl_c, fails_at_ctrl_c
from recsys.cli.epochs import PHASES, EpochBar
from recsys.cli.options import with_settings
from recsys.console import console, output, progress
from recsys.errors import RecsysError
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.dataset import Dataset
    from recsys.model.history import Epoch, Progress
    from recsys.model.training import Fitted, Report
    from recsys.model.warm_start import WarmStart
    from recsys.sessions import Sessions

CHECKPOINT, MODEL, HISTORY, LOGS = "checkpoint.safetensors", "model", "history.json", "logs"


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the run.")
@click.option(
    "--warm-start",
    "trained",
    type=click.Path(path_type=Path),
    help="Begin from this model directory, bundle or directory of bundles.",
)
@click.option("--resume", is_flag=True, help="Go on where a run in --out was stopped.")
@click.option("--overwrite", is_flag=True, help="Delete what is in --out and begin anew.")
@with_settings("model", "training")
def train(settings: Settings, dataset: Path, out: Path, trained: Path | None, resume: bool, overwrite: bool) -> None:
    """Train a model on a session dataset.

    Writes OUT/model (weights, vocabulary, settings), OUT/history.json and OUT/logs (TensorBoard). While it runs,
    OUT/checkpoint.safetensors holds all that --resume needs.

    It searches for the best number of epochs on the validation sessions, then tries whether the newest sessions once
    more make it better (--halvings), and does what was best anew with all sessions (--refit).

    With --warm-start the model there goes on learning: weights of items it knows are kept, items new to it begin at the
    mean of those they share sessions with, and --warm-epochs passes are made over the sessions that are newer than what
    it has learnt (with a share of older ones, --replay). There is no early stopping and no refit then: validation
    sessions are learnt at once with the others, or not at all with --no-refit.

    \b
    recsys train dataset --out run
    recsys train dataset --out run --units 200 --epochs 20
    recsys train dataset --out run --resume
    recsys train dataset --out tuesday --warm-start bundles
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    if resume and (out / MODEL).is_dir():
        console.print(f"{out}: this run is finished")
        return
    if out.exists() and not resume:
        if not overwrite:
            raise RecsysError(f"{out} exists already: choose another name, or pass --resume or --overwrite")
        _refuse_to_delete_strangers(out)
    with ends_at_ctrl_c():
        from recsys.dataset import Dataset

    data = Dataset.open(dataset)
    start = _warm_start(trained, data, settings) if trained is not None else None
    sessions = _sessions(data, start)
    if overwrite:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    _write(out, data, settings, _fit(data, sessions, settings, out, start))
    for path in (out / CHECKPOINT, *_leftovers(out)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    output.print(f"model in {out / MODEL}")


def _refuse_to_delete_strangers(out: Path) -> None:
    """--overwrite deletes a run, and nothing else."""
    ours = {CHECKPOINT, MODEL, HISTORY, LOGS}
    if not out.is_dir() or any(path.name not in ours for path in out.iterdir() if path not in _leftovers(out)):
        raise RecsysError(f"{out} holds other things than a training run: it is not overwritten")


def _leftovers(out: Path) -> set[Path]:
    """What a run that was killed left half written."""
    from recsys.files import leftovers

    return {path for name in (CHECKPOINT, MODEL, HISTORY) for path in leftovers(out / name)}


def _warm_start(trained: Path, data: Dataset, settings: Settings) -> WarmStart:
    """The weights of a trained model in the rows of the dataset, and what of the dataset is new to it."""
    with ends_at_ctrl_c():
        from recsys.model.warm_start import refuse_leaks, refuse_misfits, warm_start
        from recsys.published import load_model

    model, split, refit = load_model(trained), data.manifest.split, settings.training.refit
    refuse_misfits(model.description.model, model.description.sessions, settings.model, data.session_settings)
    held_out = [split.test_from] if refit else [split.validation_from, split.test_from]
    since = refuse_leaks(
        model.description.learnt_until, min((time for time in held_out if time is not None), default=None)
    )
    sessions = data.development() if refit else data.training()
    return warm_start(model.weights, model.vocabulary, data.vocabulary, sessions, since, settings.training)


def _sessions(data: Dataset, start: WarmStart | None) -> Sessions:
    """All that the model is to learn in the end."""
    with ends_at_ctrl_c():
        from recsys.model.training import refuse_nothing_to_learn

    sessions = start.sessions if start is not None else data.development()
    refuse_nothing_to_learn(sessions)
    return sessions


def _fit(data: Dataset, sessions: Sessions, settings: Settings, out: Path, start: WarmStart | None) -> Fitted:
    """Learn, in the end from ``sessions``."""
    from dataclasses import replace
    from functools import partial

    from recsys.model.training import fit
    from recsys.validation import validation_on

    learn = partial(fit, items=len(data.vocabulary), model=settings.model, checkpoint=out / CHECKPOINT, logs=out / LOGS)
    with _report() as report:
        if start is not None:
            training = settings.training.model_copy(update={"epochs": settings.training.warm_epochs})
            fitted = learn(sessions, sessions, settings=training, start=start.weights, report=report)
            return replace(fitted, learnt="development" if training.refit else "training")
        validation = data.validation()
        return learn(
            data.training(),
            sessions,
            settings=settings.training,
            validate=validation_on(validation, data.vocabulary) if len(validation) else None,
            later=validation if len(validation) else None,
            report=report,
        )


@contextmanager
def _report() -> Iterator[Report]:
    """A progress bar for the epoch at hand, and a line for each epoch done."""
    from recsys.model.history import Progress

    with fails_at_ctrl_c() as heed, progress() as display:
        bar = EpochBar(display)

        def report(event: Progress | Epoch) -> None:
            heed()
            if isinstance(event, Progress):
                bar.show(event)
            else:
                console.print(_line(event), soft_wrap=True)  # a log has a line an epoch

        yield report


def _line(epoch: Epoch) -> str:
    which = "" if epoch.share == 1 else f" (newest {epoch.share:.0%})"
    line = (
        f"{PHASES[epoch.phase]} {epoch.number}{which}: loss {epoch.loss:.3f}, {epoch.events_per_second:,.0f} events/s"
    )
    if epoch.validation:
        line += f", validation Recall@20 {epoch.validation['recall@20']:.4f} MRR@20 {epoch.validation['mrr@20']:.4f}"
    return line


def _write(out: Path, data: Dataset, settings: Settings, fitted: Fitted) -> None:
    """The model directory appears whole, after the history."""
    from dataclasses import asdict

    from recsys.bundle import Description, Model, save_model
    from recsys.files import staged_directory, write_atomically

    history = [asdict(epoch) for epoch in fitted.history]
    write_atomically(out / HISTORY, orjson.dumps(history, option=orjson.OPT_INDENT_2))
    description = Description(
        model=settings.model,
        sessions=data.session_settings,
        event_types=tuple(data.event_types),
        dataset=data.manifest.content_hash,
        learnt=fitted.learnt,
        learnt_until=fitted.learnt_until,
    )
    with staged_directory(out / MODEL) as staging:
        save_model(staging, Model(fitted.weights, data.vocabulary, description))
