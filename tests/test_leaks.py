"""Leaks planted in data, statistics and recommenders: each is refused, or gains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.bundle import Description, Model, save_model
from recsys.cli.evaluate import evaluate as command
from recsys.dataset import Dataset, write_dataset
from recsys.errors import DatasetError, InputError
from recsys.evaluation.item_knn import ItemKNN
from recsys.evaluation.popularity import Popularity
from recsys.evaluation.predictions import Predictions, Recommender
from recsys.evaluation.protocol import NEVER, evaluate, pessimistic_ranks
from recsys.evaluation.session_popularity import SessionPopularity
from recsys.evaluation.vmis_knn import VMISKNN
from recsys.evaluation.vsknn import VSKNN
from recsys.manifest import Split
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary

from .conftest import random_model

ITEMS = 60
VALIDATION, TEST = 1_000_000, 2_000_000  # the boundaries, epoch milliseconds
Scores = NDArray[np.float32]


def random_sessions(count: int, begin: int, end: int, seed: int) -> Sessions:
    """Sessions of 2 to 6 events that begin and end between two times."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 7, count)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    times = np.repeat(np.sort(random.integers(begin, end - 60_000, count)), lengths)
    times += (np.arange(len(times)) - np.repeat(starts[:-1], lengths)) * 1000
    items = np.minimum(random.exponential(12, len(times)), ITEMS - 1).astype(np.int32)
    return Sessions(items, times, np.zeros(len(times), np.int8), starts)


def together(*parts: Sessions) -> Sessions:
    starts = np.concatenate(([0], np.cumsum(np.concatenate([part.lengths for part in parts])))).astype(np.int64)
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "times", "types")]
    return Sessions(*columns, starts)


TRAIN = random_sessions(150, 0, VALIDATION, 1)
HELD_OUT = random_sessions(60, VALIDATION, TEST, 2)
FUTURE = random_sessions(120, TEST, 3_000_000, 3)
CLEAN = {"train": TRAIN, "validation": HELD_OUT, "test": FUTURE}


def vocabulary(*learnt: Sessions) -> Vocabulary:
    counts = np.bincount(np.concatenate([part.items for part in learnt]), minlength=ITEMS)
    return Vocabulary([f"item-{row:03}" for row in range(ITEMS)], counts.astype(np.int64))


def make_dataset(path: Path, words: Vocabulary | None = None, **parts: Sessions) -> Dataset:
    sessions = {
        name: (part, [f"{name}-{number}" for number in range(len(part))]) for name, part in (CLEAN | parts).items()
    }
    split = Split(validation_from=VALIDATION, test_from=TEST)
    return write_dataset(path, words or vocabulary(TRAIN, HELD_OUT), sessions, split)


def make_model(path: Path, data: Dataset) -> Path:
    model = random_model(ITEMS)
    description = Description.model_validate(model.description.model_dump() | {"dataset": data.manifest.content_hash})
    path.mkdir()
    save_model(path, Model(model.weights, data.vocabulary, description))
    return path


def run_evaluate(folder: Path, data: Dataset) -> dict[str, Any]:
    result = CliRunner().invoke(
        command, [str(make_model(folder / "model", data)), str(data.path), "--out", str(folder / "report")]
    )
    if result.exception:
        raise result.exception
    figures: dict[str, Any] = json.loads((folder / "report/evaluation.json").read_text())
    return figures


# 1. Test events in training.


def straddling(begin: int, boundary: int) -> Sessions:
    """One session that begins at ``begin`` and goes on at ``boundary``."""
    times = np.array([begin, boundary - 1, boundary, boundary + 1000])
    return Sessions(np.arange(4, dtype=np.int32), times, np.zeros(4, np.int8), np.array([0, 4]))


@pytest.mark.parametrize(
    ("split", "planted", "message"),
    [
        ("train", together(TRAIN, FUTURE), "holds a train session that begins too late"),
        ("train", together(TRAIN, HELD_OUT), "holds a train session that begins too late"),
        ("train", together(TRAIN, straddling(VALIDATION - 9, TEST)), "holds a train event of the test period"),
        ("validation", together(HELD_OUT, FUTURE), "holds a validation session that begins too late"),
        ("validation", straddling(TEST - 9, TEST), "holds a validation event of the test period"),
        ("validation", together(TRAIN, HELD_OUT), "holds a validation session that begins too early"),
        ("test", together(TRAIN, FUTURE), "holds a test session that begins too early"),
        ("test", straddling(TEST - 9, TEST), "holds a test session that begins too early"),
    ],
)
def test_a_dataset_with_events_of_another_split_is_refused(
    tmp_path: Path, split: str, planted: Sessions, message: str
) -> None:
    data = make_dataset(tmp_path / "dataset", **{split: planted})
    with pytest.raises(DatasetError, match=rf"{split}/00000\.parquet: {message}, at 19"):
        {"train": data.training, "validation": data.development, "test": data.test}[split]()


