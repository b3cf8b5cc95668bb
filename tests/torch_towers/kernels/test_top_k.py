"""Native top-k of products equals a stable sort of all products, for every instruction set of this processor."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.kernels import matmul as products_module
from torch_towers.kernels import native
from torch_towers.kernels import top_k as top_k_module
from torch_towers.kernels.matmul import products
from torch_towers.kernels.top_k import largest, native_top_k, top_k_of_products
from torch_towers.ops.linalg import matmul
from torch_towers.program.program import Program

needs_native = pytest.mark.skipif(native.scores is None, reason="the native code was not built (no compiler)")


def kernels() -> list[int]:
    """The numbers of those that this processor runs: plain C, AVX2, AVX-512."""
    return list(range(native.scores.kernels)) if native.scores is not None else []


def search(q: Tensor, c: Tensor, k: int, *, kind: int = -1, threads: int = 1) -> tuple[Tensor, Tensor] | None:
    values, places = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
    sizes = len(q), len(c), q.shape[1], k, 8
    done = native.scores.top_k(q.numpy(), c.numpy(), values, places, *sizes, threads, kind)
    return (torch.from_numpy(values), torch.from_numpy(places)) if done else None


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole_numbers(*shape: int, seed: int = 0) -> Tensor:
    """Few distinct values: many ties, and exact in every summation order."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def plainly(q: Tensor, c: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, places = torch.sort(q @ c.T, dim=1, descending=True, stable=True)
    return values[:, :k], places[:, :k]


@needs_native
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_a_stable_sort(data: Any) -> None:
    n = data.draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 40, 63, 64, 65, 130]))
    m = data.draw(st.integers(1, 300) | st.sampled_from([2000, 9001]))
    dim, k = data.draw(st.sampled_from([1, 3, 8, 16, 31, 64, 70])), data.draw(st.integers(1, min(m, 40)))
    q, c = whole_numbers(n, dim, seed=m), whole_numbers(m, dim, seed=k)
    want = plainly(q, c, k)
    for kind in kernels():
        found = search(q, c, k, kind=kind, threads=data.draw(st.integers(1, 4)))
        assert found is not None and found[0].equal(want[0]) and found[1].equal(want[1])


@needs_native
@pytest.mark.parametrize("kind", kernels())
@pytest.mark.parametrize("n, dim", [(1, 64), (3, 100), (16, 64), (70, 33)])
def test_equals_float64(kind: int, n: int, dim: int) -> None:
    q, c = normal(n, dim), normal(5000, dim, seed=1)
    found = search(q, c, 10, kind=kind, threads=2)
    assert found is not None
    exact = q.double() @ c.double().T
    values = exact.sort(1, descending=True).values[:, :10]
    # n additions of products, each half an ulp of the sum of their sizes, in any order
    bound = float((q.abs().double() @ c.abs().double().T).max()) * (dim + 1) * 2**-24
    assert torch.allclose(found[0].double(), values, rtol=0, atol=bound)
    assert torch.allclose(exact.gather(1, found[1]), values, rtol=0, atol=2 * bound)


@needs_native
@pytest.mark.parametrize("kind", kernels())
@pytest.mark.parametrize("n", [1, 4, 5, 20, 64, 90])
@pytest.mark.parametrize("dim", [37, 64])
def test_equal_candidates_score_the_same_everywhere(kind: int, n: int, dim: int) -> None:
    """Numbers whose sum depends on the order of summation, at places that different tiles and threads take."""
    c = normal(4111, dim)
    places = [0, 1, 11, 23, 24, 500, 1023, 2048, 4104, 4109, 4110]
    c[places] = 3 * c[7]
    found = search(c[7] + 0.01 * normal(n, dim, seed=2), c, len(places), kind=kind, threads=3)
    assert found is not None and found[1].tolist() == [places] * n


