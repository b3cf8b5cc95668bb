"""Similarity of embeddings, and exact top-k of candidates without the full score matrix."""

from __future__ import annotations

from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import suggestion
from torch_towers.graph.similarity import Similarity, check_similarity
from torch_towers.kernels.matmul import products
from torch_towers.kernels.threads import without_waiting
from torch_towers.kernels.top_k import top_k_of_products

Array = np.ndarray[Any, Any]

COMPARISONS = 1 << 22
"""Pairwise comparisons with excluded indices up to which comparing is faster than sorting."""


def as_embeddings(value: Any, what: str) -> Tensor:
    """`value` (tensor, array, list) as a float tensor `[n, dim]`; a single vector is one row."""
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if tensor.ndim == 1:
        tensor = tensor[None]
    if tensor.ndim != 2:
        raise ValueError(f"{what} must have the shape [n, dim], not {list(tensor.shape)}")
    return tensor if tensor.is_floating_point() else tensor.float()


def similarity(queries: Any, candidates: Any, kind: Similarity = "dot") -> Tensor:
    """The score of every query with every candidate: `[n, dim], [m, dim] -> [n, m]`."""
    return without_waiting(lambda: products(*_pair(queries, candidates, kind)))


def similarity_pairwise(queries: Any, candidates: Any, kind: Similarity = "dot") -> Tensor:
    """The score of each query with the candidate of the same row: `[n, dim], [n, dim] -> [n]`."""
    q, c = without_waiting(_pair, queries, candidates, kind)
    if len(q) != len(c):
        raise ValueError(f"pairs need as many queries as candidates, not {len(q)} and {len(c)}")
    return without_waiting(lambda: (q * c).sum(-1))


def top_k(
    queries: Any, candidates: Any, k: int, kind: Similarity = "dot", exclude: Any = None
) -> tuple[Tensor, Tensor]:
    """The best candidates of each query: `[n, dim], [m, dim] -> scores [n, min(k, m)], indices [n, min(k, m)]` int64.

    Exact, best first; ties go to the lower index. NaN ranks last, like -inf, and is returned as -inf. `exclude` lists,
    per query, indices of candidates to leave out: an integer tensor `[n, e]` (negative: none) or lists of different
    lengths. If fewer than k are left, the rest has score -inf and index -1. The full score matrix is never stored.
    Errors: `ValueError`.
    """
    return without_waiting(_top_k, queries, candidates, k, kind, exclude)


def _top_k(queries: Any, candidates: Any, k: int, kind: Similarity, exclude: Any) -> tuple[Tensor, Tensor]:
    if type(k) is not int or k < 0:
        raise ValueError(f"k must be a nonnegative integer, not {k!r}")
    q, c = (x.detach() for x in _pair(queries, candidates, kind))
    k = min(k, len(c))
    excluded = None if exclude is None else _excluded(exclude, len(q))
    wanted = k if excluded is None else min(len(c), k + excluded.shape[1])
    scores, indices = top_k_of_products(q, c, wanted, nan_last=True)
    return (scores, indices) if excluded is None else _without(scores, indices, excluded, k, len(c))


def _pair(queries: Any, candidates: Any, kind: Similarity) -> tuple[Tensor, Tensor]:
    check_similarity(kind)
    q, c = as_embeddings(queries, "queries"), as_embeddings(candidates, "candidates")
    if q.shape[1] != c.shape[1]:
        raise ValueError(
            f"queries have {q.shape[1]} dimensions and candidates {c.shape[1]}: they come from different models"
        )
    if q.dtype != c.dtype or q.device != c.device:
        dtype = torch.promote_types(q.dtype, c.dtype)
        q, c = q.to(dtype), c.to(q.device, dtype)
    if kind == "cosine":
        return torch.nn.functional.normalize(q, dim=-1), torch.nn.functional.normalize(c, dim=-1)
    return q, c


def _excluded(exclude: Any, rows: int) -> Array:
    """The excluded indices per query as `[n, e]`, padded with -1."""
    if not isinstance(exclude, Tensor):
        lists: list[list[int]] = [row.tolist() if hasattr(row, "tolist") else list(row) for row in exclude]
        lengths = np.array([len(row) for row in lists], np.int64)
        padded = np.full((len(lists), lengths.max(initial=0)), -1, np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = list(chain.from_iterable(lists))
    else:
        padded = exclude.cpu().numpy().astype(np.int64, copy=False)
    if padded.ndim != 2 or len(padded) != rows:
        shape = list(padded.shape)
        raise ValueError(f"exclude must list candidates for each of the {rows} queries; its shape is {shape}")
    return padded


def _without(scores: Tensor, indices: Tensor, excluded: Array, k: int, count: int) -> tuple[Tensor, Tensor]:
    """The first k that are not excluded, padded with -inf and -1."""
    found = indices.cpu().numpy()
    if found.size * excluded.shape[1] <= COMPARISONS:
        out = (found[..., None] == excluded[:, None]).any(-1)
    else:
        row = np.arange(len(found))[:, None] * count  # a unique key per query and candidate
        out = np.isin(found + row, np.where((excluded >= 0) & (excluded < count), excluded + row, -1))
    order = out.argsort(axis=1, kind="stable")[:, :k]
    rows = np.arange(len(order))[:, None]
    places, empty = (torch.as_tensor(each, device=indices.device) for each in (order, out[rows, order]))
    return scores.gather(1, places).masked_fill_(empty, float("-inf")), indices.gather(1, places).masked_fill_(
        empty, -1
    )


Distance = Literal["SQUARED_L2_DISTANCE", "L1_DISTANCE", "COSINE_DISTANCE", "DOT_PRODUCT_DISTANCE"]
DISTANCES = get_args(Distance)
"""The measures of Vertex AI Vector Search. All are distances: smaller is closer."""


def distance(queries: Any, candidates: Any, name: Distance = "DOT_PRODUCT_DISTANCE") -> Tensor:
    """Vertex's distance of every query to every candidate: `[n, dim], [m, dim] -> [n, m]`, in the embeddings' dtype.

    COSINE_DISTANCE is 1 - cosine, DOT_PRODUCT_DISTANCE the negative dot product. Errors: `ValueError`.
    """
    if name not in DISTANCES:
        hint = suggestion(str(name).upper(), DISTANCES)
        raise ValueError(f"{name!r} is not a distance of Vertex's{hint}: choose one of {', '.join(DISTANCES)}")
    if name == "DOT_PRODUCT_DISTANCE":
        return -similarity(queries, candidates, "dot")
    if name == "COSINE_DISTANCE":
        return 1 - similarity(queries, candidates, "cosine")
    q, c = _pair(queries, candidates, "dot")
    if name == "L1_DISTANCE":
        return torch.cdist(q, c, p=1)
    # Computed from differences: |q|^2 - 2qc + |c|^2 cancels for close vectors.
    rows = [(c - row).square().sum(-1) for row in q]
    return torch.stack(rows) if rows else q.new_empty(0, len(c))
