"""The profile as a page: one HTML file that stands by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.dataset import Dataset
from recsys.page.template import template
from recsys.profile import plots
from recsys.profile.measures import Profile

LISTED = 10  # most popular items


def render(data: Dataset, profile: Profile) -> str:
    """The profile of a dataset as HTML."""
    manifest, counts = data.manifest, data.vocabulary.counts
    own_sessions = "session_id" in _columns(manifest.parameters)
    gap = None if own_sessions else data.session_settings.gap_minutes
    top = np.argsort(-counts, kind="stable")[:LISTED]
    begin, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (profile.first_ms, profile.last_ms))
    return template("recsys.profile", "profile.html").render(
        profile=profile,
        counts=manifest.counts,
        sizes=manifest.sizes,
        settings=data.session_settings,
        gap=gap,
        period=f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
        items=len(counts),
        top=[(data.vocabulary.ids[row], int(counts[row])) for row in top],
        learnt=int(counts.sum()),
        hundredth=_share(counts, 100),
        tenth=_share(counts, 10),
        plots={
            "time": [plots.over_time(profile, manifest.split), plots.by_hour_of_day(profile)],
            "grouping": [plots.lengths(profile), plots.gaps(profile, gap)],
            "popularity": plots.popularity(counts),
            "rejected": plots.reasons(manifest.counts.rejected) if manifest.counts.rejected else "",
        },
    )


def _columns(parameters: dict[str, Any]) -> dict[str, str]:
    """The log's column of each field, as far as the dataset says it."""
    logs: list[dict[str, Any]] = parameters.get("logs", [])
    columns: dict[str, str] = logs[0]["columns"] if logs else {}
    return columns


def _share(counts: NDArray[np.int64], part: int) -> float:
    """Which share of the clicks the most popular items got, one of ``part``."""
    most = np.sort(counts)[::-1][: max(1, len(counts) // part)]
    return float(most.sum() / counts.sum())
