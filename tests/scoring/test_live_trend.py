"""What all visitors click of late, against values worked out by hand, finite differences and brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.scoring import live_trend
from recsys.scoring.clicks import Clicks
from recsys.scoring.live_trend import RECENT_MS, LiveTrend
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import FOLLOWERS, Pairs, Trend
from tests.conftest import random_model, random_states

START = 1_700_000_000_000
MINUTE = 60_000


def indifferent(items: int) -> Scorer:
    """To it, all items are equally likely after anything."""
    weights = {name: np.zeros_like(value) for name, value in random_model(items=items).weights.items()}
    return Scorer(weights)


def clicks(scorer: Scorer, rows: list[int], minute: float = 0.0, seed: int = 1) -> Clicks:
    """Clicks on these rows, all at one time, after sessions that a model may have seen."""
    times = np.full(len(rows), START + round(minute * MINUTE))
    return Clicks(random_states(scorer, len(rows), seed), np.array(rows, np.int32), times)


def made(
    rows: Sequence[int] = (),
    rise: Sequence[float] = (),
    pairs: Sequence[tuple[int, int, float]] = (),
    network: float = 1.0,
    strength: float = 1.0,
    following: float = 1.0,
) -> Trend:
    last, follower, surplus = zip(*pairs, strict=True) if pairs else ((), (), ())
    told = Pairs(np.array(last, np.int32), np.array(follower, np.int32), np.array(surplus, np.float32))
    some = np.array(rows, np.int32)
    return Trend(START, network, strength, following, some, np.array(rise, np.float32), np.ones_like(some), told)


def chances(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores.astype(float) - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_the_first_rise_is_the_log_of_clicks_over_those_expected() -> None:
    """Twelve clicks over four items: three of each are expected, and one more is believed in beforehand."""
    live = LiveTrend(indifferent(4))
    trend = live.follow(clicks(indifferent(4), [0] * 9 + [1] * 3))
    assert trend.rows.tolist() == [0, 1, 2, 3]
    assert trend.rise.tolist() == pytest.approx([math.log(10 / 4), 0, math.log(1 / 4), math.log(1 / 4)])
    assert trend.clicks.tolist() == [9, 3, 0, 0]
    assert (trend.time, trend.network, trend.strength, trend.following) == (START, 1.0, 0.5, 0.5)
    assert trend.raised.tolist() == pytest.approx([math.log(2.5) / 2, 0, -math.log(2), -math.log(2)])
    raised = trend.on({"bias": np.ones(4, np.float32)})["bias"]
    assert raised.tolist() == pytest.approx([1 + math.log(2.5) / 2, 1, 1 - math.log(2), 1 - math.log(2)])


def test_the_rise_goes_to_where_clicks_are_those_expected() -> None:
    scorer = Scorer(random_model(items=6).weights)
    random = np.random.default_rng(3)
    live = LiveTrend(scorer)
    for minute in range(0, 200, 5):
        some = clicks(scorer, random.choice(6, 400, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]).tolist(), minute, seed=minute)
        trend = live.follow(some)
    raised = trend.network * scorer.scores(some.hidden).astype(float)
    raised[:, trend.rows] += trend.rise
    np.testing.assert_allclose(chances(raised).mean(axis=0), [0.4, 0.3, 0.1, 0.1, 0.05, 0.05], atol=0.04)


def test_a_rise_halves_in_half_an_hour_where_nothing_speaks_for_it() -> None:
    """Of what comes then, the first item's clicks are as many as the network alone expects."""
    scorer = indifferent(4)
    live = LiveTrend(scorer, made(strength=0.5, rows=[3], rise=[2.0]))
    half, whole = chances(np.array([[0, 0, 0, 1.0]]))[0], 400
    rows = [row for row, share in enumerate(half) for _ in range(round(share * whole))]
    trend = live.follow(clicks(scorer, rows, 30))
    rise = dict(zip(trend.rows.tolist(), trend.rise.tolist(), strict=True))
    assert rise.pop(3) == pytest.approx(1.0, abs=0.02)
    assert list(rise.values()) == pytest.approx([0] * 3, abs=0.02)


@pytest.mark.parametrize(("holds", "least", "most"), [(1.0, 0.85, 1.0), (0.4, 0.25, 0.55), (0.0, 0.0, 0.1)])
def test_the_strength_is_how_far_rises_go_on(holds: float, least: float, most: float) -> None:
    """Clicks are drawn from chances in which what has risen goes on by a known share of it."""
    scorer, random = indifferent(8), np.random.default_rng(1)
    first = random.choice(8, 2000, p=(shares := np.arange(1, 9) / 36)).tolist()
    live = LiveTrend(scorer)
    rise = np.log((2000 * shares + 1) / 251)
    go_on = chances(holds * rise[None])[0]
    live.follow(clicks(scorer, first))
    for minute in (1, 2):
        trend = LiveTrend(scorer, None)
        trend.follow(clicks(scorer, first))
        found = trend.follow(clicks(scorer, random.choice(8, 4000, p=go_on).tolist(), minute))
        assert least <= found.strength <= most


