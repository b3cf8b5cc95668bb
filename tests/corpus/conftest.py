"""The SavedModels that the producers write, each once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Path]:
    """`saved(write)`: the folder that `write(folder)` wrote a SavedModel into, at its first use."""
    made: dict[Callable[[Path], None], Path] = {}

    def get(write: Callable[[Path], None]) -> Path:
        if write not in made:
            made[write] = tmp_path_factory.mktemp(write.__name__) / "model"
            write(made[write])
        return made[write]

    return get
