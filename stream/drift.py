"""Alarms when clicks no longer are what the model was made for.

Three shares are watched: tests that find their item among the first 20 of the list (``hit_rate``), clicks on unknown
items (``unknown_items``), and clicks on known items that are among those which made up half of training
(``popular_items``). Each is held to a reference by two CUSUM tests of Bernoulli trials (Page 1954), one for a rise and
one for a fall: a score adds up the log-likelihood ratio of a share at the bound against one at half the bound, never
falls below zero, and raises the alarm at ``h = ln(2 * signals * clicks)``.

So a share that stays within half the bound of its reference raises a false alarm at most once in :data:`ALARM_CLICKS`
clicks, all signals together (Lorden 1971, for trials that do not depend on each other). Those of one session do, a
little; half the bound is left for that, for the error of a reference that was learnt, and for the days of the week.

A share that has moved by the bound or more is found after about ``h / d`` trials, where ``d`` is what one trial adds to
the score on average: some 4,500 trials where 0.5 has become 0.4 and the bound is 0.1, some 260 where it has become 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from math import log

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from recsys.bundle import EVALUATION, Bundle
from recsys.serving import CurrentModel, Served
from recsys.vocabulary import UNKNOWN
from stream.online_metrics import K
from stream.outcome import Outcome

logger = logging.getLogger(__name__)

SIGNALS = ("hit_rate", "unknown_items", "popular_items")
ALARM_CLICKS = 1e9  # at 385 clicks a second a month
LEARNT_FROM = 5000  # clicks that make the reference where the bundle has none
RECENT = 2000  # trials after which those before count half in the share that is shown


class Cusum:
    """One side of a test: whether a share has moved from ``allowed`` to ``refused`` or beyond.

    Attributes:
        alarm: from when the score reaches the threshold until it is back at zero.
    """

    def __init__(self, allowed: float, refused: float, threshold: float) -> None:
        self._hit, self._miss = log(refused / allowed), log((1 - refused) / (1 - allowed))
        self._threshold = threshold
        self._score = 0.0
        self.alarm = False

    def add(self, trials: Sequence[bool]) -> None:
        """Take in trials. The score goes no higher than the threshold, so that it can come down again."""
        score = self._score
        for hit in trials:
            score += self._hit if hit else self._miss
            if score <= 0:
                score, self.alarm = 0.0, False
            elif score >= self._threshold:
                score, self.alarm = self._threshold, True
        self._score = score


class Signal:
    """A share that is held to a reference; where there is none, the first :data:`LEARNT_FROM` trials give it.

    Attributes:
        share: of late.
        reference: what the share is held to; None while it is learnt.
    """

    def __init__(self, bound: float, reference: float | None = None, alarm_clicks: float = ALARM_CLICKS) -> None:
        self._bound, self._threshold = bound, log(2 * len(SIGNALS) * alarm_clicks)
        self._sides: list[Cusum] = []
        self._learnt: list[bool] = []
        self.share = reference or 0.0
        self.reference: float | None = None
        if reference is not None:
            self._hold_to(reference)

    def add(self, trials: Sequence[bool]) -> None:
        """Take in trials, in order."""
        if self.reference is None:
            missing = LEARNT_FROM - len(self._learnt)
            self._learnt += trials[:missing]
            trials = trials[missing:]
            self.share = sum(self._learnt) / max(1, len(self._learnt))
            if len(self._learnt) == LEARNT_FROM:
                self._hold_to(self.share)
        if trials:
            self.share += (sum(trials) / len(trials) - self.share) * (1 - 0.5 ** (len(trials) / RECENT))
            for side in self._sides:
                side.add(trials)

    @property
    def alarm(self) -> bool:
        """Whether either side of the test has raised one."""
        return any(side.alarm for side in self._sides)

    def _hold_to(self, reference: float) -> None:
        self.reference, self._learnt = reference, []
        for bound in (self._bound, -self._bound):
            allowed, refused = reference + bound / 2, reference + bound
            if 0 < refused < 1:  # a share cannot move beyond these
                self._sides.append(Cusum(allowed, refused, self._threshold))


class DriftMonitor(Collector):
    """The signals of the current model; they begin anew when another takes over."""

    def __init__(self, model: CurrentModel, bound: float) -> None:
        self._model, self._bound = model, bound
        self._take_up(model.served)

    def observe(self, outcome: Outcome) -> None:
        """Take in the clicks of a micro-batch, and say which alarms begin and end."""
        if not self._bound:
            return
        if self._model.served is not self._served:
            self._take_up(self._model.served)
        before = {name: signal.alarm for name, signal in self.signals.items()}
        version = self._served.version
        rows = outcome.clicked.get(version, [])
        self.signals["hit_rate"].add([trial.rank <= K for trial in outcome.trials if trial.version == version])
        self.signals["unknown_items"].add([row == UNKNOWN for row in rows])
        self.signals["popular_items"].add([row in self._popular for row in rows if row != UNKNOWN])
        for name, signal in self.signals.items():
            if signal.alarm != before[name]:
                words = "has left" if signal.alarm else "is back at"
                fields = {"signal": name, "share": round(signal.share, 4), "reference": signal.reference}
                logger.warning("drift: %s %s its reference", name, words, extra=fields)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus takes."""
        alarm = GaugeMetricFamily("recsys_drift_alarm", "1 while a share has left its reference.", labels=["signal"])
        share = GaugeMetricFamily("recsys_drift_share_ratio", "The share of late.", labels=["signal"])
        reference = GaugeMetricFamily("recsys_drift_reference_ratio", "What it is held to.", labels=["signal"])
        for name, signal in self.signals.items():
            alarm.add_metric([name], signal.alarm)
            share.add_metric([name], signal.share)
            if signal.reference is not None:
                reference.add_metric([name], signal.reference)
        yield from (alarm, share, reference)

    def _take_up(self, served: Served) -> None:
        self._served = served
        counts, popular = served.vocabulary.counts, popular_half(served.vocabulary.counts)
        self._popular = frozenset(popular)
        trained = float(counts[popular].sum() / counts.sum())
        references = {"hit_rate": evaluated_recall(served.bundle), "unknown_items": None, "popular_items": trained}
        self.signals = {name: Signal(self._bound, references[name]) for name in SIGNALS}


def popular_half(counts: NDArray[np.int64]) -> list[int]:
    """The fewest items (rows of ``counts`` ``[items]``) that made up half of the events counted, or a little more."""
    order = np.argsort(-counts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)) + 1
    rows: list[int] = order[:enough].tolist()
    return rows


def evaluated_recall(bundle: Bundle) -> float | None:
    """Recall@20 of the model in the evaluation that was published with it; None where there was none."""
    path = bundle.path / EVALUATION
    try:
        figures = orjson.loads(path.read_bytes())
        mine = next(each for each in figures["recommenders"] if each["name"] == figures["model"])
        return float(mine["metrics"][f"recall@{K}"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
