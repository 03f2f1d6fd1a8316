"""The command ``forget``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from recsys.cli.options import InputFile, InputPath, with_settings
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.forgetting.users import Removed

_DIRECTORY = InputPath(path_type=Path, exists=True, file_okay=False)
_DATASET = click.Path(path_type=Path)  # it may have to be put back first


@click.command()
@click.argument("users", nargs=-1, metavar="USER...")
@click.option("--users-from", type=InputFile(encoding="utf-8"), help="File with a user id a line; - for stdin.")
@click.option("--dataset", "datasets", multiple=True, type=_DATASET, help="Session dataset (more than one: each).")
@click.option("--archive", "archives", multiple=True, type=_DIRECTORY, help="Archive (more than one: each).")
@click.option("--closed", multiple=True, type=_DIRECTORY, help="Closed sessions of recsys stream-sessions (each).")
@click.option("--store", is_flag=True, help="Their states and lists in the store, too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as one JSON object.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_settings("redis")
def forget(
    settings: Settings,
    users: tuple[str, ...],
    users_from: click.utils.LazyFile | None,
    datasets: tuple[Path, ...],
    archives: tuple[Path, ...],
    closed: tuple[Path, ...],
    store: bool,
    as_json: bool,
    yes: bool,
) -> None:
    """Take users out of datasets, archives and the store.

    \b
    Example:
      recsys forget u-17 --dataset dataset --archive archive --store
      recsys forget --users-from gone.txt --archive archive --json --yes

    USER is an id in clear. Where ids are hashed, the setting privacy.key must be the key. A dataset loses the
    user's sessions, bots and dead letters; its items stay, so that its models still fit. An archive loses the user's
    clicks, the dead letters that name the user, and what the fields of other clicks say where they do: stop its
    archiver first. Each dataset and each archive changes all at once or not at all.

    Logs outside, the topics, and models that have learnt from the user stay as they are.
    """
    import asyncio

    from recsys.console import console
    from recsys.forgetting.in_archive import forget_in_archive
    from recsys.forgetting.in_closed import forget_in_closed
    from recsys.forgetting.in_dataset import forget_in_dataset
    from recsys.forgetting.users import Users
    from recsys.pseudonyms import Pseudonyms

    ids = {*users, *(line.rstrip("\r\n") for line in users_from or ())} - {""}
    if not ids or not (datasets or archives or closed or store):
        raise click.UsageError("some USER, and --dataset, --archive, --closed or --store are needed")
    if not yes:
        places = ", ".join([*map(str, [*datasets, *archives, *closed]), *(["the store"] if store else [])])
        click.confirm(
            f"Take {len(ids):,} {'user' if len(ids) == 1 else 'users'} out of {places} for good?", abort=True, err=True
        )
    whom = Users(ids, Pseudonyms.of_settings(settings.privacy))
    removed: dict[str, Removed] = {}
    keys = None
    works = (forget_in_dataset, datasets), (forget_in_archive, archives), (forget_in_closed, closed)
    try:
        for work, paths in works:
            for path in paths:
                with console.status(f"looking through {path}"):
                    removed[str(path)] = work(path, whom)
        keys = asyncio.run(_forget_in_store(settings, sorted(ids))) if store else None
    finally:  # what is gone is gone, though the next place cannot be had
        _show(removed, keys, as_json)
    _name_logs(datasets)


def _name_logs(datasets: tuple[Path, ...]) -> None:
    """Say which logs of the datasets are still there, or may be."""
    from recsys.console import console
    from recsys.manifest import Manifest

    for path in datasets:
        inputs = Manifest.load(path / "manifest.json").inputs
        if logs := [name for name in inputs if "://" in name or Path(name).exists()]:
            console.print(f"{path} was built from {', '.join(logs)}: these still have whom they had", soft_wrap=True)


async def _forget_in_store(settings: Settings, users: list[str]) -> int:
    from recsys.store import Store

    chunk, found = 1000, 0
    store = Store(settings.redis)
    try:
        for first in range(0, len(users), chunk):
            found += await store.forget(users[first : first + chunk])
    finally:
        await store.close()
    return found


def _show(removed: dict[str, Removed], keys: int | None, as_json: bool) -> None:
    """What was removed, by place: as a table, or as JSON."""
    import orjson
    from rich.table import Table

    from recsys.console import output

    if as_json:
        found = {path: vars(each) for path, each in removed.items()}
        click.echo(orjson.dumps(found | ({} if keys is None else {"store": {"keys": keys}})))
        return
    if removed:
        names = list(vars(next(iter(removed.values()))))
        table = Table("removed", *(name.replace("_", " ") for name in names))
        for column in table.columns[1:]:
            column.justify = "right"
        for path, each in removed.items():
            table.add_row(path, *(f"{n:,}" for n in vars(each).values()))
        output.print(table)
    if keys is not None:
        output.print(f"{keys:,} keys of the store")
