"""Small towers made by hand, for tests that need no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.tower import Tower, TowerSpec
from torch_towers.two_tower import TwoTower

WORDS = [b"red", b"green", b"blue", b"", b"new\nline", b"\xff\xfe", b"back\\slash", "naïve".encode()]
DIM = 4


def strings(values: list[bytes], shape: tuple[int, ...] | None = None) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array if shape is None else array.reshape(shape)


def word_spec() -> TowerSpec:
    """word [batch] string, size [batch] float -> embedding [batch, 4], by a table, an embedding and a dense layer."""
    preprocess = Graph(
        inputs=(TensorSpec("word", "string", ("batch",)), TensorSpec("size", "float32", ("batch",))),
        nodes=(
            Node("default", "constant", (), {"tensor": "default"}),
            Node("lookup", "module", ("word", "default"), {"module": "table"}),
            Node("column", "unsqueeze", ("size",), {"axis": 1}),
        ),
        outputs={"ids": "lookup", "column": "column"},
        modules={"table": ModuleSpec("LookupTable", {"keys": "table.keys", "values": "table.values"})},
    )
    encoder = Graph(
        inputs=(TensorSpec("ids", "int64", ("batch",)), TensorSpec("column", "float32", ("batch", 1))),
        nodes=(
            Node("vectors", "module", ("ids",), {"module": "embedding"}),
            Node("joined", "concat", ("vectors", "column"), {"axis": 1}),
            Node("dense_out", "module", ("joined",), {"module": "dense"}),
            Node("scale", "parameter", (), {"tensor": "scale"}),
            Node("scaled", "mul", ("dense_out", "scale")),
            Node("out", "add", ("scaled", 0.25)),
        ),
        outputs={"embedding": "out"},
        modules={
            "embedding": ModuleSpec("Embedding", {"num_embeddings": len(WORDS) + 1, "embedding_dim": 3}),
            "dense": ModuleSpec("Linear", {"in_features": 4, "out_features": DIM}),
        },
    )
    return TowerSpec(
        preprocess, encoder, None,
        inputs=preprocess.inputs, outputs=(TensorSpec("embedding", "float32", ("batch", DIM)),),
    )  # fmt: skip


def word_store(seed: int = 0) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    return {
        "default": torch.tensor(len(WORDS)),
        "table.keys": strings(WORDS),
        "table.values": torch.arange(len(WORDS)),
        "embedding.weight": torch.randn(len(WORDS) + 1, 3, generator=random),
        "dense.weight": torch.randn(DIM, 4, generator=random),
        "dense.bias": torch.randn(DIM, generator=random),
        "scale": torch.randn(DIM, generator=random),
    }


def word_tower(seed: int = 0, frozen: frozenset[str] = frozenset()) -> Tower:
    return Tower(word_spec(), word_store(seed), frozen=frozen)


def id_spec() -> TowerSpec:
    """id [batch] int64 -> embedding [batch, 4] and, by a table after the encoder, name [batch] string."""
    inputs = (TensorSpec("id", "int64", ("batch",)),)
    preprocess = Graph(inputs, (Node("checked", "in_range", ("id", len(WORDS))),), {"row": "checked"})
    encoder = Graph(
        (TensorSpec("row", "int64", ("batch",)),),
        (
            Node("table", "parameter", (), {"tensor": "table"}),
            Node("rows", "gather", ("table", "row"), {"axis": 0}),
            Node("shown", "identity", ("row",)),
        ),
        {"embedding": "rows", "best": "shown"},
    )
    postprocess = Graph(
        (TensorSpec("best", "int64", ("batch",)),),
        (Node("words", "constant", (), {"tensor": "words"}), Node("found", "gather", ("words", "best"), {"axis": 0})),
        {"name": "found"},
    )
    outputs = (TensorSpec("embedding", "float32", ("batch", DIM)), TensorSpec("name", "string", ("batch",)))
    return TowerSpec(preprocess, encoder, postprocess, inputs, outputs, "embedding")


def id_store() -> dict[str, Any]:
    return {"table": torch.arange(len(WORDS) * DIM, dtype=torch.float32).reshape(-1, DIM), "words": strings(WORDS)}


def id_tower() -> Tower:
    return Tower(id_spec(), id_store())


def two_towers() -> TwoTower:
    return TwoTower(word_tower(), id_tower(), "dot", {"query": "made by hand"})


ROWS = {"word": ["red", "blue", "unknown", "naïve"], "size": [1.0, 2.0, -0.5, 0.0]}
