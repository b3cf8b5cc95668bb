"""Shapes on the meta device without torch's compiler, equal to those with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.program.shapes import WithoutCompiler

ROOT = Path(__file__).parents[3]

CALLS: list[Callable[[Tensor, Tensor], Any]] = [
    lambda x, n: x + n, lambda x, n: 1 - x, lambda x, n: x / 3, lambda x, n: n // 2, lambda x, n: 7 // (n + 1), lambda x, n: 2.0**x,
    lambda x, n: n > x, lambda x, n: (x > 0) & (n == 1), lambda x, n: torch.where(x > 0, x, n), lambda x, n: x[:, :1] * n[:1],
    lambda x, n: x.clamp(min=0.5), lambda x, n: F.gelu(x), lambda x, n: F.elu(x, 2.0), lambda x, n: torch.add(x, n, alpha=2),
    lambda x, n: x.clone().add_(n), lambda x, n: x[0, 0] * n, lambda x, n: x.mean(1), lambda x, n: x.mean((0, 1), keepdim=True),
    lambda x, n: F.log_softmax(x, -1), lambda x, n: n.cumsum(0), lambda x, n: (x > 0).any(1), lambda x, n: torch.var_mean(x, 1),
    lambda x, n: torch.cat([x, x], 1), lambda x, n: F.one_hot(n, 9), lambda x, n: x.tril(), lambda x, n: F.layer_norm(x, (4,)),
    lambda x, n: torch.stack([n, n], -1), lambda x, n: F.linear(x, x), lambda x, n: x.to(torch.complex64).abs(), lambda x, n: ~(n > 0),
    lambda x, n: x.half() * x, lambda x, n: n * 0.5, lambda x, n: n * True, lambda x, n: x[:0] + 1, lambda x, n: F.relu(n),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_the_same_as_torch_says(number: int) -> None:
    x = torch.empty(3, 4, device="meta")
    n = torch.empty(3, 4, dtype=torch.int64, device="meta")
    wanted = CALLS[number](x, n)
    with WithoutCompiler():
        found = CALLS[number](x, n)
    pairs = zip(found, wanted) if isinstance(wanted, tuple) else [(found, wanted)]
    assert all((a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) for a, b in pairs)


@pytest.mark.parametrize(
    "call", [lambda x: torch.nonzero(x), lambda x: torch.where(x > 0), lambda x: x[x > 0], lambda x: x.sum().item()]
)
def test_what_depends_on_values_stays_unknown(call: Callable[[Tensor], Any]) -> None:
    with pytest.raises(Exception), WithoutCompiler():  # noqa: B017  (torch has several for it)
        call(torch.empty(3, 4, device="meta"))


def test_a_port_and_a_load_import_no_compiler(tmp_path: Path) -> None:
    code = (
        "import sys, torch, torch_towers\n"
        "from porting.saved_model import read\n"
        "from porting.tower import port_tower\n"
        "sides = [port_tower(read(f'examples/packages/{side}_model')).tower() for side in ('query', 'candidate')]\n"
        f"torch_towers.TwoTower(*sides).save({str(tmp_path / 'towers')!r})\n"
        f"towers = torch_towers.load({str(tmp_path / 'towers')!r}, dtype='bfloat16')\n"
        "towers.float().encode_query(['edit photos'])\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: torch.cat([a, b], 1), lambda a, b: torch.cat([b, a], -2), lambda a, b: torch.stack([a, a], -1),
        lambda a, b: torch.stack([a, a]), lambda a, b: torch.stack((a, a), dim=1),
    ],
)  # fmt: skip
def test_large_tensors_are_joined_as_torch_says(call: Callable[[Tensor, Tensor], Tensor]) -> None:
    a = torch.empty(3, 1 << 21, 2, device="meta")
    b = torch.empty(3, 5, 2, dtype=torch.float64, device="meta")
    wanted = call(a, b)
    with WithoutCompiler():
        found = call(a, b)
        with pytest.raises(RuntimeError, match="must match"):
            torch.cat([a, b], 0)
    assert (found.shape, found.dtype, found.device) == (wanted.shape, wanted.dtype, wanted.device)
