"""The protocol: which events are predicted, how ties count, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.evaluation.predictions import Predictions
from recsys.evaluation.protocol import Result, evaluate, pessimistic_ranks, top_items
from recsys.sessions import Sessions

Scores = NDArray[np.float32]


def make_sessions(*sessions: list[int]) -> Sessions:
    items = np.array([item for session in sessions for item in session], np.int32)
    starts = np.cumsum([0, *(len(session) for session in sessions)]).astype(np.int64)
    return Sessions(items, np.arange(len(items), dtype=np.int64), np.zeros(len(items), np.int8), starts)


class Table:
    """Has a row of scores for some histories, and zeros for the others."""

    name = "table"

    def __init__(self, scores: dict[tuple[int, ...], list[float]]) -> None:
        self.scores = scores

    def predict(self, sessions: Sessions) -> Iterator[Scores]:
        zeros = [0.0] * len(next(iter(self.scores.values())))
        for session in sessions:
            for place in range(1, len(session)):
                yield np.array([self.scores.get(tuple(session[:place].tolist()), zeros)], np.float32)


class Fixed:
    """Yields given chunks, whatever it is asked."""

    name = "fixed"

    def __init__(self, *chunks: list[list[float]]) -> None:
        self.chunks = chunks

    def predict(self, sessions: Sessions) -> Iterator[Scores]:
        for chunk in self.chunks:
            yield np.array(chunk, np.float32)


def test_every_event_but_the_first_is_predicted_from_those_before_it() -> None:
    predictions = Predictions.of(make_sessions([3, 1, 2], [5], [4, 0]))
    assert predictions.target.tolist() == [1, 2, 0]
    assert predictions.session.tolist() == [0, 0, 2]
    assert predictions.position.tolist() == [1, 2, 1]


def test_histories_run_from_the_last_event_back() -> None:
    sessions = make_sessions([3, 1, 2], [4, 0])
    prediction, event, back = Predictions.of(sessions).histories()
    assert prediction.tolist() == [0, 1, 1, 2]
    assert sessions.items[event].tolist() == [3, 1, 3, 4]
    assert back.tolist() == [1, 1, 2, 1]
    assert sessions.items[Predictions.of(sessions).histories(longest=1)[1]].tolist() == [3, 1, 4]


def test_metrics_worked_by_hand() -> None:
    sessions = make_sessions([0, 1, 2], [2, 3])
    # Targets 1, 2, 3 stand at ranks 1, 2 and 4.
    recommender = Table({(0,): [0, 9, 1, 1], (0, 1): [0, 9, 5, 1], (2,): [3, 2, 1, 0]})
    result = evaluate(recommender, sessions, np.ones(4, np.int64), ks=(1, 2, 4))
    assert result.ranks.tolist() == [1, 2, 4]
    assert [result.recall(k) for k in (1, 2, 4)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [result.mrr(k) for k in (1, 2, 4)] == pytest.approx([1 / 3, 1.5 / 3, 1.75 / 3])
    assert result.as_dict()["mrr@2"] == result.mrr(2)


def test_ties_count_against_the_recommender() -> None:
    ranks = pessimistic_ranks(np.array([[1, 1, 1, 0], [0, 0, 0, 0]], np.float32), np.array([0, 3], np.int32))
    assert ranks.tolist() == [3, 4]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_a_rank_is_the_worst_place_among_equals(scores: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    expected = sorted(scores, reverse=True)
    worst_place = max(place for place, score in enumerate(expected, 1) if score == scores[target])
    assert pessimistic_ranks(np.array([scores], np.float32), np.array([target], np.int32)) == [worst_place]


def test_coverage_counts_the_items_in_any_list() -> None:
    near_10, near_12 = ([float(-abs(item - centre)) for item in range(40)] for centre in (10, 12))
    scores = Table({(0,): near_10, (0, 1): near_12})
    result = evaluate(scores, make_sessions([0, 1, 2]), np.ones(40, np.int64))
    # The first list is items 1 to 19 with 0 or 20 beside; the second 3 to 21 with 2 or 22.
    assert result.coverage in {21 / 40, 22 / 40, 23 / 40}
    assert result.recommended.sum() == 40


def test_items_never_recommended_stand_in_no_list() -> None:
    assert sorted(top_items(np.array([[-np.inf, 2, -np.inf, 1]], np.float32), k=3)) == [1, 3]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([[[0, float("nan"), 1, 2]]], "not a number"),
        ([[[0, 1, 2]]], "shape"),
        ([], "0 rows of scores for 1 predictions"),
        ([[[0, 1, 2, 3]], [[0, 1, 2, 3]]], "more rows"),
    ],
)
def test_a_recommender_that_breaks_its_contract_is_refused(chunks: list[list[list[float]]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Fixed(*chunks), make_sessions([0, 1]), np.ones(4, np.int64))


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(InputError, match="no session has a second event"):
        evaluate(Fixed(), make_sessions([1], [2]), np.ones(4, np.int64))


def results(ranks: NDArray[np.int32], others: NDArray[np.int32]) -> tuple[Result, Result]:
    predictions = Predictions.of(make_sessions(*[[0, 1, 2]] * (len(ranks) // 2)))
    recommended = np.ones(3, np.int64)
    return Result("a", ranks, recommended, predictions), Result("b", others, recommended, predictions)


def test_the_interval_is_that_of_the_sessions() -> None:
    # 400 sessions of two predictions that always succeed or fail together, half of them each: the standard error of
    # the mean is sqrt(0.25 / 400) = 0.025, as if there were 400 predictions and not 800.
    ranks = np.repeat(np.arange(400) % 2 * 100 + 1, 2).astype(np.int32)
    low, high = results(ranks, ranks)[0].intervals["recall@20"]
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_a_paired_difference_sees_what_single_intervals_hide() -> None:
    random = np.random.default_rng(0)
    ranks = np.where(random.random(2000) < 0.5, 1, 100).astype(np.int32)
    better = np.where(random.random(2000) < 0.01, 1, ranks).astype(np.int32)
    worse_result, better_result = results(ranks, better)
    assert better_result.intervals["recall@20"].low < worse_result.intervals["recall@20"].high
    assert better_result.difference(worse_result, "recall@20").low > 0
    assert worse_result.difference(worse_result, "mrr@20") == (0, 0)


def test_results_on_other_predictions_are_not_compared() -> None:
    ranks = np.ones(4, np.int32)
    one, _ = results(ranks, ranks)
    _, other = results(np.ones(6, np.int32), np.ones(6, np.int32))
    with pytest.raises(InputError, match="not evaluated on the same predictions"):
        one.difference(other, "recall@20")