@needs_native
@pytest.mark.parametrize("order", ["rising", "falling"])
@pytest.mark.parametrize("k", [1, 2, 100, 1024])
def test_every_candidate_may_be_better_than_the_last(order: str, k: int) -> None:
    c = torch.arange(3000.0)[:, None]
    c = c if order == "rising" else c.flip(0)
    for n in (1, 9):
        q = torch.arange(1.0, n + 1)[:, None]
        found, want = search(q, c, k, threads=2), plainly(q, c, k)
        assert found is not None and found[0].equal(want[0]) and found[1].equal(want[1])


@pytest.mark.parametrize("n", [1, 5, 70])
@pytest.mark.parametrize("place", [0, 100, 4999])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@torch.no_grad()
def test_values_that_are_not_finite(n: int, place: int, value: float) -> None:
    q, c = whole_numbers(n, 3).abs() + 1, whole_numbers(5000, 3, seed=1)
    c[place] = value
    for sign in (1, -1):
        want, found = largest(sign * q @ c.T, 5), top_k_of_products(sign * q, c, 5)
        assert found[1].equal(want[1]) and found[0].numpy().tobytes() == want[0].numpy().tobytes()
    if native.scores is not None:
        assert (native_top_k(q, c, 5) is None) == np.isnan(value)


