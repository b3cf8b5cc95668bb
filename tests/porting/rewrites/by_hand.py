"""Graphs of ops written by hand, lifted, and run both ways: which layer a formula becomes, and which near miss stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from porting.conversion.emitter import Emitter
from porting.lifting.lift import Lifted, lift
from torch_towers.graph.graph import TensorSpec
from torch_towers.program.program import Program

Shape = tuple[Any, ...]


def lifted(
    write: Callable[..., Any],
    inputs: Mapping[str, tuple[str, Shape]],
    weights: Mapping[str, Sequence[int]] | None = None,
    batch: Mapping[str, torch.Tensor] | None = None,
    **constants: torch.Tensor,
) -> Lifted:
    """`write(t, *inputs, *weights)` lifted, and equal to the ops on a batch of three rows within what another order of sums changes."""
    t = Emitter([TensorSpec(name, dtype, shape) for name, (dtype, shape) in inputs.items()])
    generator = torch.Generator().manual_seed(0)
    given = [t.value(name, dtype, shape) for name, (dtype, shape) in inputs.items()]
    for name, shape in (weights or {}).items():
        t.store[name] = torch.randn(*shape, generator=generator)
        given.append(t.parameter(name, "float32", tuple(shape)))
    graph = t.graph({"out": write(t, *given)})
    found = lift(graph, t.store, t.known)
    rows = dict(batch or {})
    for name, (_, shape) in inputs.items():
        sizes = [size if isinstance(size, int) else 3 for size in shape]
        rows.setdefault(name, torch.randn(*sizes, generator=generator))
    with torch.no_grad():
        plain, ours = Program(graph, t.store)(**rows)["out"], Program(found.graph, found.store)(**rows)["out"]
    torch.testing.assert_close(ours, plain, rtol=2**-16, atol=2**-16)
    return found


def layer(found: Lifted) -> tuple[str, dict[str, Any]]:
    """The one module of a lifted graph: its type and its arguments."""
    (spec,) = found.graph.modules.values()
    return spec.type, dict(spec.args)


def ops(found: Lifted) -> list[str]:
    """The ops that compute, in order; weights and constants are left out."""
    return [node.op for node in found.graph.nodes if node.op not in ("parameter", "constant")]
