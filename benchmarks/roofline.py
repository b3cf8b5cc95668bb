"""The roofline: the minimum time of an encoder on a device, by its FLOPs and memory traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_towers.kernels.matmul import products
from torch_towers.layers.embedding import Embedding
from torch_towers.program.binding import descend, path
from torch_towers.program.cost import each, multiplications
from torch_towers.program.program import Program

_SIDES = {"cuda": (2048, 4096, 8192), "cpu": (512, 1024)}
_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes, larger than caches
_TRIES = 5


@dataclass(frozen=True)
class Limits:
    """The measured limits of a device for one dtype: multiply-adds and bytes per second."""

    multiplications: float
    bytes: float


@dataclass(frozen=True)
class Least:
    """The minimum work of one run."""

    multiplications: float
    """Of matrix products; infinite if the graph has products that are not counted."""
    bytes: int
    """The weights, once each (of an embedding table the used rows), the inputs and the outputs."""

    def seconds(self, limits: Limits) -> float:
        """The maximum of both: arithmetic and memory can overlap."""
        return max(self.multiplications / limits.multiplications, self.bytes / limits.bytes)

    def bound(self, limits: Limits) -> str:
        """Which of the two is the maximum."""
        arithmetic = self.multiplications / limits.multiplications
        return "arithmetic" if arithmetic > self.bytes / limits.bytes else "memory"


def synchronize(device: torch.device) -> None:
    """Waits until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits_of(device: torch.device, dtype: torch.dtype) -> Limits:
    """The best rates of a square matmul and of a copy in the device's memory."""
    with torch.inference_mode():
        return Limits(
            max(_product_rate(device, dtype, side) for side in _SIDES[device.type]), _copy_rate(device, dtype)
        )


def _product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / _shortest(lambda: products(a, b), device)


def _copy_rate(device: torch.device, dtype: torch.dtype) -> float:
    source = torch.ones(_COPIED[device.type] // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest(lambda: target.copy_(source), device)  # read and write


def _shortest(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest try, after a warm-up."""
    found: list[float] = []
    for _ in range(_TRIES + 1):
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def least_of(encoder: Program, inputs: dict[str, Any]) -> Least:
    """The minimum work of a run of `encoder` over `inputs`, counted by running it node by node."""
    total, weights, env = 0.0, _Weights(), dict(inputs)
    with torch.inference_mode():
        for node, env in each(encoder, inputs):
            total += multiplications(encoder, node, env)
            if node.op == "module":
                weights.of_layer(descend(encoder, path(str(node.attrs["module"]))), env, node.inputs[0])
            elif node.op in ("parameter", "constant"):
                weights.whole(env[node.name])
        outputs = encoder(**inputs)
    return Least(total, weights.bytes() + _bytes(inputs) + _bytes(outputs))


class _Weights:
    """The weights that a run uses, deduplicated."""

    def __init__(self) -> None:
        self._whole: dict[int, int] = {}
        self._rows: dict[int, tuple[int, list[Tensor]]] = {}

    def whole(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._whole[value.data_ptr()] = value.nbytes

    def of_layer(self, layer: torch.nn.Module, env: dict[str, Any], operand: Any) -> None:
        if isinstance(layer, Embedding):
            row = layer.embedding_dim * layer.weight.itemsize
            self._rows.setdefault(layer.weight.data_ptr(), (row, []))[1].append(env[operand].flatten().long())
            return
        for value in layer.state_dict().values():
            self.whole(value)

    def bytes(self) -> int:
        gathered = sum(row * torch.cat(ids).unique().numel() for row, ids in self._rows.values())
        return gathered + sum(self._whole.values())


def _bytes(values: dict[str, Any]) -> int:
    return sum(value.nbytes for value in values.values() if isinstance(value, Tensor))
