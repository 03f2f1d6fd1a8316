"""The network and its training, in TensorFlow.

TensorFlow is imported here first, and quietly: what it says about missing GPU libraries while it loads comes before its
own logging settings take effect.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _load_quietly() -> None:
    stderr = os.dup(2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(silence)


_load_quietly()
