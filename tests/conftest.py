"""Servers and models that several test modules use."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import signal
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from recsys.bundle import Description, Model, save_model
from recsys.published import Bundles
from recsys.scoring.scorer import Scorer
from recsys.settings import ModelSettings, SessionSettings
from recsys.vocabulary import Vocabulary
from stream.embedded import embedded_broker, embedded_store
from tests.servers.presence import where_present
from tests.servers.redis_cluster import RedisCluster

hypothesis.settings.register_profile("untimed", deadline=None)  # a machine may be busy with other tests
hypothesis.settings.load_profile("untimed")

STORES = "store_url", "cluster_url"  # fixtures, for tests that are the same on either

DATA = Path(__file__).parents[1] / "../shared/data"


def pytest_configure(config: pytest.Config) -> None:
    """What XLA has compiled is kept for all processes of the tests: many train networks of the same shapes.

    Where tests run in the background of a shell, they are deaf to Ctrl-C, and so would be what they start and stop.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    compiled = config.cache.mkdir(f"xla-{version('tensorflow')}-{_processor()}")  # type: ignore[union-attr]
    flags = f"--tf_xla_persistent_cache_directory={compiled} --tf_xla_persistent_cache_device_types=CPU"
    os.environ.setdefault("TF_XLA_FLAGS", flags)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it calls it an error when it finds there what it has kept


def _processor() -> str:
    """A name for all processors that can do what this one can: machine code of one is not for others."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    can = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256("\n".join([platform.machine(), *can]).encode()).hexdigest()[:12]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one at the end."""
    files = "test_training", "test_demo", "test_tune", "test_parity", "test_resume", "test_demo_stops", "test_memory"
    folders = "model", "stream", "tuning", "pipelines"
    place = {name: place for place, name in enumerate((*files, *folders))}
    last = len(place)
    items.sort(key=lambda item: min(place.get(item.path.stem, last), place.get(item.path.parent.name, last)))


@pytest.fixture(autouse=True)
def usual_log_levels() -> None:
    """Commands that run in the tests' own process may have silenced all loggers."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("recsys").setLevel(logging.INFO)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real click logs."""
    if not DATA.is_dir():
        pytest.skip("the real click logs are not here")
    return DATA


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """A real store, shared by a test process: use a prefix of your own."""
    with embedded_store() as url:
        yield url


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """The same on three nodes."""
    with where_present():
        cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster_url(redis_cluster: RedisCluster) -> str:
    """Where that is."""
    return redis_cluster.url


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """A real broker, shared by a test process: use topics of your own."""
    with embedded_broker() as address:
        yield address


MEMORY, FOLLOWERS = 3, 3  # of random models


def random_states(scorer: Scorer, count: int, seed: int = 1) -> np.ndarray:
    """States after four clicks each, and then moved about."""
    random = np.random.default_rng(seed)
    hidden = scorer.advance(scorer.start(count), random.integers(0, scorer.items, (count, 4)).tolist())
    hidden[:, : -1 - MEMORY] = random.normal(size=hidden[:, : -1 - MEMORY].shape)
    return hidden


def with_added(scores: np.ndarray, weights: Mapping[str, np.ndarray], trail: np.ndarray) -> np.ndarray:
    """Scores of the network ``[items]``, and what is added for the items of a trail and the followers of its last."""
    added = np.zeros_like(scores)
    for place, item in enumerate(trail.astype(int)):
        if item:
            added[item - 1] += weights["revisit"][place]
    if "followers" in weights and trail[0]:
        last = int(trail[0]) - 1
        for follower, surplus in zip(weights["followers"][last].astype(int), weights["surplus"][last], strict=True):
            if follower:
                added[follower - 1] += weights["following"][0] * surplus
    return scores + added


def random_model(
    items: int = 50, units: int = 8, layers: int = 1, seed: int = 0, followers: int = FOLLOWERS, **sessions: object
) -> Model:
    """A model with random weights; items are ``item-000``, ``item-001``, … and the first are the most popular."""
    rng = np.random.default_rng(seed)
    digits = max(3, len(str(items - 1)))

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.7, shape).astype(np.float32)

    weights = {"embedding": normal(items, units), "bias": normal(items)}
    for layer in range(layers):
        weights[f"gru.{layer}.kernel"] = normal(units, 3 * units)
        weights[f"gru.{layer}.recurrent"] = normal(units, 3 * units)
        weights[f"gru.{layer}.bias"] = normal(3 * units)
    weights |= {"revisit": normal(1 + MEMORY), "rise": normal(items), "trend": normal(1)}
    rows = (rng.integers(items, size=(items, 1)) + np.arange(followers) * max(1, items // max(1, followers))) % items
    weights["followers"] = np.where(rng.random(rows.shape) < 0.7, 1 + rows, 0).astype(np.float32)
    weights |= {"surplus": normal(items, followers), "following": normal(1)}
    return Model(
        weights,
        Vocabulary([f"item-{row:0{digits}d}" for row in range(items)], np.arange(items, 0, -1, dtype=np.int64)),
        Description(
            model=ModelSettings(units=units, layers=layers, memory=MEMORY, followers=followers),
            sessions=SessionSettings.model_validate(sessions),
            event_types=("view", "cart", "purchase"),
            dataset="none",
            learnt="development",
        ),
    )


def publish(directory: Path, model: Model) -> str:
    """Publish a model into a directory of bundles; gives the version."""
    source = directory.parent / f"{directory.name}-model"
    source.mkdir(parents=True, exist_ok=True)
    save_model(source, model)
    return Bundles(directory).publish(source)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A directory of bundles with one random model published."""
    publish(tmp_path / "bundles", random_model())
    return tmp_path / "bundles"
