"""Scores, and exact top-k equal to a stable sort of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_towers import Index, TwoTower, save_checkpoint
from torch_towers.kernels import native
from torch_towers.kernels import top_k as top_k_module
from torch_towers.search import similarity as module
from torch_towers.search.similarity import distance, similarity, similarity_pairwise, top_k


@pytest.fixture(autouse=True, params=["native", "torch"], scope="module")
def _with_and_without_the_native_code(request: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(native, "scores", None)
        yield


def plainly(q: Tensor, c: Tensor, k: int, exclude: list[list[int]] | None = None) -> tuple[Tensor, Tensor]:
    """The definition: sort all scores of a query, stably, best first, NaN as -inf, and leave out what is excluded."""
    scores = (q @ c.T).nan_to_num(float("-inf"), float("inf"), float("-inf"))
    k = min(k, len(c))
    best, found = torch.full((len(q), k), float("-inf")), torch.full((len(q), k), -1)
    for row in range(len(q)):
        order = np.argsort(-scores[row].numpy(), kind="stable")
        order = [int(i) for i in order if exclude is None or int(i) not in exclude[row]][:k]
        best[row, : len(order)], found[row, : len(order)] = scores[row, order], torch.tensor(order, dtype=torch.int64)
    return best, found


def check(q: Tensor, c: Tensor, k: int, exclude: Any = None) -> None:
    scores, indices = top_k(q, c, k, exclude=exclude)
    best, found = plainly(q, c, k, exclude)
    assert indices.dtype == torch.int64 and indices.equal(found)
    assert scores.equal(best)


def whole_numbers(*shape: int, low: int = -2, high: int = 3, seed: int = 0) -> Tensor:
    """Few distinct values: many ties, and exact in every summation order."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).float()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5), st.integers(0, 60), st.integers(0, 70), st.integers(0, 99), st.sampled_from([16, 64, 1 << 22])
)
def test_equals_a_stable_sort(n: int, m: int, k: int, seed: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_k_module, "SCORES_PER_BLOCK", block)
        patch.setattr(top_k_module, "QUERIES_PER_BLOCK", 2)
        patch.setattr(top_k_module, "CHUNK", 4)
        patch.setattr(top_k_module, "_SORTED_WHOLE", 8)
        check(whole_numbers(n, 3, seed=seed), whole_numbers(m, 3, seed=seed + 1), k)


@pytest.mark.parametrize("n, m, k", [(3, 5000, 3), (3, 5001, 3), (1, 20_000, 10), (5, 3000, 1), (2, 700, 650)])
@pytest.mark.parametrize("values", [2, 1000])
def test_equals_a_stable_sort_at_full_size(n: int, m: int, k: int, values: int) -> None:
    check(
        whole_numbers(n, 4, low=-values, high=values + 1), whole_numbers(m, 4, low=-values, high=values + 1, seed=1), k
    )


def test_all_equal_gives_the_first() -> None:
    assert top_k(torch.ones(2, 3), torch.ones(5000, 3), 4)[1].tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("place", [0, 100, 4999])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_ranks_below_everything(place: int, value: float) -> None:
    q, c = whole_numbers(2, 3).abs() + 1, whole_numbers(5000, 3, seed=1)
    c[place] = value
    check(q, c, 3)
    check(-q, c, 3)
    check(q, torch.full((3, 3), value), 2)


