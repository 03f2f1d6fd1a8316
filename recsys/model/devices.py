"""The devices that share the lanes of a step."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from recsys.errors import SettingsError
from recsys.settings import TrainingSettings

CPU_INFO = Path("/proc/cpuinfo")
AMPERE = (8, 0)  # the first generation of GPUs with bfloat16


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


def multiplies_bfloat16(settings: TrainingSettings) -> bool:
    """Whether states and candidates are multiplied in bfloat16; ``auto`` is settled by what the processor can."""
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    if gpus := tf.config.list_physical_devices("GPU"):
        details = (tf.config.experimental.get_device_details(gpu) for gpu in gpus)
        return all(each.get("compute_capability", (0, 0)) >= AMPERE for each in details)
    return CPU_INFO.exists() and bool({"avx512_bf16", "amx_bf16"} & set(CPU_INFO.read_text().split()))
