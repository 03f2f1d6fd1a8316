"""The best possible recommender: its scores are the true probabilities, and nothing beats it but by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.evaluation.item_knn import ItemKNN
from recsys.evaluation.oracle import Oracle
from recsys.evaluation.popularity import Popularity
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.session_popularity import SessionPopularity
from recsys.evaluation.vmis_knn import VMISKNN
from recsys.evaluation.vsknn import VSKNN
from recsys.generator.clicks import Rows, generate
from recsys.generator.process import CONTINUE, EVENT_TYPES, EXPLORE, LOOK_AGAIN, TO_CART, Parameters, Process
from recsys.sessions import SessionRule, Sessions, assemble
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True)
class Log:
    process: Process
    vocabulary: Vocabulary
    training: Sessions
    test: Sessions
    collapsed: bool

    @property
    def oracle(self) -> Oracle:
        return Oracle(self.process, self.vocabulary, EVENT_TYPES, self.collapsed)


def make_log(collapsed: bool, parameters: Parameters | None = None) -> Log:
    process = Process(parameters or Parameters(events=60_000, users=2000, items=500, days=5, seed=3))
    rows = Rows.join(list(generate(process)))
    rows = rows.take(rows.fault == 0)
    ids = sorted(process.item_ids)
    row_of = {item: row for row, item in enumerate(ids)}
    items = np.array([row_of[item] for item in process.item_ids], np.int32)[rows.item]
    sessions = assemble(
        rows.user, items, rows.time, rows.type.astype(np.int8), None, SessionRule(collapse_repeats=collapsed)
    ).sessions
    sessions = sessions.keep_sessions(sessions.lengths >= 2)
    begins = sessions.times[sessions.starts[:-1]]
    boundary = process.parameters.start_ms + (process.parameters.days - 2) * 86_400_000
    training, test = sessions.keep_sessions(begins < boundary), sessions.keep_sessions(begins >= boundary)
    counts = np.bincount(training.items, minlength=len(ids))
    return Log(process, Vocabulary(ids, counts), training, test, collapsed)


@pytest.fixture(scope="module", params=[True, False], ids=["repeats collapsed", "repeats kept"])
def log(request: pytest.FixtureRequest) -> Log:
    return make_log(request.param)


def test_scores_are_probabilities(log: Log) -> None:
    for chances in log.oracle.predict(log.test):
        assert chances.min() >= 0
        assert chances.sum(axis=1) == pytest.approx(np.ones(len(chances)), rel=1e-4)


def test_it_reaches_what_it_expects(log: Log) -> None:
    result, expected = evaluate(log.oracle, log.test, log.vocabulary.counts), log.oracle.expected_recall(log.test)
    assert 0.5 < expected < 0.95
    error = np.sqrt(expected * (1 - expected) / len(result.ranks))
    assert abs(result.recall(20) - expected) < 4 * error


def test_no_baseline_beats_it(log: Log) -> None:
    some = log.test.keep_sessions(np.arange(len(log.test)) % 4 == 0)
    best = evaluate(log.oracle, some, log.vocabulary.counts)
    for baseline in (Popularity(), SessionPopularity(), ItemKNN(), VSKNN(), VMISKNN()):
        baseline.fit(log.training, len(log.vocabulary))
        other = evaluate(baseline, some, log.vocabulary.counts)
        assert best.difference(other, "recall@20").low > 0, baseline.name


def test_knowing_more_of_the_order_pays() -> None:
    # A first-order method learnt from counts comes nearer to the best possible than any baseline that ignores order.
    log = make_log(collapsed=True)
    items, training = len(log.vocabulary), log.training
    inner = np.ones(training.events, bool)
    inner[training.starts[:-1]] = False
    following = np.flatnonzero(inner)
    moves = np.zeros((items, items), np.float32)
    np.add.at(moves, (training.items[following - 1], training.items[following]), np.float32(1))

    class FirstOrder:
        name = "first order"

        def predict(self, sessions: Sessions):  # type: ignore[no-untyped-def]
            yield np.stack([moves[item] for session in sessions for item in session[:-1]])

    learnt = evaluate(FirstOrder(), log.test, log.vocabulary.counts)
    knn = ItemKNN()
    knn.fit(training, items)
    assert learnt.difference(evaluate(knn, log.test, log.vocabulary.counts), "recall@20").low > 0.02


def test_a_chance_by_hand(log: Log) -> None:
    process, test = log.process, log.test
    event = int(test.starts[0])
    current = process.item_ids.index(log.vocabulary.ids[test.items[event]])
    hour = (int(test.times[event]) - process.parameters.start_ms) // 3_600_000
    following = int(process.near[current, 0])
    chance = process.near_chance[current, 0]
    own = EXPLORE * process.taste[hour, process.category[current]] * process.popularity[current]
    chance += EXPLORE * process.taste[hour, process.category[following]] * process.popularity[following]
    if log.collapsed:
        chance /= 1 - own
    else:
        repeat = LOOK_AGAIN + TO_CART
        chance *= (1 - repeat) * CONTINUE / (repeat + (1 - repeat) * CONTINUE)
    first = next(iter(log.oracle.predict(test)))[0]
    assert first[log.vocabulary.row(process.item_ids[following])] == pytest.approx(chance, rel=1e-4)


@pytest.mark.parametrize(
    ("ids", "event_types", "message"),
    [(["sku-00001", "teapot"], ["view"], "teapot"), (["sku-00001"], ["view", "rent"], "rent")],
)
def test_a_dataset_of_another_process_is_refused(ids: list[str], event_types: list[str], message: str) -> None:
    vocabulary = Vocabulary(ids, np.ones(len(ids), np.int64))
    with pytest.raises(InputError, match=message):
        Oracle(Process(Parameters()), vocabulary, event_types, True)