@pytest.mark.parametrize("present", [True, False])
@torch.no_grad()
def test_products_in_blocks(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    if not present:
        monkeypatch.setattr(native, "scores", None)
    for name, value in [("SCORES_PER_BLOCK", 7000), ("QUERIES_PER_BLOCK", 4), ("_ENTRIES_PER_CALL", 640)]:
        monkeypatch.setattr(top_k_module, name, value)
    for n, m, dim, k in [
        (1, 3000, 8, 10),
        (9, 3000, 8, 10),
        (3, 3000, 8, 2000),
        (2, 5, 8, 5),
        (2, 5, 8, 0),
        (0, 5, 8, 2),
        (2, 0, 8, 0),
    ]:
        q, c = whole_numbers(n, dim, seed=1), whole_numbers(m, dim, seed=2)
        want, found = plainly(q, c, k), top_k_of_products(q, c, k)
        assert found[0].equal(want[0]) and found[1].equal(want[1]) and found[1].dtype == torch.int64


@pytest.mark.parametrize("shape", [(600,), (3, 5000), (2, 2, 20001), (1, 0), (0, 600)])
@pytest.mark.parametrize("k", [0, 1, 5, 10])
@pytest.mark.parametrize("kind", ["distinct", "ties", "nan", "zeros", "infinite", "equal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
def test_the_largest_are_those_of_a_stable_sort(shape: tuple[int, ...], k: int, kind: str, dtype: torch.dtype) -> None:
    x = normal(*shape, seed=k)
    if kind == "ties":
        x = (x * 3).round()
    elif kind == "zeros":
        x = torch.where(x > 0, 0.0, -0.0)
    elif kind == "equal":
        x = torch.ones(shape)
    elif x.numel() and dtype.is_floating_point:
        x.view(-1)[:: 97 if kind == "nan" else 10**9] = float("nan") if kind == "nan" else float("inf")
    if x.shape[-1] < k:
        return
    x = x.to(dtype) if dtype.is_floating_point else (x * 100).to(dtype)
    values, positions = torch.sort(x, dim=-1, descending=True, stable=True)
    found = largest(x, k)
    assert found[1].equal(positions[..., :k])
    assert (
        found[0].numpy(force=True).tobytes() == values[..., :k].numpy(force=True).tobytes()
        if dtype != torch.bfloat16
        else (found[0].view(torch.int16).equal(values[..., :k].contiguous().view(torch.int16)))
    )


def test_of_long_rows_few_elements_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the chunks and the selection the answers would be the same, and take a hundred times as long."""
    looked: list[int] = []
    real = torch.topk
    monkeypatch.setattr(torch, "topk", lambda x, *args, **more: looked.append(x.numel()) or real(x, *args, **more))
    monkeypatch.setattr(torch, "sort", None)
    largest(normal(1, 1 << 20), 10)
    assert len(looked) == 2 and max(looked) < (1 << 20) / 100


@torch.no_grad()
def test_nan_last() -> None:
    q, c = torch.ones(2, 1), torch.arange(3000.0)[:, None]
    c[[5, 2999]] = float("nan")
    values, positions = top_k_of_products(q, c, 2, nan_last=True)
    assert positions.tolist() == [[2998, 2997]] * 2
    values, positions = top_k_of_products(q, torch.full((3, 1), float("nan")), 2, nan_last=True)
    assert values.tolist() == [[float("-inf")] * 2] * 2 and positions.tolist() == [[0, 1]] * 2
    assert top_k_of_products(q, c, 2)[1].tolist() == [[5, 2999]] * 2


@torch.no_grad()
def test_other_numbers_and_layouts() -> None:
    q, c = whole_numbers(4, 6, seed=1), whole_numbers(900, 6, seed=2)
    want = plainly(q, c, 5)
    for a, b in [
        (q.double(), c.double()),
        (q, c.T.contiguous().T),
        (q.T.contiguous().T, c),
        (q, c.repeat(1, 2)[:, :6]),
    ]:
        found = top_k_of_products(a, b, 5)
        assert found[0].float().equal(want[0]) and found[1].equal(want[1])
    meta = top_k_of_products(q.to("meta"), c.to("meta"), 5)
    assert meta[0].shape == (4, 5) and meta[1].dtype == torch.int64


def test_gradients() -> None:
    q, c = normal(2, 6).requires_grad_(), normal(900, 6, seed=1).requires_grad_()
    values, places = top_k_of_products(q, c, 3)
    values.sum().backward()
    assert q.grad is not None and torch.allclose(q.grad, c[places.long()].sum(1))
    assert products(q, c).requires_grad


@torch.no_grad()
def test_products() -> None:
    for n, m, dim in [(1, 40_000, 32), (40, 5000, 64), (3, 4, 5), (0, 4, 5), (3, 0, 5)]:
        q, c = normal(n, dim), normal(m, dim, seed=1)
        for found in (products(q, c), matmul(q, c.mT), matmul(q, c.mT.contiguous())):
            assert torch.allclose(
                found.double(), q.double() @ c.double().T, rtol=0, atol=1e-4
            )  # sums of float32 products
    assert products(q.double(), c.double()).dtype == torch.float64
    q, c = normal(2, 3, 60, 64), normal(3, 900, 64)
    assert matmul(q, c.mT).equal(q @ c.mT)  # torch's own call, as beside it


@needs_native
def test_the_environment_says_which_kernel_runs() -> None:
    """One machine can so test what others run."""
    code = "from torch_towers.kernels import native; print(native.core is not None, native.scores is not None, native.kernel)"
    most = len(kernels()) - 1
    for asked, kernel in (
        ("", most),
        ("1", most),
        ("0", -1),
        ("c", min(0, most)),
        ("avx2", min(1, most)),
        ("avx512", most),
    ):
        environment = {**os.environ, "TORCH_TOWERS_NATIVE": asked}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        core, scores, found = done.stdout.split()
        assert int(found) == kernel and (asked != "0" or (core, scores) == ("False", "False")), asked
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TORCH_TOWERS_NATIVE": "sse"}, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "ValueError: TORCH_TOWERS_NATIVE is 'sse': it can be 0, c, avx2, avx512"


@pytest.mark.skipif(products_module._onednn is None, reason="torch has no oneDNN here")
def test_large_products_with_a_transposed_weight_run_on_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And small ones, others, and those with a gradient do not."""
    calls: list[int] = []
    real = products_module._onednn
    monkeypatch.setattr(products_module, "_onednn", lambda a, *rest: calls.append(len(a)) or real(a, *rest))
    q, c = normal(32, 64), normal(5000, 64, seed=1)
    matmul(q, c.mT)
    assert calls == [32]
    matmul(q[:1], c.mT)
    matmul(q, c.mT.contiguous())
    matmul(q.double(), c.double().mT)
    assert matmul(q.requires_grad_(), c.mT).requires_grad
    assert matmul(q.to("meta"), c.to("meta").mT).shape == (32, 5000)
    assert calls == [32]
    with torch.inference_mode():
        matmul(q, c.mT)
    assert calls == [32, 32]


def index(outputs: dict[str, str], dtype: str = "int32", count: int = 4000) -> Program:
    """What TFRS's BruteForce ports to."""
    nodes = (
        Node("candidates", "parameter", (), {"tensor": "candidates"}),
        Node("turned", "matrix_transpose", ("candidates",)),
        Node("scores", "matmul", ("q", "turned")),
        Node("best", "top_k", ("scores", 5), {"dtype": dtype}),
    )
    graph = Graph((TensorSpec("q", "float32", ("batch", 16)),), nodes, outputs, {})
    return Program(graph, {"candidates": whole_numbers(count, 16, seed=3)})


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
def test_an_index_runs_without_its_scores(dtype: str) -> None:
    program = index({"values": "best:0", "places": "best:1"}, dtype)
    whole = index({"values": "best:0", "places": "best:1", "scores": "scores"}, dtype)
    assert [len(one._plan) for one in (program, whole)] == [2, 4]
    for n in (0, 1, 7, 80):
        q = whole_numbers(n, 16, seed=n)
        with torch.inference_mode():
            found, want = program(q=q), whole(q=q)
        trained = program(q=q)
        assert trained["values"].requires_grad
        for name in found:
            assert (
                found[name].equal(want[name])
                and trained[name].equal(want[name])
                and found[name].dtype == want[name].dtype
            )


def test_more_than_there_are_candidates() -> None:
    program = index({"values": "best:0"}, count=4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(InputError, match=r"at least k columns. Had 4, needed 5"):
            program(q=whole_numbers(2, 16))


@needs_native
def test_from_many_threads() -> None:
    c = normal(20_000, 16)
    queries = [normal(n, 16, seed=n) for n in range(1, 33)]
    want = [search(q, c, 10) for q in queries]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: search(q, c, 10, threads=4), queries))
    for a, b in zip(found, want, strict=True):
        assert a is not None and b is not None and a[0].equal(b[0]) and a[1].equal(b[1])


@needs_native
def test_wrong_arguments_are_refused() -> None:
    q, c, values, places = (np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros((2, 1), np.float32),
                            np.zeros((2, 1), np.int64))  # fmt: skip
    good: list[Any] = [q, c, values, places, 2, 4, 3, 1, 8, 1]
    assert native.scores.top_k(*good)
    wrong = {
        4: (0, 1, 3, -1, 2**62),
        5: (0, 3, 5, 2**31, 2**62),
        6: (-1, 0, 2, 4, 2**62),
        7: (0, 2, 5),
        8: (4, 2),
        9: (0, 10**6),
    }
    for place, others in wrong.items():
        for value in others:
            with pytest.raises(ValueError, match=r"no such sizes|bytes is wanted"):
                native.scores.top_k(*good[:place], value, *good[place + 1 :])
    with pytest.raises(ValueError, match="no such sizes"):
        native.scores.top_k(*good, 99)
    values.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        native.scores.top_k(*good)
    with pytest.raises((BufferError, ValueError)):
        native.scores.top_k(q[:, ::-1], *good[1:])


class _Largest(torch.nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return largest(x, 40)


def test_exported_it_selects_the_same() -> None:
    """An exported program, which other runtimes run, reads no bits of floats: ties, NaN and zeros of both signs."""
    x = torch.cat([normal(4, 1000).round(decimals=1), whole_numbers(3, 1000)])
    x[0, ::300], x[1, 7], x[1, :500:10] = float("nan"), float("nan"), float("inf")
    x[2], x[3, :990], x[4, ::2] = float("nan"), float("-inf"), -0.0
    program = torch.export.export(_Largest(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert not [node for node in program.graph.nodes if "view" in str(node.target)]
    want, found = torch.sort(x, dim=1, descending=True, stable=True), program.module()(x)
    assert found[1].equal(want.indices[:, :40])
    assert found[0].numpy().tobytes() == want.values[:, :40].contiguous().numpy().tobytes()
