"""Every error a user of recsys can meet, and the exit code each one ends a command with.

::

    RecsysError                 1   anything the program refuses to do
    ├── InputError             65   the data is unusable
    │   ├── EventError              one click: names the field and the reason
    │   ├── DatasetError            a session dataset: incomplete or altered
    │   └── BundleError             a model bundle: incomplete or altered
    ├── MissingInputError      66   a file or directory that is not there, or has nothing in it
    ├── UnavailableError       69   the broker, the store or a cluster cannot be reached, or fails
    └── SettingsError          78   a setting has a value that cannot work
    OSError                    74   the system cannot read or write a file

The codes are those of BSD's ``sysexits.h``; 2 is a wrong command line and 130 is Ctrl-C.
"""

from __future__ import annotations

IO_ERROR = 74


class RecsysError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(RecsysError):
    """Input data that cannot be used."""

    exit_code = 65


class EventError(InputError):
    """A click event that breaks the contract.

    ``field`` names the offending field (empty when the event as a whole is unreadable), ``reason`` is a short
    stable word for counting (``missing``, ``type``, ``empty``, ``too_long``, …), ``detail`` is for people.
    """

    def __init__(self, field: str, reason: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field = field
        self.reason = reason
        self.detail = detail

    @property
    def code(self) -> str:
        """``field.reason``, the label that counters and dead letters carry."""
        return f"{self.field}.{self.reason}" if self.field else self.reason


class DatasetError(InputError):
    """A session dataset that is incomplete or altered."""


class BundleError(InputError):
    """A model bundle that is incomplete or altered."""


class MissingInputError(RecsysError):
    """A file or directory that does not exist or holds nothing."""

    exit_code = 66


class UnavailableError(RecsysError):
    """The broker, the store or a cluster cannot be reached, or does not do its work."""

    exit_code = 69


class SettingsError(RecsysError):
    """A setting whose value cannot work."""

    exit_code = 78