def test_a_network_that_is_too_sure_counts_less() -> None:
    scorer, random = Scorer(random_model(items=8, followers=0).weights), np.random.default_rng(1)
    hidden = random_states(scorer, 4000)
    made = chances(0.6 * scorer.scores(hidden))
    rows = np.array([random.choice(8, p=chance) for chance in made], np.int32)
    trend = LiveTrend(scorer).follow(Clicks(hidden, rows, np.full(4000, START)))
    assert trend.network == pytest.approx(0.6, abs=0.05)


def test_the_numbers_are_a_newton_step_on_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradient and curvature against finite differences of the log likelihood and its prior."""
    monkeypatch.setattr(live_trend, "NEWTON_STEPS", 1)
    scorer, random = Scorer(random_model(items=7).weights), np.random.default_rng(2)
    rows, rise = np.arange(7, dtype=np.int32), random.normal(0, 0.3, 7).astype(np.float32)
    some = clicks(scorer, random.choice(7, 60).tolist())
    scores = scorer.scores(some.hidden).astype(float)
    pairs = sorted((last, (last + step) % 7, 0.3 * step - 0.5) for last in range(6) for step in (1, 3))
    surplus = np.zeros((60, 7))
    for last, follower, value in pairs:
        surplus[scorer.last_items(some.hidden) == last, follower] = value

    def likelihood(numbers: np.ndarray) -> float:
        raised = numbers[0] * scores + numbers[1] * rise + numbers[2] * surplus
        odds = chances(raised)[np.arange(60), some.targets]
        return float(np.log(odds).sum() - 5.0 * ((numbers - [0.8, 0.6, 0.4]) ** 2).sum())

    at, step = np.array([0.8, 0.6, 0.4]), 1e-3
    unit = np.eye(3) * step
    gradient = np.array([(likelihood(at + each) - likelihood(at - each)) / (2 * step) for each in unit])
    second = np.array(
        [
            [
                (likelihood(at + a + b) - likelihood(at + a - b) - likelihood(at - a + b) + likelihood(at - a - b))
                / (4 * step**2)
                for b in unit
            ]
            for a in unit
        ]
    )
    wanted = np.clip(at - np.linalg.solve(second, gradient), [0.3, 0, 0], [1.5, 1, 1])
    before = made(rows.tolist(), rise.tolist(), pairs, *at.tolist())
    found = LiveTrend(scorer, before).follow(some)
    assert [found.network, found.strength, found.following] == pytest.approx(wanted.tolist(), abs=1e-3)


def test_of_a_large_catalogue_the_likely_and_the_clicked_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = dict(random_model(items=300).weights)
    weights["bias"] = np.linspace(4, -4, 300).astype(np.float32)
    scorer, random = Scorer(weights), np.random.default_rng(1)
    rows = [*random.choice(10, 900).tolist(), *[290] * 100]
    whole = LiveTrend(scorer).follow(clicks(scorer, rows))
    monkeypatch.setattr(live_trend, "MOST_ITEMS", 120)
    monkeypatch.setattr(live_trend, "BY_LOT", 60)
    some = LiveTrend(scorer).follow(clicks(scorer, rows))
    of_whole, of_some = (dict(zip(each.rows.tolist(), each.rise.tolist(), strict=True)) for each in (whole, some))
    assert len(of_some) <= 120
    for row in (*range(10), 290):
        assert of_some[row] == pytest.approx(of_whole[row], abs=0.25)


@pytest.mark.parametrize("some", [False, True])
def test_chances_of_trails_and_followers_are_exact_in_a_large_catalogue(
    some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clicks are drawn from the model itself, which likes what a visitor has seen and what follows it best of all."""
    if some:
        monkeypatch.setattr(live_trend, "MOST_ITEMS", 200)
        monkeypatch.setattr(live_trend, "BY_LOT", 60)
    weights = dict(random_model(items=1500, seed=4).weights)
    weights["revisit"], weights["surplus"] = weights["revisit"] + 5, weights["surplus"] + 5
    weights["following"] = np.ones(1, np.float32)
    scorer, random = Scorer(weights), np.random.default_rng(1)
    hidden = random_states(scorer, 300)
    rows = np.array([random.choice(1500, p=chance) for chance in chances(scorer.scores(hidden))], np.int32)
    trend = LiveTrend(scorer).follow(Clicks(hidden, rows, np.full(300, START)))
    assert trend.network == pytest.approx(1.0, abs=0.1)


