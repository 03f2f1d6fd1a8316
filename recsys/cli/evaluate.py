"""``recsys evaluate``: a model beside the baselines, on sessions it has not seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.cli.ctrl_c import ends_at_ctrl_c
from recsys.cli.options import with_settings

if TYPE_CHECKING:
    from recsys.bundle import Model
    from recsys.dataset import Dataset
    from recsys.evaluation.comparison import Comparison
    from recsys.evaluation.oracle import Oracle
    from recsys.evaluation.predictions import Baseline, Recommender
    from recsys.scoring.scorer import Scorer
    from recsys.sessions import Sessions
    from recsys.settings import Settings

HISTORY, FIGURES, REPORT = "history.json", "evaluation.json", "report.html"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory of the report.")
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@click.option(
    "--process",
    type=click.Path(path_type=Path),
    help="Description of a generated log (written beside it): adds the best possible recommender.",
)
@with_settings("trend")
def evaluate(model: Path, dataset: Path, out: Path, split: str, process: Path | None, settings: Settings) -> None:
    """Compare MODEL with the baselines on DATASET.

    MODEL is a model directory or a bundle. Prints a table and writes OUT/evaluation.json and OUT/report.html. As it
    does in the worker, the model follows what all visitors have clicked until some minutes before each prediction, and
    so does a sixth baseline, recent popularity. With --trend-seconds 0 nobody does.

    \b
    recsys evaluate run/model dataset --out report
    recsys evaluate run/model dataset --process clicks.csv.process.json --out report
    """
    with ends_at_ctrl_c():
        from recsys.console import console, output
        from recsys.dataset import Dataset
        from recsys.errors import DatasetError, InputError
        from recsys.evaluation.following import FIXED
        from recsys.evaluation.report import render
        from recsys.published import load_model
        from recsys.scoring.scorer import Scorer

    loaded, data = load_model(model), Dataset.open(dataset)
    _refuse_strangers(loaded, data, model, dataset)
    if split == "validation" and loaded.description.learnt == "development":
        raise InputError(
            f"{model}: it has learnt from the validation sessions too; use --split test, or train with --no-refit"
        )
    sessions = data.test() if split == "test" else data.validation()
    if not len(sessions):
        raise DatasetError(f"{dataset}: the {split} split has no session to evaluate on")
    # The baselines see what the model saw: without its final epochs, that ends where validation begins.
    learnt = data.development() if loaded.description.learnt == "development" else data.training()
    bound = _bound(process, data) if process else None
    every_ms = round(1000 * settings.trend.seconds)
    scorer = Scorer(loaded.weights, name=FIXED) if every_ms else Scorer(loaded.weights)
    comparison, served = _compare(scorer, bound, sessions, learnt, every_ms)
    output.print(table(comparison))
    about = _about(loaded, sessions, split, settings.trend.seconds)
    out.mkdir(parents=True, exist_ok=True)
    source = {"dataset": data.manifest.content_hash, "learnt": loaded.description.learnt}
    how = {"split": split, "trend_seconds": settings.trend.seconds}
    _write(out, comparison, {**how, **source, "fingerprint": loaded.fingerprint})
    (out / REPORT).write_text(render(comparison, served, data.vocabulary, _history(model), about), encoding="utf-8")
    console.print(f"report in {out / REPORT}")


def table(comparison: Comparison) -> Any:
    """Recall@20 and MRR@20 with the half widths of their 95% intervals, and coverage, of everyone."""
    from rich.table import Table
    from rich.text import Text

    from recsys.evaluation.comparison import MRR, RECALL

    columns = Table(title=f"next item among {len(comparison.counts):,}, {len(comparison.predictions):,} predictions")
    columns.add_column("")
    for name in ("Recall@20", "MRR@20", "coverage@20"):
        columns.add_column(name, justify="right")
    for result in comparison.everyone:
        cells = []
        for metric in (RECALL, MRR):
            low, high = result.intervals[metric]
            cells.append(Text.assemble(f"{result.as_dict()[metric]:.4f} ", (f"± {(high - low) / 2:.4f}", "dim")))
        style = "bold" if result is comparison.model else "green" if result is comparison.bound else ""
        columns.add_row(result.name, *cells, f"{result.coverage:.1%}", style=style)
    if comparison.expected is not None:
        columns.add_row("expected of the process", f"{comparison.expected:.4f}", "", "", style="green")
    return columns


def _bound(process: Path, data: Dataset) -> Oracle:
    """The best possible recommender of the process that made the log."""
    from recsys.evaluation.oracle import Oracle
    from recsys.generator.files import read_process

    return Oracle(read_process(process), data.vocabulary, data.event_types, data.session_settings.collapse_repeats)


def _compare(
    scorer: Scorer, bound: Oracle | None, sessions: Sessions, learnt: Sessions, every_ms: int
) -> tuple[Comparison, Recommender]:
    """Fit the baselines on ``learnt``, what the model learnt from, and evaluate everyone on ``sessions``.

    Gives the model as it is served, too: with its live trend, unless ``every_ms`` is 0.
    """
    import numpy as np

    from recsys.console import progress
    from recsys.evaluation.comparison import compare
    from recsys.evaluation.following import Following
    from recsys.evaluation.item_knn import ItemKNN
    from recsys.evaluation.popularity import Popularity
    from recsys.evaluation.recent_popularity import RecentPopularity
    from recsys.evaluation.session_popularity import SessionPopularity
    from recsys.evaluation.vmis_knn import VMISKNN
    from recsys.evaluation.vsknn import VSKNN

    baselines: list[Baseline] = [Popularity(), SessionPopularity(), ItemKNN(), VMISKNN(), VSKNN()]
    if every_ms:
        baselines.insert(1, RecentPopularity(sessions, every_ms))
    with progress() as display:
        predictions = sessions.events - len(sessions)
        tasks: dict[str, Any] = {}

        def advance(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = display.add_task(name, total=predictions, note="")
            display.advance(tasks[name], done)

        served: Recommender = scorer
        if every_ms:
            served = Following(scorer, sessions, every_ms, partial(advance, "live trend"))
        for baseline in baselines:
            baseline.fit(learnt, scorer.items)
        counts = np.bincount(learnt.items, minlength=scorer.items)
        fixed = scorer if served is not scorer else None
        return compare(served, baselines, bound, sessions, counts, advance, fixed), served


def _refuse_strangers(model: Model, data: Dataset, model_path: Path, data_path: Path) -> None:
    """A model is evaluated on the dataset it comes from: another may hold its training events as test events."""
    from recsys.errors import InputError

    if list(model.vocabulary.ids) != list(data.vocabulary.ids):
        raise InputError(
            f"{model_path}: its items are not those of {data_path}; evaluate it on the dataset it learnt from"
        )
    if model.description.dataset != data.manifest.content_hash:
        raise InputError(
            f"{model_path}: it learnt from another dataset than {data_path}, maybe from the very events to be predicted"
        )


def _history(model: Path) -> list[dict[str, Any]]:
    """The epochs of training, if their file lies beside the model directory."""
    import orjson

    path = model.resolve().parent / HISTORY
    history: list[dict[str, Any]] = orjson.loads(path.read_bytes()) if path.is_file() else []
    return history


def _about(model: Model, sessions: Sessions, split: str, trend_seconds: float) -> Any:
    """The head of the report."""
    from datetime import UTC, datetime

    from recsys.evaluation.report import About

    days = [datetime.fromtimestamp(int(time) / 1000, UTC) for time in (sessions.times.min(), sessions.times.max())]
    shape = model.description.model
    return About(
        "How good are the recommendations?",
        {
            "Test period" if split == "test" else "Validation period": " to ".join(
                f"{day:%Y-%m-%d %H:%M}" for day in days
            ),
            "sessions": f"{len(sessions):,}",
            "predicted clicks": f"{sessions.events - len(sessions):,}",
            "items": f"{len(model.vocabulary):,}",
            "model": f"GRU, {shape.layers} x {shape.units} units, {shape.embedding} embeddings",
            "live trend": f"every {trend_seconds:g} s" if trend_seconds else "off",
        },
    )


def _write(out: Path, comparison: Comparison, about: dict[str, Any]) -> None:
    import orjson

    from recsys.files import write_atomically

    figures = {**about, **comparison.as_dict()}
    write_atomically(out / FIGURES, orjson.dumps(figures, option=orjson.OPT_INDENT_2))
