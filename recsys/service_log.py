"""Logs of a service on stderr, a line each: as text or as JSON, and with users' ids as the settings want them.

A call names a user by ``extra={"user_id": …}`` and never in its words, so one place decides what becomes of ids. Other
extras are fields of the line too.
"""

from __future__ import annotations

import logging
import secrets
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from recsys.pseudonyms import Pseudonyms
from recsys.settings import LogSettings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "announcement"}
_OURS = ("recsys", "stream")
_DIGITS = 16  # of a pseudonym that a line has: enough to tell users apart
_announcements = logging.getLogger("recsys")


def start_logging(settings: LogSettings) -> None:
    """Log our own lines from INFO on, those of libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.format == "json" else _Text())
    handler.addFilter(_UserIds(settings))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # hundreds of lines a second while the broker is away


def announce(words: str) -> None:
    """Say what the service does now to whoever started it; as text the words stand alone on their line."""
    _announcements.info(words, extra={"announcement": True})


def last_words(error: str) -> bool:
    """Log why the process ends, where lines are for machines; False where they are not."""
    as_json = any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers)
    if as_json:
        _announcements.critical(error)
    return as_json


class _UserIds(logging.Filter):
    """Writes a record's ``user_id`` in clear, as a keyed hash, or not at all."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._form = settings.user_ids
        # Any length is a key; of none, one is made that dies with the process.
        secret = settings.key.get_secret_value().encode() or secrets.token_bytes(32)
        self._pseudonyms = Pseudonyms(secret)

    def filter(self, record: logging.LogRecord) -> bool:
        user = vars(record).pop("user_id", None)
        if user is not None and self._form != "none":
            vars(record)["user_id"] = user if self._form == "clear" else self._pseudonyms.of(str(user))[:_DIGITS]
        return True


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "announcement"):
            return record.getMessage()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's name
        fields = "".join(f" {name}={value}" for name, value in _extras(record).items())
        return super().formatMessage(record) + fields


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    if record.name.partition(".")[0] not in _OURS:
        return {}
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
