"""Where the time split falls."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.dataset import Split
from recsys.errors import SettingsError

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Boundaries:
    """How the user wants time split: by date (epoch milliseconds) or by the last days; 0 days means no such part.

    Left open, test is the last day of a log that spans more than two, and the last tenth of a shorter one; validation
    is as long as test and stands before it.
    """

    test_from: int | None = None
    test_days: float | None = None
    validation_from: int | None = None
    validation_days: float | None = None

    def resolve(self, first_ms: int, last_ms: int) -> Split:
        """The split of a log with these first and last clicks.

        Raises:
            SettingsError: a boundary leaves no time for the part before it.
        """
        span = last_ms - first_ms
        usual = DAY_MS if span > 2 * DAY_MS else max(span // 10, 1)
        test = self.test_from
        if test is None and self.test_days != 0:
            test = last_ms - (usual if self.test_days is None else round(self.test_days * DAY_MS))
        end = last_ms if test is None else test
        validation = self.validation_from
        if validation is None and self.validation_days != 0:
            length = max(last_ms - end, 1) if test is not None else usual
            validation = end - (length if self.validation_days is None else round(self.validation_days * DAY_MS))
        for name, boundary, before in (("test", test, last_ms + 1), ("validation", validation, end)):
            if boundary is not None and not first_ms < boundary < before:
                raise SettingsError(
                    f"{name} would begin at {boundary} ms, but must begin after the first click ({first_ms} ms) and "
                    f"before {before} ms"
                )
        return Split(validation_from=validation, test_from=test)
