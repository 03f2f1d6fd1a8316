"""Clicks kept by shard: adding to them in parts is cutting them at once, though there be more shards than before."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.kept import Keeping
from pipelines.pieces import shard_of
from pipelines.places import Local, Place
from pipelines.shards import Shard
from recsys.sessions import NO_ID, SessionRule

Click = tuple[str, str, int, str, int, str]  # user, item, time, type, event id, session

CLICKS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from("abc"),
        st.integers(0, 60),
        st.sampled_from(["view", "cart"]),
        st.sampled_from([NO_ID, NO_ID, 7, 8]),
        st.sampled_from("st"),
    ),
    min_size=1,
    max_size=40,
)
RULES = st.builds(SessionRule, gap_ms=st.sampled_from([0, 5, 20, 1000]), collapse_repeats=st.booleans())


def table(clicks: list[Click], sessions: bool) -> pa.Table:
    users, items, times, types, ids, visits = zip(*clicks, strict=True)
    columns = {"user": pa.array(users), "item": pa.array(items), "time": pa.array(times, pa.int64())}
    columns["type"] = pa.array(types, pa.large_string()).dictionary_encode()
    if any(ids):
        columns["event_id"] = pa.array(ids, pa.uint64())
    if sessions:
        columns["session"] = pa.array(visits)
    return pa.table(columns)


def described(shard: Shard) -> tuple[Counter[object], int, int, list[str]]:
    """The sessions in any order, duplicates, repeats, event types."""
    cut = shard.made.sessions
    found: Counter[object] = Counter()
    for user, begin, end in zip(shard.users.to_pylist(), cut.starts[:-1], cut.starts[1:], strict=True):
        items = shard.items.take(pa.array(cut.items[begin:end])).to_pylist()
        types = shard.types.take(pa.array(cut.types[begin:end])).to_pylist()
        found[user, tuple(items), tuple(cut.times[begin:end].tolist()), tuple(types)] += 1
    return found, shard.made.duplicates, shard.made.repeats, shard.types.to_pylist()


def keep(folder: Path, parts: list[pa.Table], rule: SessionRule) -> pa.Table:
    """Add the parts one after the other, by way of files; the clicks at the end."""
    files: list[Place] = []
    for number, (part, anew) in enumerate(zip(parts, (True, False, False, True), strict=False)):
        into = Local(folder / str(number))
        clicks, before = Keeping(into, {0: files} if files else {}, anew).arrange(0, part, rule)
        assert sum(before.group("hour").values()) == sum(map(len, parts[:number]))
        files = [*([] if anew else files), *into.children()]
        assert [place.name for place in files][1:] == ["00000-1.parquet", "00000-2.parquet"][: len(files) - 1]
    again, _ = Keeping(earlier={0: files}).arrange(0, None, rule)
    assert again.equals(clicks)
    return clicks


@settings(deadline=None)
@given(CLICKS, RULES, st.booleans(), st.lists(st.integers(0, 40), max_size=3), st.sets(st.integers(0, 3)))
def test_parts_that_are_added_in_turn_give_what_all_give_at_once(
    clicks: list[Click], rule: SessionRule, sessions: bool, cuts: list[int], with_ids: set[int]
) -> None:
    """Parts may have no event ids at all where others have some."""
    bounds = sorted({0, len(clicks), *(cut for cut in cuts if cut < len(clicks))})
    parts = [clicks[begin:end] for begin, end in pairwise(bounds)]
    parts = [
        part if number in with_ids else [(*click[:4], NO_ID, click[5]) for click in part]
        for number, part in enumerate(parts)
    ]
    whole, _ = Keeping().arrange(0, table([click for part in parts for click in part], sessions), rule)
    with TemporaryDirectory() as folder:
        added = keep(Path(folder), [table(part, sessions) for part in parts], rule)
    assert described(Shard.of(added)) == described(Shard.of(whole))
    assert added["copies"].to_numpy().sum() == len(clicks)


def test_nothing_comes_and_all_stays(tmp_path: Path) -> None:
    clicks = keep(tmp_path, [table([("u", "a", 1, "view", NO_ID, "s")], sessions=False)], SessionRule())
    (path,) = tmp_path.rglob("*.parquet")
    assert Keeping(earlier={0: [Local(path)]}).arrange(0, None, SessionRule())[0].equals(clicks)


def test_shards_are_divided_and_name_nobody_of_the_others(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(5)]
    first = [(user, item, at, "view", NO_ID, "s") for user in users for at, item in enumerate("abc")]
    keep(tmp_path, [table(first, sessions=False)], SessionRule())
    (path,) = tmp_path.rglob("*.parquet")
    more = table([("user-1", "d", 9, "view", NO_ID, "s")], sessions=False)
    home = shard_of(pa.array(["user-1"]), 16)[0]
    divided = Keeping(Local(tmp_path / "more"), {shard: [Local(path)] for shard in range(16)}, divided=16)
    parts = [divided.arrange(shard, more if shard == home else None, SessionRule())[0] for shard in range(16)]
    whole, _ = Keeping().arrange(0, pa.concat_tables([table(first, sessions=False), more]), SessionRule())
    assert sum((described(Shard.of(part))[0] for part in parts), Counter()) == described(Shard.of(whole))[0]
    for shard, part in enumerate(parts):
        names = part["user"].combine_chunks().dictionary
        assert names.to_pylist() == [user for user in users if shard_of(pa.array([user]), 16)[0] == shard]
        again, _ = Keeping(earlier={shard: [Local(tmp_path / f"more/{shard:05}.parquet")]}).arrange(
            shard, more if shard == home else None, SessionRule()
        )
        assert described(Shard.of(again))[0] == described(Shard.of(part))[0]
