"""What follows the clicks of all visitors: of those before each prediction alone, and to its gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.evaluation.following import Following
from recsys.evaluation.over_time import Asked, OverTime, Part, intervals
from recsys.evaluation.popularity import Popularity
from recsys.evaluation.predictions import Predictions
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.recent_popularity import RecentPopularity
from recsys.scoring.scorer import Scorer
from recsys.scoring.trend import Pairs
from recsys.sessions import Sessions
from tests.conftest import random_model

MINUTE, EVERY = 60_000, 300_000
ITEMS = 30
START = 1_700_000_100_000  # a multiple of five minutes


def sessions_of(*sessions: list[tuple[float, int]]) -> Sessions:
    """Sessions of (minute, item)."""
    events = [event for session in sessions for event in session]
    times = np.array([START + round(minute * MINUTE) for minute, _ in events], np.int64)
    items = np.array([item for _, item in events], np.int32)
    starts = np.cumsum([0, *map(len, sessions)])
    return Sessions(items, times, np.zeros(len(items), np.int8), starts)


def fashions(hours: int = 6, seed: int = 1) -> Sessions:
    """Each half hour everybody clicks on three items of its own, nine times of ten."""
    random = np.random.default_rng(seed)
    found = []
    for minute in np.sort(random.uniform(0, 60 * hours, 300 * hours)):
        fashion = 3 * (int(minute) // 30) % ITEMS
        items = [fashion + random.integers(3) if random.random() < 0.9 else random.integers(ITEMS) for _ in range(4)]
        found.append([(minute + place / 10, int(item)) for place, item in enumerate(items)])
    return sessions_of(*found)


def all_scores(recommender: Following | RecentPopularity, sessions: Sessions) -> np.ndarray:
    return np.concatenate(list(recommender.predict(sessions)))


def recent(seen: Sessions) -> RecentPopularity:
    found = RecentPopularity(seen, EVERY)
    found.fit(sessions_of([(0, 1), (1, 1), (2, 2)]), ITEMS)
    return found


def test_recent_popularity_counts_half_an_hour_until_the_last_five_minutes() -> None:
    seen = sessions_of([(1, 3), (2, 4)], [(6, 4), (7, 3), (8, 5)], [(34.9, 5), (35.5, 6)])
    asked = sessions_of([(4.9, 0), (36, 9)], [(5.0, 0), (36, 9)], [(30.1, 0), (36, 9)], [(35.0, 4), (36, 9)])
    before, five, thirty, thirty_five = all_scores(recent(seen), asked)
    assert (before[3], before[1]) == (0, pytest.approx(2 / 3))
    assert five[[3, 4, 5]].tolist() == [1, 1, 0]
    assert thirty[[3, 4, 5]].tolist() == [2, 2, 1]
    assert thirty_five[[3, 4, 5, 6]].tolist() == [1, -1, 2, 0]
    assert thirty_five[1] == pytest.approx(2 / 3)


def test_what_holds_begins_at_its_moment() -> None:
    pairs = Pairs(np.array([4, 4], np.int32), np.array([0, 1], np.int32), np.array([0.5, 0.25], np.float32))
    first = Part(np.array([0], np.int32), np.array([1], np.float32), Pairs.none())
    second = Part(np.array([1], np.int32), np.array([2], np.float32), pairs)
    changes = OverTime(np.array([10, 20]), [first, second])
    scores = np.zeros((5, 2), np.float32)
    changes.add_to(scores, Asked(np.array([9, 10, 19, 20, 21]), np.array([4, 4, 4, 3, 4], np.int32)))
    assert scores.tolist() == [[0, 0], [1, 0], [1, 0], [0, 2], [0.5, 2.25]]


def test_intervals_end_at_multiples_and_leave_out_what_is_empty() -> None:
    found = [(end, which.tolist()) for end, which in intervals(np.array([7, 25, 3, 20, 9]), 10)]
    assert found == [(10, [2, 0, 4]), (30, [3, 1])]


def test_a_prediction_is_made_at_the_click_before() -> None:
    asked = sessions_of([(0, 1), (1, 2), (5, 3)], [(2, 1), (9, 2)])
    moments, last = Asked.of(asked)
    assert ((moments - START) / MINUTE).tolist() == [0, 1, 2]
    assert last.tolist() == [1, 2, 1]


@given(st.integers(0, 360), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_clicks_that_come_later_change_nothing(minute: int, seed: int) -> None:
    """To the bit: whoever makes these recommendations at a moment needs to know nothing of what follows."""
    random, log, moment = np.random.default_rng(seed), fashions(hours=3), START + minute * MINUTE // 2
    later = log.times > moment
    items = np.where(later, random.integers(0, ITEMS, log.events), log.items).astype(np.int32)
    times = np.where(later, log.times + random.integers(0, MINUTE), log.times)
    other = Sessions(items, times, log.types, log.starts)
    scorer = Scorer(random_model(ITEMS).weights)
    now = Asked.of(log).moments <= moment
    for recommender in (lambda seen: Following(scorer, seen, EVERY), recent):
        asked = [all_scores(recommender(seen), log)[now] for seen in (log, other)]
        np.testing.assert_array_equal(*asked)


def test_it_is_no_looking_ahead_to_the_protocol() -> None:
    log = fashions(hours=1)
    result = evaluate(Following(Scorer(random_model(ITEMS).weights), log, EVERY), log, np.ones(ITEMS, np.int64))
    assert len(result.ranks) == log.events - len(log)


def test_where_fashions_change_the_model_follows() -> None:
    """A model that knows nothing of any fashion; nine of ten clicks are on one of three items that change."""
    log, counts = fashions(), np.ones(ITEMS, np.int64)
    scorer = Scorer(random_model(ITEMS, seed=3).weights)
    popularity = Popularity()
    popularity.fit(log, ITEMS)
    fixed, following, popular, of_late = (
        evaluate(each, log, counts, ks=(3,)).recall(3)
        for each in (scorer, Following(scorer, log, EVERY), popularity, recent(log))
    )
    assert following > 0.4
    assert following > 2.5 * fixed
    assert following > 2 * popular
    assert following > 1.2 * of_late


def test_progress_is_told_of_every_prediction() -> None:
    log, done = fashions(hours=1), []
    Following(Scorer(random_model(ITEMS).weights), log, EVERY, done.append)
    assert sum(done) == len(Predictions.of(log))
    assert len(done) > 10
