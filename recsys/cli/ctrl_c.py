"""Ctrl-C where the exception that Python makes of it gets lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPPED = 130  # the exit code of a command that Ctrl-C ended


@contextmanager
def ends_at_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once, while modules load and there is nothing yet to tidy up.

    Libraries print an exception that comes amid their loading, or lose it, and the command goes on.
    """

    def end(*_: object) -> None:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, b"stopped\n")
        os._exit(STOPPED)

    with _at_ctrl_c(end):
        yield


@contextmanager
def fails_at_ctrl_c() -> Iterator[Callable[[], None]]:
    """Let any error that follows Ctrl-C be a ``KeyboardInterrupt``; what is given, called now and then, raises one too.

    TensorFlow loses the exception where its C++ calls our Python, and goes on, or fails of what is missing then.
    """
    came = False

    def interrupt(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    def heed() -> None:
        if came:
            raise KeyboardInterrupt

    try:
        with _at_ctrl_c(interrupt):
            yield heed
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _at_ctrl_c(handler: Callable[..., None]) -> Iterator[None]:
    """Who has chosen what Ctrl-C does (or not to hear it, as ``nohup`` and ``&`` do) is left alone."""
    main = threading.current_thread() is threading.main_thread()  # no other may choose
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
