"""Real SavedModels, in TORCH_TOWERS_CORPUS: all are read, and the signatures match TensorFlow's record."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from porting.errors import PortingError
from porting.saved_model import read
from tests.porting.saved_model.test_model import check_whole_model

CORPUS = Path(os.environ.get("TORCH_TOWERS_CORPUS", "nowhere"))
MODELS = sorted(path.parent.name for path in CORPUS.glob("*/saved_model.pb"))

if not MODELS:
    pytest.skip("TORCH_TOWERS_CORPUS names no folder of SavedModels", allow_module_level=True)

UNFILLED = {"est-taxi-tfx": 2}  # tables that the model makes twice under two names, and fills once


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model(name: str) -> None:
    model = read(CORPUS / name)
    check_whole_model(model)
    unfilled = 0
    for table in model.tables.values():
        try:
            assert len(table.keys) == len(table.values)
        except PortingError:
            unfilled += 1
    assert unfilled == UNFILLED.get(name, 0)
    for variable in model.variables.values():
        assert variable.numpy().shape == variable.shape
    if not (CORPUS / name / "reference.npz").exists():
        return
    with np.load(CORPUS / name / "reference.npz") as recorded:
        names = {tuple(key.split("|")) for key in recorded.files}
    for entry in {entry for entry, _, _ in names}:
        graph = model.graph(entry)
        outputs = set(graph.outputs)
        if entry.startswith("root."):  # recorded by position
            assert len(graph.inputs) == sum(key[:2] == (entry, "in") for key in names)
        else:
            assert {spec.name for spec in graph.inputs} >= {key[2] for key in names if key[:2] == (entry, "in")}
        assert outputs == {key[2] for key in names if key[:2] == (entry, "out")}
