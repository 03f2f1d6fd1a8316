"""The search space: what a file may say, and what it means for the settings of a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recsys.errors import SettingsError
from recsys.settings import Settings
from recsys.tuning.space import DEFAULT_SPACE, configure, describe, read_space, values_in_force


def test_ranges_and_choices_are_read(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(
        """
        [model]
        units = { low = 10, high = 100, log = true }
        layers = [1, 2]
        [training]
        alpha = { low = 0, high = 1, step = 0.25 }
        loss = ["cross-entropy", "bpr-max"]
        """
    )
    assert read_space(path) == {
        "model.units": IntDistribution(10, 100, log=True),
        "model.layers": CategoricalDistribution([1, 2]),
        "training.alpha": FloatDistribution(0.0, 1.0, step=0.25),
        "training.loss": CategoricalDistribution(["cross-entropy", "bpr-max"]),
    }


def test_the_space_that_comes_with_the_product_holds_the_defaults() -> None:
    space = read_space(DEFAULT_SPACE)
    values = values_in_force(Settings(), space)
    assert values["training.learning_rate"] == Settings().training.learning_rate
    assert values.keys() == space.keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\nlearning_rat = [1]", r"training\.learning_rat: there is no such setting"),
        ("[kafka]\ntopic = ['x']", r"kafka: what can be searched is in the tables \[model\] and \[training\]"),
        ("model = 3", "model: what can be searched"),
        ("[training]\nseed = [1, 2]", r"training\.seed: this is no setting to search"),
        ("[training]\nrefit = [true, false]", r"training\.refit: this is no setting to search"),
        ("[training]\nalpha = 0.5", r"training\.alpha: give a range"),
        ("[training]\nalpha = { low = 0.5 }", r"training\.alpha: give a range"),
        ("[training]\nalpha = { low = 0, high = 1, lag = true }", r"training\.alpha: give a range"),
        ("[training]\nalpha = { low = 0, high = 1, log = 1 }", "'log' is true or false"),
        ("[training]\nalpha = { low = 0, high = 2 }", r"training\.alpha: Input should be less than or equal to 1"),
        ("[training]\nalpha = { low = 0.5, high = 0.1 }", r"training\.alpha: .*low.* high"),
        ("[training]\nalpha = { low = 0, high = 1, log = true }", r"training\.alpha: .*log"),
        ("[training]\nalpha = { low = 0, high = 1, step = 0.3 }", r"training\.alpha: .*not divisible"),
        ("[training]\nalpha = { low = 0, high = 1, step = '1' }", r"training\.alpha: Input should be a valid number"),
        ("[model]\nunits = { low = 1.5, high = 3 }", r"model\.units: Input should be a valid integer"),
        ("[training]\nloss = { low = 0, high = 1 }", r"training\.loss: only a number has a range"),
        ("[training]\nloss = ['hinge']", r"training\.loss: Input should be 'cross-entropy'"),
        ("[training]\nloss = []", r"training\.loss: an empty list leaves no choice"),
        ("", "nothing to search"),
        ("[model", "not a TOML file"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=f"space.toml: .*{words}"):
        read_space(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        read_space(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (IntDistribution(10, 100, step=10), 105),
        (IntDistribution(10, 100, step=10), 15),
        (IntDistribution(10, 100), 101),
        (CategoricalDistribution([10, 20]), 30),
    ],
)
def test_a_value_in_force_outside_of_the_space_is_refused(
    values: IntDistribution | CategoricalDistribution, value: int
) -> None:
    settings = Settings.model_validate({"model": {"units": value}})
    with pytest.raises(SettingsError, match=rf"model\.units: the value in force, {value}, .*--units"):
        values_in_force(settings, {"model.units": values})


def test_a_trial_changes_what_it_tries_and_nothing_else() -> None:
    settings = Settings.model_validate({"model": {"layers": 2}, "training": {"alpha": 0.75}})
    model, training = configure(settings, {"model.units": 7, "training.momentum": 0.5})
    assert (model.units, model.layers) == (7, 2)
    assert (training.momentum, training.alpha, training.refit) == (0.5, 0.75, False)
    with pytest.raises(SettingsError, match="units: Input should be greater"):
        configure(settings, {"model.units": 0})


def test_a_space_is_said_in_words() -> None:
    assert describe(FloatDistribution(0.01, 0.5, log=True)) == "0.01 to 0.5, by orders of magnitude"
    assert describe(IntDistribution(40, 260, step=20)) == "40 to 260 by 20"
    assert describe(CategoricalDistribution(["a", "b"])) == "a, b"
