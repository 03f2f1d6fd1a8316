"""What the steps of a run report, added up over all workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from pipelines.places import Place
from recsys.dataset import SPLITS
from recsys.fingerprint import add_fingerprints
from recsys.manifest import Counts, Size


@dataclass
class Tally:
    """Counts by name, the times of the first and last click (epoch milliseconds), files that broke off, the
    :func:`recsys.fingerprint.fingerprint` of each split, and rows and SHA-256 of each file of sessions by its name."""

    counts: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    damaged: list[str] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, int]:
        """The counts called ``prefix/…``, by the rest of their names."""
        found = {name.removeprefix(f"{prefix}/"): n for name, n in self.counts.items() if name.startswith(f"{prefix}/")}
        return {name: n for name, n in sorted(found.items()) if n}

    def fates(self) -> Counts:
        """What became of every line, for the manifest."""
        return Counts(
            read=self.counts["read"],
            kept=sum(self.counts[f"events/{split}"] for split in SPLITS),
            duplicates=self.counts["duplicates"],
            repeats=self.counts["repeats"],
            rejected=self.group("rejected"),
            filtered=self.group("filtered"),
            cut=self.group("cut"),
            forgotten=self.counts["forgotten"],
        )

    def size(self, split: str, items: int) -> Size:
        """How much a split of so many ``items`` holds."""
        return Size(events=self.counts[f"events/{split}"], sessions=self.counts[f"sessions/{split}"], items=items)

    def to_json(self) -> bytes:
        """For :meth:`from_json`."""
        return orjson.dumps(vars(self))

    @classmethod
    def from_json(cls, data: bytes) -> Tally:
        """What :meth:`to_json` wrote."""
        value = orjson.loads(data)
        return cls(Counter(value.pop("counts")), **value)


def total(tallies: Iterable[Tally]) -> Tally:
    """All tallies as one; in any order, in any groups."""
    result = Tally()
    for tally in tallies:
        result.counts.update(tally.counts)
        result.first_ms = min((ms for ms in (result.first_ms, tally.first_ms) if ms is not None), default=None)
        result.last_ms = max((ms for ms in (result.last_ms, tally.last_ms) if ms is not None), default=None)
        result.files.update(tally.files)
        result.damaged = sorted({*result.damaged, *tally.damaged})
        for split, part in tally.fingerprints.items():
            result.fingerprints[split] = add_fingerprints(result.fingerprints.get(split, "0" * 32), part)
    return result


def report(work: Place, step: str, name: str, tally: Tally) -> None:
    """Leave the tally of one element of a step, for :func:`read_reports`."""
    (work / "tallies" / step / name).write(tally.to_json())


def read_reports(work: Place, step: str) -> Tally:
    """What all elements of a step reported, added up."""
    return total(map(Tally.from_json, (work / "tallies" / step).contents()))
