"""Exact top-k: the largest values of each row, and the best candidates of queries by dot product. Ties go to the lower
index.

`largest` is the project's only selection: the op `top_k`, search and the fused product all call it. Products of queries
and candidates run in one native pass (`native/scores.c`), which keeps only the best scores so far, or through torch
block by block; the results agree up to rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import plain, readable
from torch_towers.kernels.matmul import are_rows, products
from torch_towers.kernels.threads import threads

MAX_NATIVE_K = 1024
"""The largest k of the native pass: above it torch's selection is faster."""

QUERIES_PER_BLOCK, SCORES_PER_BLOCK, SCORES_PER_CUDA_BLOCK = 1024, 1 << 22, 1 << 26
"""Scores in memory at a time: 16 MB fit a CPU cache; on a device 256 MB amortize the launches."""

CHUNK = 128
"""Row chunks of which only the maximum is compared first."""

_ENTRIES_PER_CALL = 1 << 20  # results of one native call, which bounds its threads' memory
_SORTED_WHOLE = 512  # rows up to this length are sorted: selection is no faster


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest values of each row in descending order, and their positions: `[..., n] -> [..., k], [..., k]`
    int64, for `k <= n`.

    Exact: equals a stable descending sort. NaN is larger than every number. Gradients flow through the values.
    """
    n = x.shape[-1]
    if readable(x) and x.is_floating_point() and n > _SORTED_WHOLE and k > 0 and x.numel():
        values, positions = _largest_of_rows(x.reshape(-1, n), k)
        return values.reshape(*x.shape[:-1], k), positions.reshape(*x.shape[:-1], k)
    if torch.compiler.is_compiling() and x.dtype == torch.float32 and n > _SORTED_WHOLE and k > 0:
        if torch.compiler.is_exporting():
            return _by_comparisons(x, k)
        positions = _by_integer_keys(x, k)
        return torch.gather(x, -1, positions), positions
    return _sorted(x, k)


def top_k_of_products(q: Tensor, c: Tensor, k: int, *, nan_last: bool = False) -> tuple[Tensor, Tensor]:
    """The `k` largest products of each query and their candidates: `[n, dim], [m, dim] -> [n, k], [n, k]` int64, for `k
    <= m`.

    Equals `largest(q @ c.T, k)` without storing all products. `nan_last`: NaN counts as -inf, and is returned as -inf.
    """
    if k == 0:
        return _sorted(q @ c[:0].mT, 0)
    if not readable(q, c):
        scores = q @ c.mT
        return largest(scores.masked_fill(scores.isnan(), float("-inf")) if nan_last else scores, k)
    if (found := native_top_k(q, c, k)) is not None:
        return found
    starts = range(0, max(1, len(q)), QUERIES_PER_BLOCK)
    blocks = [_of_block(q[start : start + QUERIES_PER_BLOCK], c, k, nan_last) for start in starts]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat([values for values, _ in blocks]), torch.cat([positions for _, positions in blocks])


def native_top_k(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """`top_k_of_products` in one native pass; None if that does not apply: not float32, or NaN among the scores."""
    if native.scores is None or not queries.numel() or not 0 < k <= MAX_NATIVE_K:
        return None
    if not are_rows(queries) or not are_rows(candidates) or not plain(queries, candidates):
        return None
    (n, dim), m = queries.shape, len(candidates)
    values, positions = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    q, c, step = queries.detach().numpy(), candidates.detach().numpy(), max(64, _ENTRIES_PER_CALL // k)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        parts, sizes = (q[rows], c, values[rows], positions[rows]), (rows.stop - start, m, dim, k, positions.itemsize)
        if not native.scores.top_k(*parts, *sizes, threads(), native.kernel):
            return None
    return torch.from_numpy(values), torch.from_numpy(positions)  # type: ignore[reportUnknownMemberType]


def _of_block(q: Tensor, c: Tensor, k: int, nan_last: bool) -> tuple[Tensor, Tensor]:
    """The top k of all candidates for one block of queries: block by block, merged with the best so far."""
    step = max((SCORES_PER_BLOCK if c.is_cpu else SCORES_PER_CUDA_BLOCK) // max(len(q), 1), 2 * k)
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(c), step):
        scores = products(q, c[start : start + step])
        values, positions = _largest(scores, min(k, scores.shape[1]), nan_last)
        positions = positions + start
        if best is not None:  # earlier results have lower positions, so they come first
            positions = torch.cat([best[1], positions], 1)
            values, order = largest(torch.cat([best[0], values], 1), k)
            positions = positions.gather(1, order)
        best = values, positions
    assert best is not None, "k <= m, and k is not 0"
    return best


def _largest(scores: Tensor, k: int, nan_last: bool) -> tuple[Tensor, Tensor]:
    values, positions = largest(scores, k)
    if nan_last and bool(values[:, 0].isnan().any()):  # NaN sorts first
        return largest(scores.masked_fill(scores.isnan(), float("-inf")), k)
    return values, positions


def _largest_of_rows(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`[rows, n] -> [rows, k], [rows, k]`: the k largest are in the k chunks with the largest maxima, ties in the first
    such chunks."""
    n = x.shape[1]
    if n < 4 * k * CHUNK:
        return _selected(x, k)
    whole = n - n % CHUNK
    _, chunks = _selected(x[:, :whole].reshape(len(x), -1, CHUNK).amax(-1), k)
    chunks = chunks.sort(1).values
    inside = (chunks[..., None] * CHUNK + torch.arange(CHUNK, device=x.device)).flatten(1)
    rest = torch.arange(whole, n, device=x.device).expand(len(x), -1)
    positions = torch.cat([inside, rest], 1)
    values, order = _selected(x.gather(1, positions), k)
    return values, positions.gather(1, order)


