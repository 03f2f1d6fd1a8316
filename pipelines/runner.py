"""Which of Beam's runners does the work, and what it says when it does not."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from recsys.errors import RecsysError, SettingsError, UnavailableError

# Beam's own in-memory runner by its full name: "DirectRunner" may look for another one and download it.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def runner_of(flags: Sequence[str]) -> tuple[PipelineOptions, int]:
    """Beam's options, and how many shards are worked on at a time on this machine.

    Raises:
        SettingsError: Beam has no such runner, or no such flag.
    """
    if names_a_runner(flags):
        return options_of(flags), 1
    # Workers that are threads of this process pass elements on without copying them; NumPy and Arrow use the cores.
    # (Beam warns that this mode does not spread work over cores, which holds for Python code.)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = [f"--runner={LOCAL_RUNNER}", f"--direct_num_workers={workers}"]
    return options_of([*local, *flags]), workers


def names_a_runner(flags: Sequence[str]) -> bool:
    """Whether the flags say who does the work."""
    return any(flag.partition("=")[0] == "--runner" for flag in flags)


def options_of(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options. On this machine all flags must be known; other runners have some that Beam does not list.

    Raises:
        SettingsError: Beam has no such runner, or no such flag.
    """
    options = PipelineOptions(list(flags))
    runner = options.view_as(StandardOptions).runner
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise SettingsError(f"--runner={runner}: {error}") from None
    if runner == LOCAL_RUNNER:
        known = options.get_all_options()
        for name in sorted(options.get_all_options(retain_unknown_options=True).keys() - known.keys()):
            raise SettingsError(f"--{name}: Beam has no such flag on this machine; another --runner may have")
    return options


def run_pipeline(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Build a pipeline and run it to its end.

    Raises:
        UnavailableError: the runner that the options name cannot be had, or its workers failed.
        OSError: a step on this machine cannot read or write.
        RecsysError: it refuses, or fails otherwise.
    """
    runner = options.view_as(StandardOptions).runner
    try:
        with beam.Pipeline(options=options) as pipeline:
            build(pipeline)
    except RecsysError:
        raise
    except Exception as error:
        words = f"the work was not done: {_cause(error)}"
        if runner == LOCAL_RUNNER:
            if isinstance(error, OSError):
                raise
            raise RecsysError(words) from error
        raise UnavailableError(f"--runner={runner}: {words}") from error


def _cause(error: Exception) -> str:
    """What went wrong, in a line: of a stack trace, which has lines that are indented, the last one that is not."""
    if isinstance(error, grpc.FutureTimeoutError):
        return "its job server does not answer"
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    lines = [line for line in (text or type(error).__name__).splitlines() if line.strip()]
    plain = [line for line in lines if not line[0].isspace()]
    return "; ".join(lines) if len(plain) == len(lines) else (plain or lines)[-1].strip()