def test_a_clock_that_is_ahead_moves_nothing() -> None:
    scorer = indifferent(5)
    live = LiveTrend(scorer)
    live.follow(clicks(scorer, [1] * 50, 0))
    ahead = Clicks.together([clicks(scorer, [2] * 30, 5), clicks(scorer, [3], 65)])
    trend = live.follow(ahead)
    assert trend.time == START + 5 * MINUTE
    assert trend.clicks.sum() == 81


def test_who_goes_on_from_a_trend_knows_its_clicks_and_pairs_for_half_an_hour() -> None:
    scorer = indifferent(8)
    live = LiveTrend(scorer, made([2], [1.0], [(1, 2, 0.8), (3, 4, -0.6)])._replace(clicks=np.array([9])))
    hidden = scorer.advance(scorer.start(4), [[1]] * 4)
    trend = live.follow(Clicks(hidden, np.array([2, 2, 2, 5], np.int32), np.full(4, START + 5 * MINUTE)))
    found = dict(zip(trend.rows.tolist(), trend.clicks.tolist(), strict=True))
    assert {row: count for row, count in found.items() if count} == {2: 12, 5: 1}
    pairs = {pair[:2]: pair[2] for pair in zip(*(column.tolist() for column in trend.pairs), strict=True)}
    assert pairs[3, 4] == pytest.approx(-0.6)
    assert pairs[1, 2] != pytest.approx(0.8)
    later = live.follow(Clicks(hidden, np.array([2, 2, 2, 5], np.int32), np.full(4, START + 31 * MINUTE)))
    assert later.clicks.sum() == 8
    assert (3, 4) not in set(zip(later.pairs.last.tolist(), later.pairs.follower.tolist(), strict=True))


def test_scores_of_some_items_are_theirs_among_all() -> None:
    scorer = Scorer(random_model(items=40).weights)
    hidden, some = random_states(scorer, 30), np.array([0, 3, 4, 17, 39], np.int32)
    np.testing.assert_allclose(scorer.scores(hidden, some), scorer.scores(hidden)[:, some], atol=1e-5)


def test_memory_is_bounded_and_old_clicks_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_trend, "MOST_CLICKS", 100)
    scorer = indifferent(5)
    live = LiveTrend(scorer)
    for minute in range(5):
        live.follow(clicks(scorer, [1] * 70, minute))
        assert len(live._window.targets) <= 100
    live.follow(clicks(scorer, [2] * 3, 4 + RECENT_MS / MINUTE))
    assert live._window.targets.tolist() == [2, 2, 2]
    for minute in range(40, 400, 5):
        live.follow(clicks(scorer, [2], minute))
        assert len(live._evidence) <= 12


def test_no_clicks_change_nothing() -> None:
    live = LiveTrend(indifferent(4))
    before = live.follow(clicks(indifferent(4), [0] * 5))
    after = live.follow(Clicks.none(indifferent(4).width))
    assert after.pack() == before.pack()


NUMBERS = st.tuples(st.floats(0.3, 1.5), st.floats(0, 1), st.floats(0, 1))
PAIR = st.tuples(st.integers(0, 99), st.integers(0, 99))


@given(NUMBERS, st.sets(st.integers(0, 99)), st.sets(PAIR), st.data())
def test_a_trend_is_read_as_it_was_written(
    numbers: tuple[float, float, float], rows: set[int], pairs: set[tuple[int, int]], data: st.DataObject
) -> None:
    number = st.floats(-20, 20, width=32)
    told = [(*pair, data.draw(number)) for pair in sorted(pairs)]
    trend = made(sorted(rows), [data.draw(number) for _ in rows], told, *numbers)
    read = Trend.unpack(trend.pack(), 100)
    assert read[:4] == trend[:4]
    for name in ("rows", "rise", "clicks"):
        assert getattr(read, name).tolist() == getattr(trend, name).tolist()
    assert [column.tolist() for column in read.pairs] == [column.tolist() for column in trend.pairs]


@given(st.binary(max_size=80))
def test_bytes_that_are_no_trend_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not a trend"):
        Trend.unpack(data, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        made([3, 100], [1, 2]),
        made([5, 3], [1, 2]),
        made([3, 5], [1, math.nan]),
        made(network=0.0),
        made(following=1.1),
        made([3])._replace(clicks=np.array([-1]), rise=np.ones(1)),
        made(pairs=[(3, 100, 1)]),
        made(pairs=[(3, 5, 1), (3, 4, 1)]),
        made(pairs=[(3, 5, math.inf)]),
        made([3], [3e38]),
    ],
)
def test_a_trend_that_cannot_be_is_refused(wrong: Trend) -> None:
    with pytest.raises(InputError, match="not a trend"):
        Trend.unpack(wrong.pack(), 100)


