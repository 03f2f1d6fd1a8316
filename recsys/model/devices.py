"""The devices that share the lanes of a step."""

from __future__ import annotations

import tensorflow as tf

from recsys.errors import SettingsError


def strategy(devices: int) -> tf.distribute.Strategy:
    """How a step is spread: over the first GPUs, or over CPU devices where there is no GPU; one device needs nothing.

    Raises:
        SettingsError: there are not so many devices.
    """
    if devices == 1:
        return tf.distribute.get_strategy()
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise SettingsError(f"training.devices is {devices}, but there are {len(found)} ({found[0].device_type})")
    return tf.distribute.MirroredStrategy([device.name for device in found[:devices]])
