"""A dataset without some users: what they did is gone from each file, and the manifest says how much that was.

Items keep their rows in the vocabulary, so that models of the dataset stay what they are; their counts fall.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.dataset import KEPT, SPLITS, Dataset, finish, sessions_of, write_sessions
from recsys.errors import DatasetError
from recsys.files import clear_leftovers, staged_directory, write_atomically
from recsys.fingerprint import add_fingerprints, fingerprint
from recsys.forgetting.lines import quotes, split_lines
from recsys.forgetting.users import Removed, Users, rows_of, without
from recsys.manifest import Counts, Size
from recsys.vocabulary import Vocabulary

LETTERS, BOTS = "dead-letter.jsonl", "bots.jsonl"


def forget_in_dataset(path: Path, users: Users) -> Removed:
    """Take the users out of the dataset at ``path``, all at once or not at all; one without them stays as it is.

    The dead letters that stand beside it, of a build that was refused, are searched too.

    Raises:
        MissingInputError: there is none.
        DatasetError: it is altered, has files that are not its own, or was changed meanwhile.
        SettingsError: its user ids are hashed by another key than the one that is set.
    """
    removed = _Work(Dataset.open(path), users).run()
    clear_leftovers(path)  # they have the users still
    beside = path.with_name(f"{path.name}.{LETTERS}")
    if beside.is_file():
        kept, gone = split_lines(beside, lambda letter: quotes(letter, users))
        if gone:
            write_atomically(beside, b"".join(kept))
            letters = removed.dead_letters + len(gone)
            removed = replace(removed, dead_letters=letters, files=removed.files + 1)
    return removed


class _Work:
    def __init__(self, dataset: Dataset, users: Users) -> None:
        self._dataset, self._path, self._users = dataset, dataset.path, users
        key = dataset.manifest.parameters.get("key")
        self._ids = users.ids(None if key is None else str(key), dataset.path)
        self._goes = {
            LETTERS: lambda letter: quotes(letter, users),
            BOTS: lambda bot: bot["user_id"] in self._ids,
        }
        self._removed = Removed()
        self._rejected: Counter[str] = Counter()
        # What each split holds afterwards.
        self._items = {name: np.zeros(len(dataset.vocabulary), np.int64) for name in SPLITS}
        self._sessions: Counter[str] = Counter()
        self._fingerprints = dict.fromkeys(SPLITS, "0" * 32)

    def run(self) -> Removed:
        self._refuse_strangers()
        for entry in self._dataset.manifest.files:
            if entry.path.startswith(f"{KEPT}/"):  # the others have been verified
                entry.verify(self._path)
        touched = {entry.path for entry in self._dataset.manifest.files if self._touches(entry.path)}
        if not touched:
            return Removed()
        unchanged = partial(self._dataset.manifest.check_unchanged, self._path)
        with staged_directory(self._path, overwrite=True, check=unchanged) as directory:
            for entry in self._dataset.manifest.files:
                target = directory / entry.path
                target.parent.mkdir(exist_ok=True)
                self._copy(entry.path, target, entry.path in touched)
            self._finish(directory)
        return replace(self._removed, files=len(touched))

    def _refuse_strangers(self) -> None:
        """Files that the manifest does not list would be lost, or would stay as they are."""
        ours = {"manifest.json", *(entry.path for entry in self._dataset.manifest.files)}
        for path in sorted(self._path.rglob("*")):
            if path.is_file() and path.relative_to(self._path).as_posix() not in ours:
                raise DatasetError(f"{path}: is no file of the dataset: put it elsewhere first")

    def _touches(self, name: str) -> bool:
        path = self._path / name
        if path.suffix == ".parquet":
            column = _users_column(path)
            table = pq.read_table(path, columns=[column])
            return bool(pc.any(rows_of(table[column], self._ids)).as_py())
        return name in self._goes and bool(split_lines(path, self._goes[name])[1])

    def _copy(self, name: str, target: Path, touched: bool) -> None:
        """Bring a file of the dataset to ``target``, without the users if it is ``touched``."""
        split = name.split("/", maxsplit=1)[0]
        if split in SPLITS:
            self._copy_sessions(name, split, target, touched)
        elif not touched:
            shutil.copyfile(self._path / name, target)
        elif target.suffix == ".parquet":
            self._copy_clicks(name, target)
        else:
            kept, gone = split_lines(self._path / name, self._goes[name])
            target.write_bytes(b"".join(kept))
            if name == BOTS:
                self._count(bots=len(gone))
            else:
                self._count(dead_letters=len(gone))
                self._rejected.update(str(letter["reason"]) for letter in gone)

    def _copy_sessions(self, name: str, split: str, target: Path, touched: bool) -> None:
        table = self._dataset.read_file(name)
        if touched:
            theirs = rows_of(table["user_id"], self._ids)
            lost, table = table.filter(theirs), without(table, theirs)
            self._count(sessions=len(lost), clicks=sessions_of(lost)[0].events)
        sessions, owners = sessions_of(table)
        self._items[split] += np.bincount(sessions.items, minlength=len(self._items[split]))
        self._sessions[split] += len(sessions)
        self._fingerprints[split] = add_fingerprints(self._fingerprints[split], fingerprint(sessions, owners))
        if touched:
            write_sessions(target, sessions, owners)
        else:
            shutil.copyfile(self._path / name, target)

    def _copy_clicks(self, name: str, target: Path) -> None:
        """A table of single clicks, kept for those who add to the dataset."""
        table = pq.read_table(self._path / name)
        table = without(table, rows_of(table[_users_column(self._path / name)], self._ids))
        pq.write_table(table, target, compression="zstd", row_group_size=max(1, len(table)))

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self._removed, name) + n for name, n in more.items()}
        self._removed = replace(self._removed, **counts)

    def _finish(self, directory: Path) -> None:
        manifest, removed = self._dataset.manifest, self._removed
        old: Counts = manifest.counts
        counts = old.model_copy(
            update={
                "kept": old.kept - removed.clicks,
                "rejected": dict(sorted((Counter(old.rejected) - self._rejected).items())),
                "forgotten": old.forgotten + removed.clicks + removed.dead_letters,
            }
        )
        sizes = {
            name: Size(events=int(items.sum()), sessions=self._sessions[name], items=int(np.count_nonzero(items)))
            for name, items in self._items.items()
        }
        finish(
            directory,
            vocabulary=Vocabulary(self._dataset.vocabulary.ids, self._items["train"] + self._items["validation"]),
            settings=manifest.session_settings,
            event_types=manifest.event_types,
            split=manifest.split,
            counts=counts,
            sizes={name: sizes[name] for name in manifest.sizes},
            fingerprints={name: self._fingerprints[name] for name in manifest.sizes},
            parameters=manifest.parameters,
        )


def _users_column(path: Path) -> str:
    found = {"user_id", "user"}.intersection(pq.read_schema(path).names)
    if not found:
        raise DatasetError(f"{path}: has no column of user ids")
    return found.pop()
