"""``recsys profile``: a session dataset in pictures."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="HTML file to write.")
def profile(dataset: Path, out: Path) -> None:
    """Show what is in DATASET, as one HTML file.

    Clicks by hour, lengths of sessions, gaps between clicks with the session gap marked, popularity of items, and
    rejected lines by reason.

    \b
    recsys profile dataset --out profile.html
    """
    from recsys.console import console
    from recsys.dataset import Dataset
    from recsys.files import write_atomically
    from recsys.profile.measures import measure
    from recsys.profile.page import render

    data = Dataset.open(dataset)
    page = render(data, measure(data))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())
    console.print(f"profile in {out}")
