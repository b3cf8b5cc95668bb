"""The Unicode stress corpus: thousands of texts in every larger script, as the array that a tower takes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tests.witness import as_array
from torch_towers.source import texts
from torch_towers.source.texts import SPECIAL, scripts

__all__ = ["SPECIAL", "corpus", "scripts"]


@lru_cache(maxsize=1)
def corpus() -> np.ndarray:
    """At least 10,000 texts: the special ones, and for each script words, mixtures, and bytes that are damaged."""
    return as_array(texts.corpus())