def test_a_session_that_goes_back_in_time_hides_nothing(tmp_path: Path) -> None:
    """Its begin alone would pass."""
    times = np.array([10, TEST + 5, 20])
    planted = Sessions(np.arange(3, dtype=np.int32), times, np.zeros(3, np.int8), np.array([0, 3]))
    with pytest.raises(DatasetError, match=r"goes back in time within a session, at 1970-01-01T00:00:00\.020Z"):
        make_dataset(tmp_path / "dataset", train=planted).training()


def test_the_evaluation_of_a_leaky_dataset_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "dataset", train=together(TRAIN, FUTURE))
    with pytest.raises(DatasetError, match=r"train/00000\.parquet"):
        run_evaluate(tmp_path, data)
    assert not (tmp_path / "report").exists()


def test_test_sessions_put_in_place_of_training_sessions_are_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "dataset")
    shutil.copyfile(data.path / "test/00000.parquet", data.path / "train/00000.parquet")
    with pytest.raises(DatasetError, match=r"train/00000\.parquet: has been altered"):
        run_evaluate(tmp_path, data)


# 2. What is known of items from the future.


def test_counts_of_the_future_in_the_vocabulary_change_no_figure(tmp_path: Path) -> None:
    figures = []
    for name, words in (("clean", vocabulary(TRAIN, HELD_OUT)), ("doctored", vocabulary(*[FUTURE] * 50))):
        (tmp_path / name).mkdir()
        figures.append(run_evaluate(tmp_path / name, make_dataset(tmp_path / name / "dataset", words)))
        figures[-1].pop("dataset")  # its hash
    assert figures[0] == figures[1]


# 3. Favourable ties.


class Scored:
    """Scores each history by a function of its items."""

    name = "scored"

    def __init__(self, score: Callable[[list[int]], Scores]) -> None:
        self.score = score

    def predict(self, sessions: Sessions) -> Iterator[Scores]:
        for session in sessions:
            yield np.array([self.score(session[:place].tolist()) for place in range(1, len(session))]).reshape(
                -1, ITEMS
            )


def recall(recommender: Recommender, sessions: Sessions = FUTURE) -> float:
    return evaluate(recommender, sessions, np.zeros(ITEMS, np.int64)).recall(20)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, -np.inf])
def test_equal_scores_for_all_items_gain_nothing(value: float) -> None:
    assert recall(Scored(lambda _: np.full(ITEMS, value, np.float32))) == 0


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([1, 2, 4, 8, 64]))
def test_rounded_scores_gain_nothing_on_any_prediction(seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(8, ITEMS)).astype(np.float32)
    target = random.integers(ITEMS, size=8).astype(np.int32)
    rounded = np.floor(scores * steps) / steps
    assert (pessimistic_ranks(rounded, target) >= pessimistic_ranks(scores, target)).all()


def test_scores_finer_than_their_type_are_ties() -> None:
    """What float32 does not hold cannot lift a target among equals."""

    class Finer:
        name = "finer"

        def predict(self, sessions: Sessions) -> Iterator[Any]:
            target = Predictions.of(sessions).target
            scores = np.ones((len(target), ITEMS))
            scores[np.arange(len(target)), target] += 1e-12
            yield scores

    assert recall(Finer()) == 0


# 4. Hard cases dropped.


class Altered:
    """Session popularity whose rows of scores go through ``alter``."""

    name = "altered"

    def __init__(self, alter: Callable[[Scores, Sessions], Scores]) -> None:
        self.alter, self.inner = alter, SessionPopularity()
        self.inner.fit(TRAIN, ITEMS)

    def predict(self, sessions: Sessions) -> Iterator[Scores]:
        yield self.alter(np.concatenate(list(self.inner.predict(sessions))), sessions)


def no_number_for_late_clicks(scores: Scores, sessions: Sessions) -> Scores:
    scores[Predictions.of(sessions).position > 3] = np.nan
    return scores


