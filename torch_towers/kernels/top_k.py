"""The best candidates of queries by their products: one native pass over the candidates, or torch a block at a time.

The native pass (`native/scores.c`) keeps no score that is not among the best so far. It is optional: without it the answers are the same
up to the rounding of sums. Of equal scores the lower index comes first.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torch_towers.graph.dtypes import torch_dtype
from torch_towers.kernels import native
from torch_towers.kernels.fast_path import plain
from torch_towers.kernels.matmul import are_rows, products
from torch_towers.kernels.threads import threads
from torch_towers.ops.reductions import top_k

MOST = 1024
"""Of the best that the native pass is asked for: beyond, torch's own selection takes less time."""

SCORES, ON_DEVICE = 1 << 22, 1 << 26
"""That torch holds at a time: 16 MB, which stay in a processor's cache; on a device 256 MB, since each launch costs."""

_HELD = 1 << 20  # entries that a thread of the native pass holds


def top_k_of_products(queries: Tensor, candidates: Tensor, k: int, *, dtype: str = "int32") -> tuple[Tensor, Tensor]:
    """The `k` largest products of each query, largest first, and whose they are: `[n, dim], [m, dim] -> [n, k], [n, k]`.

    What `top_k(matmul(queries, candidates.mT), k)` gives, without all products in memory where no gradient is asked for.
    """
    if not plain(queries, candidates) or k > len(candidates):
        return top_k(torch.matmul(queries, candidates.mT), k, dtype=dtype)
    if found := native_top_k(queries, candidates, k, dtype):
        return found
    rows = max(1, (SCORES if candidates.is_cpu else ON_DEVICE) // max(1, len(candidates)))
    starts = range(0, max(1, len(queries)), rows)
    blocks = [top_k(products(queries[start : start + rows], candidates), k, dtype=dtype) for start in starts]
    return torch.cat([values for values, _ in blocks]), torch.cat([places for _, places in blocks])


def native_top_k(queries: Tensor, candidates: Tensor, k: int, dtype: str = "int64") -> tuple[Tensor, Tensor] | None:
    """`top_k_of_products` in one pass; None where it is not for the native code: other numbers than float32, NaN among the scores."""
    if native.scores is None or not queries.numel() or not 0 < k <= MOST:
        return None
    if not are_rows(queries) or not are_rows(candidates) or not plain(queries, candidates):
        return None
    (n, dim), m = queries.shape, len(candidates)
    values, places = np.empty((n, k), np.float32), np.empty((n, k), np.int32 if dtype == "int32" else np.int64)
    q, c, step = queries.detach().numpy(), candidates.detach().numpy(), max(64, _HELD // k)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        parts, sizes = (q[rows], c, values[rows], places[rows]), (rows.stop - start, m, dim, k, places.itemsize)
        if not native.scores.top_k(*parts, *sizes, threads(), native.kernel):
            return None
    found = [torch.from_numpy(array) for array in (values, places)]  # type: ignore[reportUnknownMemberType]
    return found[0], found[1].to(torch_dtype(dtype))
