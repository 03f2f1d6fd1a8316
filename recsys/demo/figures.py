"""What the worker's metrics say of a stretch of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

APPLIED, SKIPPED, DEAD = "clicks_applied", "clicks_skipped", "clicks_dead_lettered"
FRESHNESS = "freshness_seconds"


@dataclass(frozen=True)
class Reading:
    """One reading of the worker's counters; subtract an earlier one for what came in between.

    ``freshness`` has the number of clicks whose list was visible within so many seconds.
    """

    clicks: Mapping[str, float]
    freshness: Mapping[float, float]

    @classmethod
    def of(cls, text: str) -> Reading:
        """Read the text that ``/metrics`` answers."""
        clicks = dict.fromkeys((APPLIED, SKIPPED, DEAD), 0.0)
        freshness: dict[float, float] = {}
        for family in text_string_to_metric_families(text):
            name = family.name.removeprefix("recsys_")
            for sample in family.samples:
                if name in clicks and sample.name.endswith("_total"):
                    clicks[name] += sample.value
                elif name == FRESHNESS and sample.name.endswith("_bucket"):
                    freshness[float(sample.labels["le"])] = sample.value
        return cls(clicks, freshness)

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(
            {name: value - earlier.clicks[name] for name, value in self.clicks.items()},
            {bound: count - earlier.freshness.get(bound, 0.0) for bound, count in self.freshness.items()},
        )

    @property
    def dealt_with(self) -> int:
        """Clicks applied, skipped or dead-lettered."""
        return round(sum(self.clicks.values()))

    def quantile(self, share: float) -> float | None:
        """Seconds within which this share of the lists was visible (linear inside a bucket); None without clicks."""
        bounds = sorted(self.freshness)
        total = self.freshness[bounds[-1]] if bounds else 0.0
        if not total:
            return None
        below, before = 0.0, 0.0
        for bound in bounds:
            count = self.freshness[bound]
            if count >= share * total:
                if bound == float("inf"):
                    return below
                return below + (bound - below) * (share * total - before) / (count - before)
            below, before = bound, count
        return below
