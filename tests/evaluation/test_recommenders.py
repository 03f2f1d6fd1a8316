"""What holds for every recommender, and what each baseline answers where the answer is known."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.evaluation import item_knn, predictions
from recsys.evaluation.item_knn import ItemKNN
from recsys.evaluation.popularity import Popularity
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.session_popularity import SessionPopularity
from recsys.evaluation.vmis_knn import VMISKNN
from recsys.evaluation.vsknn import VSKNN
from recsys.sessions import Sessions

Baseline = Popularity | SessionPopularity | ItemKNN | VSKNN | VMISKNN
Scores = NDArray[np.float32]
BASELINES: list[Callable[[], Baseline]] = [Popularity, SessionPopularity, ItemKNN, VSKNN, VMISKNN]
NEIGHBOURS: list[Callable[[], Baseline]] = [ItemKNN, VSKNN, VMISKNN]
DECAYS: dict[type[VSKNN | VMISKNN], Callable[[int], float]] = {VSKNN: lambda b: 1 / b, VMISKNN: lambda b: 1 - 0.1 * b}
every_baseline = pytest.mark.parametrize("make", BASELINES)

session_lists = st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=6), min_size=1, max_size=12)


def make_sessions(*sessions: list[int]) -> Sessions:
    items = np.array([item for session in sessions for item in session], np.int32)
    starts = np.cumsum([0, *(len(session) for session in sessions)]).astype(np.int64)
    return Sessions(items, np.arange(len(items), dtype=np.int64) * 1000, np.zeros(len(items), np.int8), starts)


def checkerboard(items: int = 20, sessions: int = 400, seed: int = 0) -> Sessions:
    """Sessions in which all items are even or all are odd."""
    random = np.random.default_rng(seed)
    return make_sessions(
        *(list(random.permutation(items // 2)[:4] * 2 + random.integers(2)) for _ in range(sessions)),
    )


def scores_of(recommender: Baseline, *sessions: list[int]) -> Scores:
    return np.concatenate(list(recommender.predict(make_sessions(*sessions))))


def fitted(make: Callable[[], Baseline], sessions: Sessions, items: int) -> Baseline:
    recommender = make()
    recommender.fit(sessions, items)
    return recommender


@every_baseline
def test_one_row_of_scores_for_each_prediction(make: Callable[[], Baseline]) -> None:
    scores = scores_of(fitted(make, checkerboard(), 20), [0, 2, 4], [1], [3, 5])
    assert scores.shape == (3, 20)
    assert scores.dtype == np.float32
    assert not np.isnan(scores).any()


@every_baseline
def test_the_past_alone_decides(make: Callable[[], Baseline]) -> None:
    recommender = fitted(make, checkerboard(), 20)
    scores = scores_of(recommender, [0, 2, 4, 6])
    for other_future in ([0, 2, 4, 9], [0, 2, 4, 6, 8, 1]):
        np.testing.assert_array_equal(scores_of(recommender, other_future)[:3], scores)


@every_baseline
def test_sessions_do_not_see_each_other(make: Callable[[], Baseline]) -> None:
    recommender = fitted(make, checkerboard(), 20)
    alone = [scores_of(recommender, session) for session in ([0, 2, 4], [1, 3], [6, 8, 6])]
    np.testing.assert_array_equal(scores_of(recommender, [0, 2, 4], [1, 3], [6, 8, 6]), np.concatenate(alone))


@every_baseline
def test_chunks_do_not_change_the_result(make: Callable[[], Baseline], monkeypatch: pytest.MonkeyPatch) -> None:
    recommender, test = fitted(make, checkerboard(), 20), checkerboard(sessions=30, seed=1)
    whole = evaluate(recommender, test, np.ones(20, np.int64)).ranks
    monkeypatch.setattr(predictions, "CHUNK_ROWS", 7)
    assert max(len(chunk) for chunk in recommender.predict(test)) == 7
    np.testing.assert_array_equal(evaluate(recommender, test, np.ones(20, np.int64)).ranks, whole)


@every_baseline
def test_an_item_without_training_events_is_no_trouble(make: Callable[[], Baseline]) -> None:
    recommender = fitted(make, make_sessions([0, 1], [1, 2]), 5)
    scores = scores_of(recommender, [4, 0], [3, 4, 1])
    assert scores.shape == (3, 5)
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("make", NEIGHBOURS)
def test_neighbours_learn_the_checkerboard(make: Callable[[], Baseline]) -> None:
    scores = scores_of(fitted(make, checkerboard(), 20), [0, 2], [7, 3])
    assert set(np.argsort(-scores[0])[:9].tolist()) == set(range(2, 20, 2))
    assert set(np.argsort(-scores[1])[:9].tolist()) == set(range(1, 20, 2)) - {7}


@pytest.mark.parametrize("make", NEIGHBOURS)
def test_neighbours_do_not_recommend_strangers_or_the_current_item(make: Callable[[], Baseline]) -> None:
    scores = scores_of(fitted(make, make_sessions([0, 1], [0, 2], [3, 4]), 5), [0, 1])
    assert np.isinf(scores[0, [0, 3, 4]]).all()
    assert np.isfinite(scores[0, [1, 2]]).all()


def test_popularity_by_hand() -> None:
    scores = scores_of(fitted(Popularity, make_sessions([0, 1, 1], [1, 2]), 4), [0, 1, 2])
    assert scores.tolist() == [[1, 3, 1, 0], [1, 3, 1, 0]]


def test_session_popularity_by_hand() -> None:
    scores = scores_of(fitted(SessionPopularity, make_sessions([0, 1, 1], [1, 2, 2]), 4), [3, 0, 3, 1])
    # Most frequent in the session first, equals and the rest by popularity.
    assert np.argsort(-scores, kind="stable").tolist() == [[3, 1, 2, 0], [0, 3, 1, 2], [3, 0, 1, 2]]


def test_item_knn_by_hand() -> None:
    recommender = fitted(lambda: ItemKNN(shrink=1), make_sessions([0, 1, 0], [0, 1], [0, 2], [2, 3]), 4)
    scores = scores_of(recommender, [0, 1], [2, 1])
    assert scores[0] == pytest.approx([-math.inf, 2 / math.sqrt(4 * 3), 1 / math.sqrt(4 * 3), -math.inf])
    assert scores[1] == pytest.approx([1 / math.sqrt(4 * 3), -math.inf, -math.inf, 1 / math.sqrt(3 * 2)])


def test_item_knn_keeps_the_nearest() -> None:
    recommender = fitted(lambda: ItemKNN(neighbours=1, shrink=0), make_sessions([0, 1], [0, 1], [0, 2]), 3)
    assert np.isfinite(scores_of(recommender, [0, 1])).tolist() == [[False, True, False]]


@settings(deadline=None)
@given(session_lists)
def test_item_knn_counts_the_same_in_blocks(sessions: list[list[int]]) -> None:
    whole = scores_of(fitted(ItemKNN, make_sessions(*sessions), 8), *sessions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "PAIRS_AT_ONCE", 5)
        np.testing.assert_array_equal(scores_of(fitted(ItemKNN, make_sessions(*sessions), 8), *sessions), whole)


@pytest.mark.parametrize("make", DECAYS)
def test_session_neighbours_by_hand(make: type[VSKNN | VMISKNN]) -> None:
    # Evolving session 0, 1: weights 1/2 and 2/2. Session A = {0, 2} has similarity 1/2 and its newest match is second
    # from the end; B = {1, 3} has 1 and first; C = {0, 1, 2} has 3/2 and first.
    scores = scores_of(fitted(make, make_sessions([0, 2], [1, 3], [0, 1, 2], [4, 5]), 6), [0, 1, 2])[1]
    first, second = {VSKNN: (1, 1 / 2), VMISKNN: (0.9, 0.8)}[make]
    a, b, c = second / 2, first, first * 3 / 2
    by_hand = [(a + c) * math.log(4 / 2), -math.inf, (a + c) * math.log(4 / 2), b * math.log(4), -math.inf, -math.inf]
    # A common factor (here the length of the evolving session) does not matter.
    assert scores / scores[0] == pytest.approx(np.array(by_hand) / by_hand[0])


@pytest.mark.parametrize("make", DECAYS)
def test_session_neighbours_are_among_the_most_recent_sessions(make: type[VSKNN | VMISKNN]) -> None:
    recommender = fitted(lambda: make(recent=2), make_sessions([0, 1], [0, 2], [0, 3], [4, 5]), 6)
    assert np.flatnonzero(np.isfinite(scores_of(recommender, [0, 1])[0])).tolist() == [2, 3]


@pytest.mark.parametrize("make", DECAYS)
@settings(max_examples=60, deadline=None)
@given(session_lists, session_lists, st.integers(1, 4), st.integers(1, 3))
def test_session_neighbours_in_arrays_are_those_found_one_at_a_time(
    make: type[VSKNN | VMISKNN], training: list[list[int]], test: list[list[int]], recent: int, k: int
) -> None:
    recommender = fitted(lambda: make(recent, k), make_sessions(*training), 8)
    expected = [
        one_at_a_time(training, session[:place], recent, k, DECAYS[make])
        for session in test
        for place in range(1, len(session))
    ]
    scores = scores_of(recommender, *test)
    for row, votes in zip(scores, expected, strict=True):
        assert set(np.flatnonzero(np.isfinite(row)).tolist()) == set(votes)
        found = {item: row[item] for item in votes}
        assert found == pytest.approx(votes, rel=1e-5)


def one_at_a_time(
    training: list[list[int]], evolving: list[int], recent: int, k: int, decay: Callable[[int], float]
) -> dict[int, float]:
    """Scores of the items, with weights in places (not divided by the session's length), as SessionKNN describes."""
    distinct = list(dict.fromkeys(reversed(evolving)))  # the last place of each, newest first
    places = {item: len(distinct) - back for back, item in enumerate(distinct)}
    sharing = [number for number, session in enumerate(training) if set(session) & set(distinct)]
    candidates = sharing[-recent:]
    similarity = {number: sum(places.get(item, 0) for item in set(training[number])) for number in candidates}
    neighbours = sorted(candidates, key=lambda number: (-similarity[number], -number))[:k]
    holders = Counter(item for session in training for item in set(session))
    votes: dict[int, float] = defaultdict(float)
    for number in neighbours:
        newest = min(back for back, item in enumerate(distinct, 1) if item in training[number])
        for item in set(training[number]):
            votes[item] += decay(newest) * similarity[number] * math.log(len(training) / holders[item])
    return {item: vote for item, vote in votes.items() if vote > 0 and item != evolving[-1]}
