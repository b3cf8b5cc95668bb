"""Ids that cannot leave their range are not checked again."""

from __future__ import annotations

import numpy as np
import pytest

from tests.porting.rewrites.test_layers import Get, texts
from tests.witness import run


def test_ids_that_cannot_leave_their_range_are_not_checked(exported: Get) -> None:
    """Keras 3 wraps negative ids and TensorFlow checks all: neither is left where a lookup gives them."""
    graph = exported("keras towers").lifted.graph
    ops = [node.op for node in graph.nodes]
    assert ops.count("in_range") == ops.count("wrap_negative") == 1, "only the ids that come from outside"
    names = {name: spec.type for name, spec in graph.modules.items()}
    assert names["words"] == "TextVectorization" and list(names.values()).count("TextVectorization") == 1
    model = exported("keras towers")
    ids = np.array([[-1], [9], [0], [-10], [3]], np.int32)
    model.check({**texts(5), "t2": texts(5, seed=1)["t"], "ids": ids})
    with pytest.raises(ValueError, match="is not in"):
        run(model.program, {**texts(1), "t2": texts(1)["t"], "ids": np.array([[-11]], np.int32)})