def test_more_than_there_are_and_none() -> None:
    q, c = whole_numbers(2, 3), whole_numbers(4, 3)
    assert top_k(q, c, 9)[1].shape == (2, 4) and top_k(q, c, 0)[1].shape == (2, 0)
    assert top_k(q[:0], c, 2)[0].shape == (0, 2) and top_k(q, c[:0], 2)[0].shape == (2, 0)
    for k in (-1, 2.0, True):
        with pytest.raises(ValueError, match="k must be"):
            top_k(q, c, k)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, 30), max_size=25), min_size=3, max_size=3),
    st.integers(0, 25),
    st.sampled_from([0, 10**6]),
)
def test_excluded_candidates(exclude: list[list[int]], k: int, compared: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPARISONS", compared)
        check(whole_numbers(3, 3), whole_numbers(21, 3, seed=1), k, exclude)
        check(whole_numbers(3, 3), whole_numbers(900, 3, seed=1), k, exclude)


def test_exclude_as_a_tensor_and_wrong() -> None:
    q, c = whole_numbers(2, 3), whole_numbers(9, 3, seed=1)
    lists = [[0, 1, 2], [5]]
    padded = torch.tensor([[0, 1, 2], [5, -1, -1]])
    assert top_k(q, c, 4, exclude=padded)[1].equal(top_k(q, c, 4, exclude=lists)[1])
    assert top_k(q, c, 9, exclude=lists)[1][0, 6:].tolist() == [-1, -1, -1]
    assert top_k(q, c, 9, exclude=lists)[0][0, 6:].tolist() == [float("-inf")] * 3
    assert top_k(q, c, 4, exclude=[np.array([0, 1, 2]), torch.tensor([5])])[1].equal(top_k(q, c, 4, exclude=lists)[1])
    assert top_k(q[:0], c, 4, exclude=[])[1].shape == (0, 4)
    with pytest.raises(ValueError, match="for each of the 2 queries"):
        top_k(q, c, 4, exclude=[[1]])
    with pytest.raises(ValueError, match="for each of the 2 queries"):
        top_k(q, c, 4, exclude=torch.tensor([1, 2]))


def test_vectors_that_are_trained() -> None:
    q, c = whole_numbers(2, 3).requires_grad_(), whole_numbers(5000, 3, seed=1).requires_grad_()
    scores, indices = top_k(q, c, 4)
    assert not scores.requires_grad and indices.equal(top_k(q.detach(), c.detach(), 4)[1])
    assert similarity(q, c).requires_grad


def test_the_matrix_of_scores_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "scores", None)
    monkeypatch.setattr(top_k_module, "SCORES_PER_BLOCK", 4096)
    monkeypatch.setattr(top_k_module, "_SORTED_WHOLE", 8)
    largest = 0
    real = torch.topk

    def watch(values: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal largest
        largest = max(largest, values.numel())
        return real(values, *args, **kwargs)

    monkeypatch.setattr(torch, "topk", watch)
    top_k(whole_numbers(64, 3), whole_numbers(5000, 3), 5)
    assert 0 < largest <= 2 * 4096


def test_similarity() -> None:
    q, c = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert similarity(q, c).tolist() == [[2.0, 0.0], [6.0, 0.0]]
    assert similarity(q, c, "cosine").tolist() == [[1.0, 0.0], [pytest.approx(0.6), 0.0]]
    assert similarity_pairwise(q, c).tolist() == [2.0, 0.0]
    assert similarity_pairwise(q, c, "cosine").tolist() == [1.0, 0.0]
    assert similarity(q.numpy(), [[1.0, 1.0]]).tolist() == [[1.0], [7.0]]
    assert similarity([1.0, 2.0], [[1.0, 1.0]]).tolist() == [[3.0]]
    assert top_k(q, c, 1, "cosine")[0].tolist() == [[1.0], [pytest.approx(0.6)]]
    with pytest.raises(ValueError, match="2 dimensions and candidates 3"):
        similarity(q, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="as many queries as candidates"):
        similarity_pairwise(q, c[:1])
    with pytest.raises(ValueError, match=r"shape \[n, dim\]"):
        similarity(q, torch.zeros(1, 2, 3))


@pytest.mark.parametrize("kind, hint", [
    ("cosin", r" \(did you mean 'cosine'\?\)"), ("Dot", r" \(did you mean 'dot'\?\)"), ("manhattan", r" \(.*distance has L1_DISTANCE\)"),
    ("euclidean", r" \(.*distance has SQUARED_L2_DISTANCE\)"), ("", ""), (None, ""), ("COSINE_DISTANCE", ""),
])  # fmt: skip
def test_names_of_similarities_are_checked(tmp_path: Path, kind: Any, hint: str) -> None:
    q = torch.eye(2)
    message = rf"similarity must be 'dot' or 'cosine', not {kind!r}{hint}"
    makers: list[Callable[[], Any]] = [
        lambda: similarity(q, q, kind),
        lambda: similarity_pairwise(q, q, kind),
        lambda: top_k(q, q, 1, kind),
        lambda: TwoTower(similarity=kind),
        lambda: Index(q, similarity=kind),
        lambda: save_checkpoint(tmp_path / "c", similarity=kind),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=message):
            make()
    assert list(tmp_path.iterdir()) == []


def test_names_of_distances_are_suggested() -> None:
    with pytest.raises(ValueError, match=r"not a distance of Vertex's \(did you mean 'COSINE_DISTANCE'\?\)"):
        distance(torch.eye(2), torch.eye(2), "cosine_distance")
