"""One API on one random model, with a real store and a real broker, for the tests that do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.bundle import Model
from tests.api.running import Api, running_api
from tests.conftest import publish, random_model

MODEL = random_model(items=150, units=8, layers=2)


@pytest.fixture(scope="session")
def model() -> Model:
    """The model behind ``api``: 150 items, the first the most popular."""
    return MODEL


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, store_url: str, broker: str) -> Iterator[Api]:
    """An API that a module's tests share."""
    directory: Path = tmp_path_factory.mktemp("api") / "bundles"
    publish(directory, MODEL)
    with running_api(directory, store_url, broker) as running:
        yield running
