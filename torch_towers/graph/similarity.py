"""The name of a similarity, as a checkpoint stores it. `torch_towers.search` computes it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch_towers.errors import suggestion

Similarity = Literal["dot", "cosine"]
""""dot": the inner product; "cosine": the inner product of normalized embeddings. For distances see `distance`."""

_DISTANCES = {"manhattan": "L1_DISTANCE", "euclidean": "SQUARED_L2_DISTANCE"}


def check_similarity(kind: Any) -> None:
    """Raises `ValueError` if `kind` is not a `Similarity`."""
    known = get_args(Similarity)
    if kind in known:
        return
    hint = suggestion(str(kind), known)
    if str(kind) in _DISTANCES:
        hint = f" (torch_towers.search.similarity.distance has {_DISTANCES[str(kind)]})"
    raise ValueError(f"similarity must be {' or '.join(map(repr, known))}, not {kind!r}{hint}")