def _selected(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same over whole rows. torch.topk breaks ties arbitrarily, so rows with a tie are selected again."""
    n = x.shape[1]
    values, positions = torch.topk(x, min(k + 1, n), dim=1)  # one more than k: reveals a tie at the k-th
    if bool(values[:, 0].isnan().any()):
        return _sorted(x, k)
    if k < n:
        tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
        positions = positions[:, :k]
        if len(tied):
            positions[tied] = _first_of_equals(x[tied], values[tied, k - 1 : k], k)
    positions = positions.sort(1).values
    values, order = x.gather(1, positions).sort(dim=1, descending=True, stable=True)
    return values, positions.gather(1, order)


def _first_of_equals(x: Tensor, last: Tensor, k: int) -> Tensor:
    """Positions of the k largest of each row; of those equal to `last`, the k-th, the first: `[n, m], [n, 1] -> [n,
    k]`."""
    more, equal = x > last, x == last
    room = k - more.sum(1, keepdim=True)
    taken = more | (equal & (equal.cumsum(1) <= room))
    return taken.nonzero()[:, 1].reshape(-1, k)


def _by_comparisons(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same for other runtimes, in ops that ONNX has too: it cannot read the bits of a float."""
    n, last = x.shape[-1], torch.topk(x, k, dim=-1).values[..., -1:]
    nan, last_nan = x.isnan(), last.isnan()
    more, equal = (x > last) | (nan & ~last_nan), (x == last) | (nan & last_nan)
    room = k - more.sum(-1, keepdim=True)
    taken = more | (equal & (equal.cumsum(-1) <= room))
    backwards = torch.arange(n, 0, -1, device=x.device)
    positions = n - torch.topk(torch.where(taken, backwards, 0), k, dim=-1).values
    values, order = torch.gather(x, -1, positions).sort(dim=-1, descending=True, stable=True)
    return values, positions.gather(-1, order)


def _by_integer_keys(x: Tensor, k: int) -> Tensor:
    """Positions of the k largest if values may not be read (compilers): sorts integer keys (float order, reversed
    position)."""
    bits = (x + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 makes -0.0 equal 0.0
    order = torch.where(bits < 0, torch.iinfo(torch.int32).min - bits, bits)
    positions = torch.arange(x.shape[-1] - 1, -1, -1, device=x.device)
    keys = torch.topk((order << 32) + positions, k, dim=-1, sorted=True).values
    return x.shape[-1] - 1 - (keys & 0xFFFFFFFF)


def _sorted(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, positions = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[..., :k], positions[..., :k]
