"""nn.Embedding: rows of a weight, taken by ids."""

from __future__ import annotations

import torch

from tests.porting.rewrites.by_hand import layer, lifted, ops

IDS = {"ids": ("int64", ("n", 2))}
BATCH = {"ids": torch.tensor([[0, 4], [2, 2], [3, 1]])}


def test_rows_by_ids() -> None:
    found = lifted(lambda t, ids, w: t.gather(w, ids, axis=0), IDS, {"words.weight": (5, 3)}, BATCH)
    assert layer(found) == ("Embedding", {"num_embeddings": 5, "embedding_dim": 3})
    assert list(found.graph.modules) == ["words"]


def test_columns_are_no_rows() -> None:
    found = lifted(lambda t, ids, w: t.gather(w, ids, axis=1), IDS, {"words.weight": (3, 5)}, BATCH)
    assert "gather" in ops(found)


def test_a_table_of_another_rank_stays_a_gather() -> None:
    found = lifted(lambda t, ids, w: t.gather(w, ids, axis=0), IDS, {"words.weight": (5, 3, 2)}, BATCH)
    assert "gather" in ops(found)
    assert "is not a float matrix" in "\n".join(found.refusals)


def test_a_table_that_others_read_stays_one_weight() -> None:
    found = lifted(
        lambda t, ids, w: t.matmul(t.gather(w, ids, axis=0), t.matrix_transpose(w)),
        IDS,
        {"words.weight": (5, 3)},
        BATCH,
    )
    assert [spec.type for spec in found.graph.modules.values()] == ["Embedding"]
    assert list(found.store) == ["words.weight"]
