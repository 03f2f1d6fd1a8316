"""``recsys tune``: a session dataset in, better settings out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.cli.ctrl_c import ends_at_ctrl_c, fails_at_ctrl_c
from recsys.cli.epochs import EpochBar
from recsys.cli.options import FiniteRange, with_settings
from recsys.console import console, output, progress
from recsys.errors import RecsysError
from recsys.settings import Settings

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from recsys.dataset import Dataset
    from recsys.model.training import Report
    from recsys.tuning.outcome import Outcome, Trial
    from recsys.tuning.search import Ended, Limits
    from recsys.tuning.space import Space

TRIALS, SHOWN = 30, 5  # trials where no limit is given; trials in the table at the end


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory of the search.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help=f"Trials in all, those of a resumed search included. [default: {TRIALS}, or no limit with --minutes]",
)
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    help="Stop at the end of the epoch in which this time is over; --resume goes on.",
)
@click.option(
    "--metric",
    type=click.Choice(["recall@20", "mrr@20", "recall@20+mrr@20"]),
    default="recall@20",
    show_default=True,
    help="What to raise on the validation sessions.",
)
@click.option(
    "--space",
    "space_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of what to search, in place of the space that comes with recsys.",
)
@click.option("--resume", is_flag=True, help="Go on with the search in --out.")
@with_settings("model", "training")
def tune(
    settings: Settings,
    dataset: Path,
    out: Path,
    trials: int | None,
    minutes: float | None,
    metric: str,
    space_file: Path | None,
    resume: bool,
) -> None:
    """Search for better settings on the validation sessions.

    The first trial has the settings in force, so that OUT/report.html can say what tuning gains over them. A setting
    given as a flag below is held; the others in the search space vary. The test sessions are not looked at. Writes
    OUT/best.toml, a settings file for train, and OUT/report.html.

    \b
    recsys tune dataset --out tuned --trials 50
    recsys tune dataset --out tuned --minutes 60 --resume
    RECSYS_SETTINGS=tuned/best.toml recsys train dataset --out run

    A space file is written like a settings file, with a range or a list of choices for each setting:

    \b
    [model]
    units = { low = 40, high = 260, step = 20 }
    [training]
    learning_rate = { low = 0.01, high = 0.5, log = true }
    loss = ["cross-entropy", "bpr-max"]
    """
    if out.exists() and not resume:
        raise RecsysError(f"{out} exists already: choose another name, or pass --resume")
    with ends_at_ctrl_c():
        from recsys.dataset import Dataset
        from recsys.tuning.search import Limits

    space = _space(space_file)
    data = Dataset.open(dataset)
    most = TRIALS if trials is None and minutes is None else trials
    limits = Limits(most, None if minutes is None else time.monotonic() + 60 * minutes)
    outcome = _search(out, data, settings, space, metric, limits)
    if outcome is None:
        raise RecsysError(f"{out}: no trial ended in {minutes:g} minutes; --resume goes on with it")
    output.print(table(outcome))
    output.print(_gain(outcome))
    output.print(f"settings in {out / 'best.toml'}, report in {out / 'report.html'}")


def table(outcome: Outcome) -> Any:
    """The best trials and what they tried."""
    from rich.table import Table

    from recsys.tuning.report import metric_name

    columns = Table(title="best trials, on validation sessions")
    for name in ("trial", metric_name(outcome.metric), "epochs"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("settings", overflow="fold")
    ranked = outcome.ranked
    for trial in dict.fromkeys([*range(min(SHOWN, len(ranked))), ranked.index(outcome.first)]):
        shown = ranked[trial]
        number = f"{shown.number} (in force)" if shown is outcome.first else str(shown.number)
        columns.add_row(number, f"{shown.value:.4f}", str(shown.epochs), _tried(shown), style="" if trial else "bold")
    return columns


def _space(space_file: Path | None) -> Space:
    """What is searched: all of the space but the settings that were given as flags."""
    from recsys.tuning.space import DEFAULT_SPACE, read_space

    space, given = read_space(space_file or DEFAULT_SPACE), click.get_current_context().params
    held = {name for name in space if given[name.replace(".", "_", 1)] is not None}
    if space_file and held:
        raise click.UsageError(f"{', '.join(sorted(held))}: given as a flag and searched by {space_file}")
    if held == space.keys():
        raise click.UsageError("flags hold all that would be searched")
    return {name: values for name, values in space.items() if name not in held}


def _search(out: Path, data: Dataset, settings: Settings, space: Space, metric: str, limits: Limits) -> Outcome | None:
    """Search until the limits are reached; best settings and report are written however it ends."""
    from recsys.tuning.outcome import Outcome
    from recsys.tuning.search import Trainer, search
    from recsys.tuning.space import values_in_force
    from recsys.tuning.study import CHECKPOINT, Identity, finished, open_study

    first = values_in_force(settings, space)
    trainer = Trainer(data, settings, metric, out / CHECKPOINT)
    identity = Identity.of(data.manifest.content_hash, metric, space, settings)
    with open_study(out, identity, first) as study:
        try:
            with _display(limits, metric, len(finished(study))) as (watch, ended):
                left = search(study, trainer, space, limits, watch, ended)
            if left is not None:
                console.print(_left(left, len(finished(study)) + 1))
        finally:
            outcome = Outcome.of(study, metric, space)
            if outcome is not None:
                _write(out, data, settings, outcome)
    return outcome


@contextmanager
def _display(limits: Limits, metric: str, done: int) -> Iterator[tuple[Report, Ended]]:
    """Progress bars for the trials and for the epoch at hand, and a line for each trial done."""
    from recsys.model.history import Progress
    from recsys.tuning.outcome import Trial

    with fails_at_ctrl_c() as heed, progress() as display:
        trials = display.add_task("trials", total=limits.trials, completed=done, note="")
        bar = EpochBar(display)

        def watch(event: Any) -> None:
            heed()
            if isinstance(event, Progress):
                bar.show(event)

        def ended(number: int, frozen: Any) -> None:
            trial = Trial.of(number, frozen)
            console.print(_line(trial, limits.trials, metric))
            display.update(trials, completed=number)
            bar.clear()

        yield watch, ended


def _line(trial: Trial, most: int | None, metric: str) -> str:
    place = f"trial {trial.number}/{most}" if most else f"trial {trial.number}"
    if trial.state == "failed":
        return f"{place}: failed: {trial.reason}; {_tried(trial)}"
    pruned = ", pruned" if trial.state == "pruned" else ""
    return f"{place}: {metric} {trial.value:.4f}{pruned}, {trial.epochs} epochs, {trial.seconds:.0f} s; {_tried(trial)}"


def _left(trial: FrozenTrial, number: int) -> str:
    done = f"epoch {max(trial.intermediate_values)}"
    return f"the time is over: trial {number} is left after {done}: --resume goes on with it"


def _tried(trial: Trial) -> str:
    from recsys.tuning.report import value_text

    return ", ".join(f"{name.partition('.')[2]} {value_text(value)}" for name, value in trial.values.items())


def _gain(outcome: Outcome) -> str:
    from recsys.tuning.report import metric_name

    best, first, name = outcome.best, outcome.first, metric_name(outcome.metric)
    if best is first:
        return f"no trial was better than the settings in force: validation {name} {first.value:.4f}"
    return f"validation {name}: {best.value:.4f}, settings in force {first.value:.4f}: {100 * outcome.gain:+.1f}%"


def _write(out: Path, data: Dataset, settings: Settings, outcome: Outcome) -> None:
    from recsys.files import write_atomically
    from recsys.tuning.outcome import settings_of
    from recsys.tuning.report import render
    from recsys.tuning.study import BEST, REPORT

    validation = data.manifest.sizes["validation"]
    facts = {
        "searched on": f"{validation.sessions:,} validation sessions",
        "after": f"{data.manifest.sizes['train'].sessions:,} training sessions",
        "of": f"{len(data.vocabulary):,} items",
        "loss": settings.training.loss,
    }
    best = out / BEST
    write_atomically(best, settings_of(settings, outcome.best).encode())
    write_atomically(out / REPORT, render(outcome, facts, str(best)).encode())
