"""What tests do where a real server cannot run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.servers.process import AbsentError


@contextmanager
def where_present() -> Iterator[None]:
    """Skip the test where a program is absent; with ``TEST_REAL=require`` in the environment it fails instead.

    (Not ``RECSYS_…``: those are settings, and recsys refuses ones that it does not know.)
    """
    try:
        yield
    except AbsentError as error:
        if os.environ.get("TEST_REAL") == "require":
            pytest.fail(f"TEST_REAL=require: {error}")
        pytest.skip(str(error))
