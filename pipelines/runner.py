"""Which of Beam's runners does the work."""

from __future__ import annotations

import os
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from recsys.errors import SettingsError

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
