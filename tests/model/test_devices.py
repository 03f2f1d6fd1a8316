"""Two devices learn what one does, from half of the lanes each."""

import subprocess
import sys

import pytest

from recsys.errors import SettingsError
from recsys.model.devices import strategy
from recsys.settings import TrainingSettings

TWO_DEVICES = """
import numpy as np
import recsys.model
import tensorflow as tf
[device] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
from recsys.model.batches import session_parallel
from recsys.model.learner import Learner
from recsys.model.network import FITTED, initial_weights
from recsys.settings import ModelSettings, TrainingSettings
from tests.model.logs import markov_chain, markov_log

batches = session_parallel(markov_log(markov_chain(60, 10, 1), 60, 6, 1), 8, 4)
start = initial_weights(60, ModelSettings(units=16, layers=2), 1)
losses, weights = [], []
for devices in (1, 2):
    settings = TrainingSettings(devices=devices, batch_size=8, samples=32, clip_norm=0.5, precision="float32")
    learner = Learner(start, batches, settings)
    so_far = [0.0]
    for _ in learner.learn(range(len(batches)), 0):
        so_far.append(learner.loss_sum)
    losses.append(np.diff(so_far))
    weights.append(learner.weights)
for name, variable in learner.state.items():
    one, other = variable.values
    np.testing.assert_array_equal(one, other, err_msg=name)
np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
for name, weight in weights[0].items():
    assert name in FITTED or np.abs(weight - start[name]).max() > 0.05, name
    np.testing.assert_allclose(weights[1][name], weight, atol=1e-3, err_msg=name)
"""


def test_two_devices_learn_what_one_does() -> None:
    """The same losses step by step, and the same weights, within what the order of float32 sums makes."""
    result = subprocess.run([sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"devices is 99"):
        strategy(99)


def test_lanes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 32 is no multiple of devices 3"):
        TrainingSettings(devices=3)
