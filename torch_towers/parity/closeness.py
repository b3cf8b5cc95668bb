"""Measures and tolerances of float differences, shared by the port's report and `torch-towers verify`."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDING = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-2, "bfloat16": 0.15}
"""Distance from TensorFlow, relative to the RMS of an output, that rounding never reaches, by the coarsest float inside
a tower.

Correct float32 towers measure 1e-8 to 5e-6, a wrong epsilon 1e-3; float64 towers 1e-16, and 1e-8 with a constant
rounded to float32; Keras's mixed policies up to 2e-3 and 8e-2, the latter for a softmax of large logits."""

FLOOR_ULP = 4.0
"""Units in the last place that are always allowed: both sides are practically exact."""

OTHER_PLACES = "NaN or infinities stand in other places than in "
"""The message if `same_specials` is false, followed by what was compared with."""


def rms(values: Array) -> float:
    """The root mean square; 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def same_specials(ours: Array, theirs: Array) -> bool:
    """Whether NaN and infinities are in the same positions: `[...], [...]`."""
    special = ~np.isfinite(theirs)
    same = np.array_equal(ours[special], theirs[special].astype(ours.dtype), equal_nan=True)
    return same and bool(np.isfinite(ours[~special]).all())