def short_sessions_only(scores: Scores, sessions: Sessions) -> Scores:
    predictions = Predictions.of(sessions)
    return scores[sessions.lengths[predictions.session] < 4]


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (no_number_for_late_clicks, "not a number"),
        (short_sessions_only, "rows of scores for"),
        (lambda scores, _: scores[:-1], "rows of scores for"),
        (lambda scores, _: np.concatenate([scores, scores[:1]]), "more rows"),
        (lambda scores, _: scores[::-1], "looks ahead"),
    ],
)
def test_predictions_left_out_added_or_in_another_order_are_refused(
    alter: Callable[[Scores, Sessions], Scores], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        recall(Altered(alter))


def test_a_target_that_is_never_recommended_is_missed_however_few_items_there_are() -> None:
    scores = np.array([[3, -np.inf, 2], [3, 1, 2]], np.float32)
    assert pessimistic_ranks(scores, np.array([1, 1], np.int32)).tolist() == [NEVER, 3]


# 5. Looking ahead.


def add_to_target(amount: float) -> Callable[[Scores, Sessions], Scores]:
    def alter(scores: Scores, sessions: Sessions) -> Scores:
        scores[np.arange(len(scores)), Predictions.of(sessions).target] += np.float32(amount)
        return scores

    return alter


def lift_items_of_the_whole_session(scores: Scores, sessions: Sessions) -> Scores:
    for row, session in zip(scores, Predictions.of(sessions).session, strict=True):
        row[sessions.items[sessions.starts[session] : sessions.starts[session + 1]]] += 1
    return scores


def lift_by_the_time_of_the_next_click(scores: Scores, sessions: Sessions) -> Scores:
    event = Predictions.of(sessions).event
    return scores * (1 + (sessions.times[event] - sessions.times[event - 1])[:, None] % 7).astype(np.float32)


def lift_by_the_length_of_the_session(scores: Scores, sessions: Sessions) -> Scores:
    return scores * sessions.lengths[Predictions.of(sessions).session][:, None].astype(np.float32)


def lift_what_is_popular_in_the_test(scores: Scores, sessions: Sessions) -> Scores:
    return scores + np.bincount(sessions.items, minlength=ITEMS).astype(np.float32)


@pytest.mark.parametrize(
    "alter",
    [
        add_to_target(1.0),
        add_to_target(1e-6),
        lift_items_of_the_whole_session,
        lift_by_the_time_of_the_next_click,
        lift_by_the_length_of_the_session,
        lift_what_is_popular_in_the_test,
    ],
)
def test_a_recommender_that_looks_ahead_is_refused(alter: Callable[[Scores, Sessions], Scores]) -> None:
    with pytest.raises(InputError, match="altered looks ahead"):
        recall(Altered(alter))


def test_a_recommender_without_answers_to_another_future_is_refused() -> None:
    """It has kept the answers to the questions it knows."""

    class Memory:
        name = "memory"

        def predict(self, sessions: Sessions) -> Iterator[Scores]:
            if sessions is FUTURE:
                yield np.eye(ITEMS, dtype=np.float32)[Predictions.of(sessions).target]

    with pytest.raises(InputError, match="memory looks ahead"):
        recall(Memory())


@pytest.mark.parametrize("make", [Popularity, SessionPopularity, ItemKNN, VSKNN, VMISKNN])
@pytest.mark.parametrize("sessions", [FUTURE, FUTURE.keep_sessions(np.arange(len(FUTURE)) == 0)])
def test_those_that_do_not_look_ahead_pass(make: Callable[[], Any], sessions: Sessions) -> None:
    recommender = make()
    recommender.fit(TRAIN, ITEMS)
    assert 0 <= recall(recommender, sessions) <= 1
    assert 0 <= recall(Scorer(random_model(ITEMS).weights), sessions) <= 1


# 6. A boundary inside a session.


def test_a_session_over_the_validation_boundary_is_learnt_up_to_it_and_validates_nothing(tmp_path: Path) -> None:
    over = straddling(VALIDATION - 9, VALIDATION)
    data = make_dataset(tmp_path / "dataset", train=together(TRAIN, over))
    assert data.training().events == TRAIN.events + 2
    assert data.training().times.max() < VALIDATION
    assert not np.isin(over.times, data.validation().times).any()
    assert data.development().events == TRAIN.events + 4 + HELD_OUT.events
