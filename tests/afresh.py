"""Keras as a new process has it: automatic names count from the first, and weights are drawn from one seed.

Which files one process tests, and in which order, depends on how fast others were: nothing that a test sees may.
"""

from __future__ import annotations

import random
import sys

import numpy as np


def start_afresh() -> None:
    """Sets the counters and seeds of what this process has imported already."""
    random.seed(0)
    np.random.seed(0)
    if tf := sys.modules.get("tensorflow"):
        tf.random.set_seed(0)
    if "keras" in sys.modules:
        import keras
        from keras.src.utils.naming import reset_uids  # `clear_session`, which is public, drops kernels and graphs too

        keras.utils.set_random_seed(0)
        reset_uids()
    if "tf_keras" in sys.modules:
        import tf_keras

        tf_keras.utils.set_random_seed(0)
        tf_keras.backend.reset_uids()
