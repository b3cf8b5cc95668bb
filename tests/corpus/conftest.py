"""The producers' SavedModels, each written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.afresh import start_afresh


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], Path]:
    """`saved(write)`: the folder of the SavedModel that `write(folder)` writes on first use."""
    made: dict[Callable[[Path], None], Path] = {}

    def get(write: Callable[[Path], None]) -> Path:
        if write not in made:
            made[write] = tmp_path_factory.mktemp(write.__name__) / "model"
            start_afresh()
            write(made[write])
        return made[write]

    return get
