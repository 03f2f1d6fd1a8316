"""The demo's last words: what was built, how good it is, how fresh, and where to try it."""

from __future__ import annotations

import json
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from recsys.console import output
from recsys.demo.commands import get_text
from recsys.demo.figures import Reading


@dataclass(frozen=True)
class Live:
    """One replay: its name, what ``recsys replay`` says it sent, and what the worker says it did."""

    name: str
    sent: Mapping[str, Any]
    reading: Reading


def print_summary(directory: Path, live: list[Live], url: str, seconds: float) -> None:
    """Print it all on stdout."""
    output.print()
    output.print(_batch_table(directory))
    output.print(_live_table(live))
    user = next((replay.sent["last_user"] for replay in reversed(live) if replay.sent["last_user"]), "")
    address = f"{url}/v1/recommendations?{urllib.parse.urlencode({'user_id': user, 'limit': 5})}"
    answer = json.loads(get_text(address))
    items = ", ".join(item["item_id"] for item in answer["items"])
    words = [
        f"\nTry it: curl {shlex.quote(address)}",
        f"  answers from source {answer['source']}: {items}",
        f"API: {url}/docs   Report: {directory / 'report' / 'report.html'}",
        f"Done in {seconds:.0f} s.",
    ]
    output.print("\n".join(words), soft_wrap=True)


def _batch_table(directory: Path) -> Table:
    """How many sessions and epochs, and Recall@20 and MRR@20 beside the baselines."""
    manifest = json.loads((directory / "dataset" / "manifest.json").read_bytes())
    epochs = json.loads((directory / "run" / "history.json").read_bytes())
    figures = json.loads((directory / "report" / "evaluation.json").read_bytes())
    built = ", ".join(f"{size['sessions']:,} {split}" for split, size in manifest["sizes"].items())
    phases = Counter(epoch["phase"] for epoch in epochs)
    learnt = f"{phases['search']} to find the best number, {phases['final']} on all sessions before the test"
    output.print(f"Sessions built: {built}\nEpochs: {learnt}", soft_wrap=True)
    table = Table("recommender", title=f"next click among {figures['items']:,} items")
    table.add_column("Recall@20", justify="right")
    table.add_column("MRR@20", justify="right")
    for recommender in figures["recommenders"]:
        metrics = recommender["metrics"]
        style = "bold" if recommender["name"] == figures["model"] else ""
        table.add_row(recommender["name"], f"{metrics['recall@20']:.3f}", f"{metrics['mrr@20']:.3f}", style=style)
    return table


def _live_table(live: list[Live]) -> Table:
    """Clicks per second and freshness of each replay."""
    table = Table(title="held-out clicks; fresh: from the click to the visitor's new list")
    table.caption = "skipped: repeats and duplicates; dead: such as of items too rare to be learnt"
    table.add_column("replay", no_wrap=True)
    for column in ("clicks", "clicks/s", "applied", "skipped", "dead", "fresh p50", "p99"):
        table.add_column(column, justify="right")
    for replay in live:
        clicks = replay.reading.clicks
        counts = (f"{clicks[name]:,.0f}" for name in ("clicks_applied", "clicks_skipped", "clicks_dead_lettered"))
        times = (_milliseconds(replay.reading.quantile(share)) for share in (0.5, 0.99))
        table.add_row(replay.name, f"{replay.sent['sent']:,}", f"{replay.sent['rate']:.1f}", *counts, *times)
    return table


def _milliseconds(seconds: float | None) -> str:
    return "no clicks" if seconds is None else f"{seconds * 1000:.0f} ms"
