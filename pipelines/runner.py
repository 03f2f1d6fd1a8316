"""Which of Beam's runners does the work."""

from __future__ import annotations

import os
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

# Beam's own in-memory runner by its full name: "DirectRunner" may look for another one and download it.
LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def runner_of(flags: Sequence[str]) -> tuple[PipelineOptions, int]:
    """Beam's options, and how many shards are worked on at a time on this machine."""
    if any(flag.startswith("--runner") for flag in flags):
        return PipelineOptions(list(flags)), 1
    # Workers that are threads of this process pass elements on without copying them; NumPy and Arrow use the cores.
    # (Beam warns that this mode does not spread work over cores, which holds for Python code.)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = [f"--runner={LOCAL_RUNNER}", f"--direct_num_workers={workers}"]
    return PipelineOptions([*local, *flags]), workers
