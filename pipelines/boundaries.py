"""Where the time split falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recsys.errors import SettingsError
from recsys.manifest import Split

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
THIN_TAIL = 0.005  # of all clicks


@dataclass(frozen=True)
class Boundaries:
    """How the user wants time split: by date (epoch milliseconds) or by the last days; 0 days means no such part.

    A log ends with its last click, or before a thin tail (see :func:`end_of_log`). Left open, test is the last day of a
    log that spans more than two, and the last tenth of a shorter one; validation is as long as test, before it.
    """

    test_from: int | None = None
    test_days: float | None = None
    validation_from: int | None = None
    validation_days: float | None = None

    def resolve(self, first_ms: int, last_ms: int, hours: Mapping[int, int]) -> Split:
        """The split of a log with these first and last clicks, and so many clicks in each hour since 1970.

        Raises:
            SettingsError: a boundary leaves no time for the part before it.
        """
        log_end = end_of_log(last_ms, hours)
        span = log_end - first_ms
        usual = DAY_MS if span > 2 * DAY_MS else max(span // 10, 1)
        test = self.test_from
        if test is None and self.test_days != 0:
            test = log_end - (usual if self.test_days is None else round(self.test_days * DAY_MS))
        end = log_end if test is None else test
        validation = self.validation_from
        if validation is None and self.validation_days != 0:
            length = max(log_end - end, 1) if test is not None else usual
            validation = end - (length if self.validation_days is None else round(self.validation_days * DAY_MS))
        for name, boundary, before in (("test", test, last_ms + 1), ("validation", validation, end)):
            if boundary is not None and not first_ms < boundary < before:
                raise SettingsError(
                    f"{name} would begin at {_date(boundary)}, but must begin after the first click "
                    f"({_date(first_ms)}) and before {_date(before)}"
                )
        return Split(validation_from=validation, test_from=test)


def _date(ms: int) -> str:
    """RFC 3339, or the number where it is beyond any date."""
    try:
        return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return f"{ms} ms"


def end_of_log(last_ms: int, hours: Mapping[int, int]) -> int:
    """Where "the last days" count from: the last click, or the full hour before a tail of stray clicks.

    A tail is the last :data:`THIN_TAIL` of all clicks where these are spread over more than a day: logs often end with
    a few clicks of wrong clocks, and a test split made of them would test nothing.
    """
    allowed = THIN_TAIL * sum(hours.values())
    for hour in sorted(hours, reverse=True):
        allowed -= hours[hour]
        if allowed < 0:
            dense_end = (hour + 1) * HOUR_MS
            return dense_end if last_ms - dense_end > DAY_MS else last_ms
    return last_ms
