"""Published models: whole, verified, immutable, swapped in one step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.bundle import DESCRIPTION, VOCABULARY, WEIGHTS, open_bundle, save_model
from recsys.errors import BundleError, InputError, MissingInputError
from recsys.published import Bundles, load_model
from recsys.vocabulary import UNKNOWN, Vocabulary
from tests.conftest import publish, random_model


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    save_model(directory, random_model(layers=2))
    return directory


def test_a_model_survives_saving_and_publishing(model_directory: Path, tmp_path: Path) -> None:
    made = random_model(layers=2)
    Bundles(tmp_path / "bundles").publish(model_directory)
    for path in (model_directory, tmp_path / "bundles"):
        loaded = load_model(path)
        assert loaded.description == made.description
        assert loaded.vocabulary.ids == made.vocabulary.ids
        assert loaded.vocabulary.counts.tolist() == made.vocabulary.counts.tolist()
        assert loaded.weights.keys() == made.weights.keys()
        for name, value in made.weights.items():
            np.testing.assert_array_equal(loaded.weights[name], value)


def test_versions_are_named_by_time_and_content(tmp_path: Path) -> None:
    first = publish(tmp_path / "bundles", random_model())
    again = publish(tmp_path / "bundles", random_model())
    other = publish(tmp_path / "bundles", random_model(seed=1))
    assert first < again < other
    assert first.rpartition("-")[2] == again.rpartition("-")[2] != other.rpartition("-")[2]
    assert Bundles(tmp_path / "bundles").versions() == [first, again, other]


def test_what_is_no_version_is_passed_over(tmp_path: Path) -> None:
    """A publish under way or cut off, a copy by hand, a renamed bundle."""
    version = publish(tmp_path / "bundles", random_model())
    bundles = Bundles(tmp_path / "bundles")
    for name in (f".{version}-x9_k2mzq", f"{version}-copy", "backup"):
        shutil.copytree(bundles.directory / version, bundles.directory / name)
    assert bundles.versions() == [version]
    renamed = f"{version[:-1]}{'0' if version[-1] != '0' else '1'}"
    shutil.copytree(bundles.directory / version, bundles.directory / renamed)
    with pytest.raises(BundleError, match="was it renamed"):
        bundles.rollback(renamed)
    assert bundles.current() == version


def test_rollback_goes_to_the_version_before_and_to_any_named(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path / "bundles")
    versions = [publish(bundles.directory, random_model(seed=seed)) for seed in range(3)]
    assert bundles.rollback() == versions[1] == bundles.current()
    assert bundles.rollback() == versions[0]
    with pytest.raises(MissingInputError, match="nothing served before"):
        bundles.rollback()
    assert bundles.rollback(versions[2]) == versions[2]
    with pytest.raises(MissingInputError, match="no-such-version"):
        bundles.rollback("no-such-version")
    assert bundles.current() == versions[2]


def test_rollback_never_goes_to_what_was_rolled_back_or_on_trial_alone(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path / "bundles")
    good, bad = (publish(bundles.directory, random_model(seed=seed)) for seed in range(2))
    assert bundles.rollback() == good
    tried = bundles.publish(tmp_path / "bundles-model", share=0.5)
    bundles.rollback()
    third = publish(bundles.directory, random_model(seed=3))
    assert bundles.rollback() == good == bundles.current()
    with pytest.raises(MissingInputError, match="nothing served before"):
        bundles.rollback()
    assert [bundles.rollback(name) for name in (bad, third, tried)] == [bad, third, tried]
    assert bundles.rollback() == good


def test_rollback_from_what_was_taken_back_up_goes_to_what_served_until_then(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path / "bundles")
    good = publish(bundles.directory, random_model())
    bundles.publish(tmp_path / "bundles-model", share=0.5)
    bundles.rollback()
    third = publish(bundles.directory, random_model(seed=1))
    assert [bundles.rollback(), bundles.rollback(third), bundles.rollback()] == [good, third, good]


def test_rollback_passes_over_deleted_bundles_and_reads_a_pointer_of_one_line(tmp_path: Path) -> None:
    bundles = Bundles(tmp_path / "bundles")
    versions = [publish(bundles.directory, random_model(seed=seed)) for seed in range(4)]
    shutil.rmtree(bundles.directory / versions[2])
    assert bundles.rollback() == versions[1]
    (bundles.directory / "current").write_text(f"{versions[3]}\n")
    assert [bundles.rollback(), bundles.rollback()] == [versions[1], versions[0]]


def test_a_promoted_version_goes_back_to_what_served_beside_it(tmp_path: Path) -> None:
    """Though that was published later than the trial began."""
    bundles = Bundles(tmp_path / "bundles")
    publish(bundles.directory, random_model())
    tried = bundles.publish(tmp_path / "bundles-model", share=0.5)
    later = publish(bundles.directory, random_model(seed=1))
    assert bundles.promote() == tried
    assert bundles.rollback() == later


def test_evaluation_results_travel_with_the_bundle(model_directory: Path, tmp_path: Path) -> None:
    results = tmp_path / "evaluation.json"
    results.write_text(json.dumps({"recall@20": 0.5}))
    bundles = Bundles(tmp_path / "bundles")
    bundles.publish(model_directory, results)
    assert "evaluation.json" in bundles.open().manifest.files


def test_results_of_another_model_are_refused(model_directory: Path, tmp_path: Path) -> None:
    results, bundles = tmp_path / "evaluation.json", Bundles(tmp_path / "bundles")
    results.write_text(json.dumps({"fingerprint": load_model(model_directory).fingerprint}))
    bundles.publish(model_directory, results)
    save_model(model_directory, random_model(layers=2, seed=1))
    with pytest.raises(BundleError, match=r"evaluation\.json: is of another model"):
        bundles.publish(model_directory, results)
    results.write_text("<html>")
    with pytest.raises(BundleError, match=r"evaluation\.json: is no evaluation"):
        bundles.publish(model_directory, results)
    assert len(bundles.versions()) == 1


@pytest.mark.parametrize("name", [WEIGHTS, VOCABULARY, DESCRIPTION])
def test_any_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    version = publish(tmp_path / "bundles", random_model())
    path = tmp_path / "bundles" / version / name
    data = bytearray(path.read_bytes())
    for position in np.linspace(0, len(data) - 1, 20).astype(int):
        flipped = data.copy()
        flipped[position] ^= 1 << int(position) % 8
        path.write_bytes(flipped)
        with pytest.raises(BundleError, match=f"{name}: altered"):
            open_bundle(path.parent)


def test_a_manifest_that_was_changed_to_fit_is_found(tmp_path: Path) -> None:
    version = publish(tmp_path / "bundles", random_model())
    other = publish(tmp_path / "bundles", random_model(seed=1))
    manifest, stranger = (
        json.loads((tmp_path / "bundles" / name / "manifest.json").read_text()) for name in (version, other)
    )
    (tmp_path / "bundles" / version / WEIGHTS).write_bytes((tmp_path / "bundles" / other / WEIGHTS).read_bytes())
    manifest["files"][WEIGHTS] = stranger["files"][WEIGHTS]
    (tmp_path / "bundles" / version / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"version .* is not that of its files"):
        open_bundle(tmp_path / "bundles" / version)


@pytest.mark.parametrize("name", [WEIGHTS, VOCABULARY, DESCRIPTION])
def test_a_missing_file_is_named(model_directory: Path, name: str) -> None:
    (model_directory / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        load_model(model_directory)


def test_weights_of_another_shape_or_not_finite_are_refused(tmp_path: Path) -> None:
    made = random_model()
    save_model(tmp_path, replace(made, weights={**made.weights, "bias": np.zeros(3, np.float32)}))
    with pytest.raises(BundleError, match=r"bias is \(3,\), not \(50,\)"):
        load_model(tmp_path)
    save_model(tmp_path, replace(made, weights={**made.weights, "bias": np.full(50, np.nan, np.float32)}))
    with pytest.raises(BundleError, match="not finite"):
        load_model(tmp_path)


@pytest.mark.parametrize("row", [-1.0, 51.0, 1.5])
def test_followers_that_are_no_items_are_refused(tmp_path: Path, row: float) -> None:
    made = random_model()
    followers = np.array(made.weights["followers"])
    followers[7, 1] = row
    save_model(tmp_path, replace(made, weights={**made.weights, "followers": followers}))
    with pytest.raises(BundleError, match="followers holds numbers that are no row of 50 items"):
        load_model(tmp_path)


def test_a_follower_that_stands_twice_is_refused(tmp_path: Path) -> None:
    made = random_model()
    followers = np.array(made.weights["followers"])
    followers[7] = 5, 0, 5
    save_model(tmp_path, replace(made, weights={**made.weights, "followers": followers}))
    with pytest.raises(BundleError, match="followers holds an item twice in one row"):
        load_model(tmp_path)


def test_a_model_of_before_there_were_followers_is_read(tmp_path: Path) -> None:
    made = random_model()
    plain = {name: value for name, value in made.weights.items() if name not in ("followers", "surplus", "following")}
    save_model(tmp_path, replace(made, weights=plain))
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["model"]["followers"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    assert load_model(tmp_path).weights.keys() == plain.keys()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such model directory"):
        load_model(tmp_path / "nothing")
    with pytest.raises(MissingInputError, match="no bundle is published"):
        Bundles(tmp_path).open()


def test_an_interrupted_publish_leaves_no_version(model_directory: Path, tmp_path: Path) -> None:
    """Killed between any two system calls, the directory holds whole bundles only, and a valid pointer or none."""
    script = (
        "import os, sys, pathlib, recsys.files\n"
        "from recsys.published import Bundles\n"
        "calls = 0\n"
        "def count(event, args):\n"
        "    global calls\n"
        "    if event in ('open', 'os.rename', 'os.mkdir', 'shutil.copyfile'):\n"
        "        calls += str(args[0]).startswith(sys.argv[2])\n"
        "        if calls == int(sys.argv[3]): os._exit(9)\n"
        "sys.addaudithook(count)\n"
        "Bundles(pathlib.Path(sys.argv[2])).publish(pathlib.Path(sys.argv[1]))\n"
    )
    bundles = Bundles(tmp_path / "bundles")
    survived = 0
    for moment in range(1, 40, 4):
        arguments = [str(model_directory), str(bundles.directory), str(moment)]
        code = subprocess.run([sys.executable, "-c", script, *arguments], check=False).returncode
        survived += code == 0
        assert code in {0, 9}
        for version in bundles.versions():
            open_bundle(bundles.directory / version)
        if bundles.versions() and (bundles.directory / "current").exists():
            bundles.open()
    assert survived < 10


IDS = st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=8), unique=True)


@given(IDS)
def test_rows_are_in_the_byte_order_of_ids(ids: list[str]) -> None:
    vocabulary = Vocabulary(sorted(ids), np.ones(len(ids), np.int64))
    by_bytes = sorted(ids, key=lambda item: item.encode())
    assert vocabulary.rows(by_bytes).tolist() == list(range(len(ids)))
    assert vocabulary.row("never seen \n") == UNKNOWN


@pytest.mark.parametrize(("ids", "problem"), [(["b", "a"], "byte order"), (["a", "a"], "twice"), (["a"], "counts")])
def test_a_vocabulary_that_cannot_be_is_refused(ids: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Vocabulary(ids, np.ones(2, np.int64))
