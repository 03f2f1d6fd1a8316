"""Where in the stream an event stands, and up to where a state has applied the stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from recsys.packing import Reader, number

_OTHER = struct.Struct("<iq")


class Position(NamedTuple):
    """Where in the stream an event stands. ``epoch`` counts re-creations of the topic."""

    epoch: int
    partition: int
    offset: int

    def pack(self) -> bytes:
        """The position as bytes, those first in which two events of a user differ."""
        return b"".join(map(number, (self.offset + 1, self.partition + 1, self.epoch)))

    @classmethod
    def read(cls, reader: Reader) -> Position:
        """Read what :meth:`pack` wrote."""
        offset, partition, epoch = reader.numbers(3)
        return cls(epoch, partition - 1, offset - 1)


BEGINNING = Position(0, -1, -1)


@dataclass
class Progress:
    """What a state has applied: all of its user's events up to ``last``, in the order in which they came.

    ``elsewhere`` has, for each other partition that the user's events came from, the last offset applied. Normally
    there is none: a user moves to another partition when some are added to the topic. Kafka keeps no order between
    partitions, so events of the old one may come, or come again, after those of the new one.
    """

    last: Position = BEGINNING
    elsewhere: dict[int, int] = field(default_factory=dict)

    def covers(self, position: Position) -> bool:
        """Whether the event there has been applied, or belongs to a topic that is no more."""
        if position.epoch != self.last.epoch:
            return position.epoch < self.last.epoch
        if position.partition == self.last.partition:
            return position.offset <= self.last.offset
        return position.offset <= self.elsewhere.get(position.partition, -1)

    def advance(self, position: Position) -> None:
        """Take note that the event there, which was not covered, has been applied."""
        if position.epoch != self.last.epoch:
            self.elsewhere.clear()
        elif position.partition != self.last.partition and self.last != BEGINNING:
            self.elsewhere[self.last.partition] = self.last.offset
            self.elsewhere.pop(position.partition, None)
        self.last = position

    def pack_elsewhere(self) -> bytes:
        """The other partitions as bytes, twelve for each."""
        return b"".join(_OTHER.pack(*other) for other in sorted(self.elsewhere.items()))

    @classmethod
    def unpack(cls, last: Position, elsewhere: bytes) -> Progress:
        """Read what :meth:`pack_elsewhere` wrote. Raises ``struct.error`` where the bytes are cut."""
        return cls(last, dict(_OTHER.iter_unpack(elsewhere)))
