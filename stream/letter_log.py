"""Log lines about clicks that could not be used, few however many there are."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from stream.dead_letter import DeadLetter

log = logging.getLogger(__name__)

QUIET_SECONDS = 60.0


class LetterLog:
    """Of each reason one line a minute at most: how many letters there were since the last, and the newest."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._quiet_seconds = quiet_seconds
        self._said: dict[str, float] = {}
        self._since: Counter[str] = Counter()

    def say(self, letters: Sequence[DeadLetter]) -> None:
        """Take note of letters that were sent."""
        newest = {letter.reason: letter for letter in letters}
        self._since.update(letter.reason for letter in letters)
        for reason, letter in newest.items():
            if reason in self._said and time.monotonic() - self._said[reason] < self._quiet_seconds:
                continue
            fields = {
                "reason": reason,
                "letters": self._since.pop(reason),
                "partition": letter.record.partition,
                "offset": letter.record.offset,
                "user_id": None if letter.key is None else letter.key.decode(errors="replace"),
            }
            log.warning("clicks cannot be used, the newest is here", extra=fields)
            self._said[reason] = time.monotonic()
