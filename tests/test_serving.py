"""What a process serves: versions on trial, and bundles that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import save_model
from recsys.errors import BundleError, MissingInputError
from recsys.published import CANARY, Bundles, Canary
from recsys.serving import LEAST_KNOWN, CurrentModel
from tests.conftest import publish, random_model

USERS = [f"user-{number}" for number in range(4000)]


def put_on_trial(bundles: Bundles, share: float, seed: int = 1) -> str:
    """Another model, published as a canary."""
    directory = bundles.directory.parent / f"model-{seed}"
    directory.mkdir()
    save_model(directory, random_model(seed=seed))
    return bundles.publish(directory, share=share)


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    """One published version."""
    publish(tmp_path / "bundles", random_model())
    return Bundles(tmp_path / "bundles")


def test_a_share_of_users_stays_with_the_version_on_trial(bundles: Bundles) -> None:
    model = CurrentModel(bundles)
    current, trial = model.served.version, put_on_trial(bundles, 0.1)
    assert bundles.current() == current
    assert {model.served_to(user).version for user in USERS} == {current}, "before it is looked for"
    assert model.refresh()
    assert model.versions == [current, trial]
    on_trial = {user for user in USERS if model.served_to(user).version == trial}
    assert len(on_trial) / len(USERS) == pytest.approx(0.1, abs=0.02)
    assert on_trial == {user for user in USERS if CurrentModel(bundles).served_to(user).version == trial}

    bundles.put_on_trial(trial, 0.3)
    model.refresh()
    wider = {user for user in USERS if model.served_to(user).version == trial}
    assert on_trial < wider
    assert len(wider) / len(USERS) == pytest.approx(0.3, abs=0.03)


def test_each_trial_has_users_of_its_own() -> None:
    first, second = (Canary(version=version, share=0.1) for version in ("20260101T000000000000Z-a", "b"))
    both = sum(first.serves(user) and second.serves(user) for user in USERS)
    assert both / len(USERS) == pytest.approx(0.01, abs=0.006)


def test_a_trial_ends_by_promotion_or_by_rollback(bundles: Bundles) -> None:
    model = CurrentModel(bundles)
    first, second = model.served.version, put_on_trial(bundles, 0.5, seed=1)
    model.refresh()
    assert bundles.rollback() == first
    assert model.refresh()
    assert model.versions == [first]

    bundles.put_on_trial(second, 0.5)
    model.refresh()
    assert bundles.promote() == second == bundles.current()
    assert model.refresh()
    assert model.versions == [second]
    assert bundles.rollback() == first, "no trial is left, so this goes back"
    with pytest.raises(MissingInputError, match="no version is on trial"):
        bundles.promote()


def test_a_trial_needs_a_current_version(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no bundle is published"):
        put_on_trial(Bundles(tmp_path / "bundles"), 0.5)


def test_lists_of_either_version_can_be_read(bundles: Bundles) -> None:
    model = CurrentModel(bundles)
    put_on_trial(bundles, 0.5)
    model.refresh()
    for served in (model.served, model.served_to(next(user for user in USERS if model.served_to(user).digest != 0))):
        assert model.vocabulary(served.digest) is served.vocabulary


def test_a_damaged_trial_leaves_the_current_version(bundles: Bundles, caplog: pytest.LogCaptureFixture) -> None:
    model = CurrentModel(bundles)
    (bundles.directory / CANARY).write_text('{"version": "x", "share": 2}')
    with pytest.raises(BundleError, match=r"canary\.json"):
        bundles.canary()
    for _ in range(2):
        assert not model.refresh()
    assert len(caplog.records) == 1, "said once"
    put_on_trial(bundles, 0.5)
    assert model.refresh()


def test_a_bundle_that_cuts_sessions_otherwise_is_refused(bundles: Bundles, caplog: pytest.LogCaptureFixture) -> None:
    model = CurrentModel(bundles)
    before = model.served
    publish(bundles.directory, random_model(seed=2, gap_minutes=45))
    assert not model.refresh()
    assert model.served is before
    assert "cuts sessions by" in caplog.text


def test_a_bundle_that_has_forgotten_what_is_clicked_is_refused(
    bundles: Bundles, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 50 items the first are the most popular: 50 clicks, 49, …; the first 15 have half of them, 14 have not."""
    model = CurrentModel(bundles)
    counts = np.arange(50, 0, -1)
    assert counts[:14].sum() < counts.sum() / 2 < counts[:15].sum()
    publish(bundles.directory, random_model(items=14, seed=2))
    assert not model.refresh()
    assert "its vocabulary has shrunk: it knows the items of 48% of the clicks" in caplog.text
    version = publish(bundles.directory, random_model(items=15, seed=2))
    assert model.refresh()
    assert model.served.version == version


def test_a_refused_bundle_is_taken_when_it_is_whole_again(bundles: Bundles) -> None:
    model = CurrentModel(bundles)
    version = publish(bundles.directory, random_model(seed=2))
    path = bundles.directory / version / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not model.refresh()
    newer = publish(bundles.directory, replace(random_model(seed=3)))
    assert model.refresh()
    assert model.served.version == newer
    path.write_bytes(whole)
    bundles.rollback()
    assert model.refresh()
    assert model.served.version == version


def test_a_rollback_is_not_refused_for_what_the_newer_version_knows(bundles: Bundles) -> None:
    """50 items of 400 have a small part of the clicks; published after the 400 they would be refused."""
    publish(bundles.directory, random_model(items=400, seed=2))
    model = CurrentModel(bundles)
    older = bundles.rollback()
    assert model.refresh()
    assert model.served.version == older
    counts = np.arange(400, 0, -1)
    assert counts[:50].sum() / counts.sum() < LEAST_KNOWN
