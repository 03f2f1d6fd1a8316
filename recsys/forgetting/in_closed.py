"""A directory of closed sessions without some users, file by file.

The job that writes it has no part in this: what it holds of a user, in sessions that are open, still comes.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from recsys.archive import read_clicks, write_clicks
from recsys.errors import InputError, MissingInputError
from recsys.files import staged_file
from recsys.forgetting.lines import quotes, split_lines
from recsys.forgetting.users import Removed, Users, clicks_without
from recsys.logs.sources import key_in


def forget_in_closed(path: Path, users: Users) -> Removed:
    """Take the users out of the closed sessions in ``path``; each file is replaced whole.

    Raises:
        MissingInputError: it has no files by day.
        InputError: a file is damaged, or holds no closed sessions.
        SettingsError: user ids are hashed by another key than the one that is set.
    """
    removed = Removed()
    files = sorted(path.glob("[0-9]*/*.parquet"))
    if not files:
        raise MissingInputError(f"{path}: has no closed sessions")
    for file in files:
        table = read_clicks(file)
        if "session_id" not in table.column_names:
            raise InputError(f"{file}: holds no closed sessions")
        key = key_in(table.schema)
        kept, found = clicks_without(table, users, users.ids(key, path))
        if found:
            if len(kept):
                with staged_file(file) as staging:
                    write_clicks(staging, kept, key)
            else:
                file.unlink()
            removed += found + Removed(sessions=_sessions(table) - _sessions(kept), files=1)
    for file in sorted(path.glob("[0-9]*/_*.jsonl")):
        lines, gone = split_lines(file, lambda letter: quotes(letter, users))
        if gone:
            with staged_file(file) as staging:
                staging.write_bytes(b"".join(lines))
            removed += Removed(dead_letters=len(gone), files=1)
    return removed


def _sessions(clicks: pa.Table) -> int:
    """How many sessions the clicks are of."""
    return len(clicks.group_by(["user_id", "session_id"]).aggregate([]))
