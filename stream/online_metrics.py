"""Recall@20 and MRR@20 of the lists that visitors met, for Prometheus."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from stream.online import Trial

K = 20
KEPT_VERSIONS, KEPT_SURFACES, SURFACE_CHARACTERS = 4, 20, 40  # bounds of what strangers can make series of
_POSITIONS = ((1, "2nd"), (2, "3rd"), (3, "4th"), (6, "5th to 7th"))  # most clicks before, as in evaluation's report


@dataclass
class Tally:
    """Tests, how many found their item among the first 20, and the sum of 1 / rank of those."""

    tests: int = 0
    hits: int = 0
    reciprocal_ranks: float = 0.0

    def add(self, rank: int) -> None:
        """Count one test."""
        self.tests += 1
        if rank <= K:
            self.hits += 1
            self.reciprocal_ranks += 1 / rank

    @property
    def recall(self) -> float:
        """Recall@20."""
        return self.hits / self.tests

    @property
    def mrr(self) -> float:
        """MRR@20."""
        return self.reciprocal_ranks / self.tests


class OnlineMetrics(Collector):
    """Running tallies by model version, position and surface; the versions tested last are kept."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, dict[tuple[str, str], Tally]] = OrderedDict()
        self._totals: dict[str, Tally] = {}
        self._surfaces: set[str] = set()

    def add(self, trials: Iterable[Trial]) -> None:
        """Count tests."""
        for trial in trials:
            tallies = self._versions.setdefault(trial.version, {})
            self._versions.move_to_end(trial.version)
            tallies.setdefault((_position(trial.position), self._surface(trial.surface)), Tally()).add(trial.rank)
            self._totals.setdefault(trial.version, Tally()).add(trial.rank)
        while len(self._versions) > KEPT_VERSIONS:
            version, _ = self._versions.popitem(last=False)
            del self._totals[version]

    def total(self, version: str) -> Tally:
        """All tests of a version."""
        return self._totals.get(version, Tally())

    def collect(self) -> Iterator[Metric]:
        """The tallies as Prometheus takes them."""
        labels = ["model", "position", "surface"]
        tests = CounterMetricFamily("recsys_online_tests", "Clicks that tested the list they met.", labels=labels)
        hits = CounterMetricFamily("recsys_online_hits", f"Those found among the first {K}.", labels=labels)
        ranks = CounterMetricFamily("recsys_online_reciprocal_ranks", "Sum of 1 / rank of those.", labels=labels)
        for version, tallies in list(self._versions.items()):
            for key, tally in list(tallies.items()):
                tests.add_metric([version, *key], tally.tests)
                hits.add_metric([version, *key], tally.hits)
                ranks.add_metric([version, *key], tally.reciprocal_ranks)
        yield from (tests, hits, ranks)
        recall = GaugeMetricFamily(f"recsys_online_recall_at_{K}_ratio", "Hits of all tests so far.", labels=["model"])
        mrr = GaugeMetricFamily(f"recsys_online_mrr_at_{K}_ratio", "Mean reciprocal rank so far.", labels=["model"])
        for version, total in list(self._totals.items()):
            recall.add_metric([version], total.recall)
            mrr.add_metric([version], total.mrr)
        yield from (recall, mrr)

    def _surface(self, name: str) -> str:
        name = name[:SURFACE_CHARACTERS]
        if name not in self._surfaces and len(self._surfaces) >= KEPT_SURFACES:
            return "other"
        self._surfaces.add(name)
        return name


def _position(before: int) -> str:
    return next((label for most, label in _POSITIONS if before <= most), "8th or later")
