"""Which events a state has applied: each once, in whatever order partitions are read, and however often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.position import BEGINNING, Position, Progress

POSITIONS = st.builds(Position, st.just(2), st.integers(0, 3), st.integers(0, 5))


@pytest.mark.parametrize(
    ("new", "last", "expected"),
    [
        (Position(0, 0, 0), BEGINNING, False),
        (Position(0, 1, 5), Position(0, 1, 4), False),
        (Position(0, 1, 4), Position(0, 1, 4), True),
        (Position(0, 1, 3), Position(0, 1, 4), True),
        (Position(1, 1, 0), Position(0, 1, 4), False),  # the topic was re-created
        (Position(0, 1, 9), Position(1, 1, 4), True),
        (Position(0, 2, 0), Position(0, 1, 4), False),  # partitions were added, the user moved
    ],
)
def test_what_is_covered(new: Position, last: Position, expected: bool) -> None:
    assert Progress(last).covers(new) is expected


@given(st.lists(POSITIONS, max_size=40))
def test_each_event_is_applied_once_however_often_it_comes(seen: list[Position]) -> None:
    """Offsets that come again are covered; those of another partition, read earlier or later, are not."""
    progress, highest = Progress(), dict.fromkeys(range(4), -1)
    for position in seen:
        assert progress.covers(position) is (position.offset <= highest[position.partition])
        if not progress.covers(position):
            progress.advance(position)
            highest[position.partition] = position.offset
            assert progress.last == position
    assert len(progress.elsewhere) == max(0, sum(offset >= 0 for offset in highest.values()) - 1)
    assert Progress.unpack(progress.last, progress.pack_elsewhere()) == progress


def test_a_topic_created_anew_leaves_nothing_of_the_old_one() -> None:
    progress = Progress(Position(0, 1, 9), {2: 7})
    progress.advance(Position(1, 3, 0))
    assert progress == Progress(Position(1, 3, 0))
    assert not progress.covers(Position(1, 2, 0))
