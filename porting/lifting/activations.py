"""Activations inside the formula of a layer: which one it is, and of what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Nodes, Number, Pattern, zero

_X = Any_("x")
_SLOPE = Number(name="slope")

FORMULAS: dict[str, Pattern] = {
    **{name: Apply(name, _X) for name in ("sigmoid", "tanh", "elu", "selu", "softplus", "softsign")},
    **{name: Apply(name, _X, no_nan=zero) for name in ("relu", "relu6")},
    "silu": _X * Apply("sigmoid", _X),
    "clipped_line": Apply("maximum", Apply("minimum", _X * _SLOPE + 0.5, 1.0), 0.0)
    | Apply("minimum", Apply("maximum", _X * _SLOPE + 0.5, 0.0), 1.0),
    "hard_sigmoid": Apply("relu6", _X + 3.0, no_nan=zero) * _SLOPE,
    "linear": _X,
}
"""The names of `torch_towers.layers.activations.activation` -> their formulas; the last one matches anything."""


@dataclass(frozen=True)
class Activation(Pattern):
    """Any activation of a value that matches `inner`: its name is bound to `name`, and its slope, if it has one, to
    `slope`."""

    name: str
    inner: Pattern

    def roots(self) -> frozenset[str]:
        inner = self.inner.roots()
        return inner.union(*(formula.roots() for formula in FORMULAS.values())) if inner else inner

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        for kind, formula in FORMULAS.items():
            bound = match.bind(self.name, kind)
            if bound is None:
                continue
            for found in formula.find(nodes, operand, Match(dtype=match.dtype)):
                sloped = bound if found.get("slope") is None else bound.bind("slope", found["slope"])
                if sloped is not None:
                    covered = replace(sloped, nodes=(*sloped.nodes, *found.nodes))
                    yield from self.inner.find(nodes, found["x"], covered)