def test_bytes_that_are_cut_off_or_too_many_are_refused() -> None:
    packed = made([3, 5], [1, 2], [(1, 2, 3)]).pack()
    assert Trend.unpack(packed, 6).rows.tolist() == [3, 5]
    for other in (packed[:-1], packed + b"\0"):
        with pytest.raises(InputError, match="not a trend"):
            Trend.unpack(other, 6)


def test_the_surplus_of_a_pair_is_the_log_of_its_clicks_over_those_expected_with_the_rise() -> None:
    """Sixteen clicks after two items on four: the network expects two each after either."""
    scorer = indifferent(4)
    hidden = scorer.advance(scorer.start(16), [[0]] * 8 + [[1]] * 8)
    rows = np.array([2] * 6 + [3] * 2 + [2] * 4 + [0] * 4, np.int32)
    trend = LiveTrend(scorer).follow(Clicks(hidden, rows, np.full(16, START)))
    lag = {2: math.log(11 / 5), 3: math.log(3 / 5), 0: math.log(5 / 5)}
    assert trend.rise[trend.rows == 2].tolist() == pytest.approx([lag[2]])
    found = {
        (last, follower): surplus for last, follower, surplus in zip(*map(np.ndarray.tolist, trend.pairs), strict=True)
    }
    clicked = {(0, 2): 6, (0, 3): 2, (1, 2): 4, (1, 0): 4}
    wanted = {pair: math.log((count + 1) / (2 * math.exp(lag[pair[1]]) + 1)) for pair, count in clicked.items()}
    assert found == pytest.approx({pair: value for pair, value in wanted.items() if abs(value) > 0.05})


def test_of_many_followers_those_clicked_most_are_kept() -> None:
    scorer = indifferent(FOLLOWERS + 5)
    rows = [row for row in range(1, FOLLOWERS + 5) for _ in range(row)]
    hidden = scorer.advance(scorer.start(len(rows)), [[0]] * len(rows))
    trend = LiveTrend(scorer).follow(Clicks(hidden, np.array(rows, np.int32), np.full(len(rows), START)))
    assert len(trend.pairs.last) <= FOLLOWERS
    assert trend.pairs.follower.min() >= 5


@pytest.mark.parametrize("followers", [0, 3, FOLLOWERS])
def test_served_scores_are_those_of_the_model_and_what_the_trend_changes(followers: int) -> None:
    """By brute force, item by item, as the worker serves them and as evaluation computes them."""
    weights = random_model(items=32, followers=followers).weights
    pairs = [(2, 5, 0.7), (2, 9, -0.4), *((4, row, 1.5 - row / 8.7) for row in range(20))]
    trend = made([1, 5], [2.0, -1.0], pairs, network=0.8, strength=0.5, following=0.6)
    scorer, served = Scorer(weights), Scorer(trend.on(weights))
    hidden = np.concatenate([scorer.advance(scorer.start(32), [[row] for row in range(32)]), random_states(scorer, 20)])
    expected, changed = scorer.scores(hidden), scorer.scores(hidden)
    changed[:, trend.rows] += trend.raised
    place, pair = trend.changes(weights).after(scorer.last_items(hidden))
    changed[place, trend.changes(weights).follower[pair]] += trend.changes(weights).surplus[pair]
    for number, last in enumerate(scorer.last_items(hidden).tolist()):
        expected[number, 1] += 0.5 / 0.8 * 2
        expected[number, 5] -= 0.5 / 0.8
        if last in (2, 4):
            table = {}
            if followers:
                told = zip(weights["followers"][last].astype(int) - 1, weights["surplus"][last], strict=True)
                table = {item: weights["following"][0] * value for item, value in told if item >= 0}
            for item, value in table.items():
                expected[number, item] -= value
            for first, item, value in pairs:
                if first == last:
                    table[item] = table.get(item, 0) + 0.6 / 0.8 * value
            for item in sorted(table, key=lambda item: -abs(table[item]))[:FOLLOWERS]:
                expected[number, item] += table[item]
    np.testing.assert_allclose(served.scores(hidden), expected, atol=1e-5)
    np.testing.assert_allclose(changed, expected, atol=1e-5)
    for number, (rows, scores) in enumerate(served.top_k(hidden, 5)):
        best = np.argsort(-expected[number], kind="stable")[:5]
        assert rows.tolist() == best.tolist()
        np.testing.assert_allclose(scores, expected[number, best], atol=1e-5)
