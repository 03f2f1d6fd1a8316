"""An archive without some users: their clicks, the dead letters that name them, and what other clicks say of them."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from recsys.archive import Archive, Change, Position, read_clicks, write_clicks
from recsys.forgetting.lines import split_lines
from recsys.forgetting.users import Removed, Users, clicks_without


def forget_in_archive(path: Path, users: Users) -> Removed:
    """Take the users out of the archive at ``path``, all at once or not at all; where to go on stays.

    Raises:
        MissingInputError: there is no archive.
        InputError: a file of it is damaged.
        RecsysError: an archiver is at work on it.
        SettingsError: its user ids are hashed by another key than the one that is set.
    """
    with Archive.open(path) as archive:
        removed, position = Removed(), archive.position
        assert position is not None  # or it would not be open
        ids = users.ids(position.key, path)
        with archive.change(position) as change:
            for file in archive.clicks():
                removed += _clicks(file, archive, change, users, ids)
            for file in archive.dead_letters():
                removed += _dead_letters(file, archive, change, users)
            change.position = _lowered(change.position, removed)
    return removed


def _lowered(position: Position, removed: Removed) -> Position:
    """The position when so much is gone."""
    counts = position.counts.model_copy(
        update={
            "clicks": position.counts.clicks - removed.clicks,
            "dead_letters": position.counts.dead_letters - removed.dead_letters,
            "forgotten": position.counts.forgotten + removed.clicks + removed.dead_letters,
        }
    )
    return position.model_copy(update={"counts": counts})


def _clicks(file: Path, archive: Archive, change: Change, users: Users, ids: Collection[str]) -> Removed:
    kept, removed = clicks_without(read_clicks(file), users, ids)
    if not removed:
        return removed
    path = file.relative_to(archive.path).as_posix()
    if len(kept):
        write_clicks(change.new_file(path), kept, change.position.key)
    else:
        change.gone.append(path)
    return replace(removed, files=1)


def _dead_letters(file: Path, archive: Archive, change: Change, users: Users) -> Removed:
    kept, gone = split_lines(file, lambda letter: _names(letter, users))
    if not gone:
        return Removed()
    path = file.relative_to(archive.path).as_posix()
    if kept:
        change.new_file(path).write_bytes(b"".join(kept))
    else:
        change.gone.append(path)
    return Removed(dead_letters=len(gone), files=1)


def _names(letter: dict[str, object], users: Users) -> bool:
    texts = [str(letter.get(name) or "") for name in ("key", "value", "detail")]
    if letter.get("encoding") == "base64":
        texts.append(base64.b64decode(str(letter["value"])).decode(errors="replace"))
    return any(map(users.named_in, texts))
