"""Activations inside the formula of a layer: which one it is, and of what."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Nodes, Number, Pattern, square, zero

_X = Any_("x")
_SLOPE = Number(name="slope")
_HALF_X = 0.5 * _X
_CUBE = Apply("pow", _X, 3) | _X * square(_X) | Apply("pow", _X, 3.0)
_TANH = Apply("tanh", math.sqrt(2 / math.pi) * (_X + 0.044715 * _CUBE))
_BY_ROOT_2 = _X * math.sqrt(0.5) | _X / math.sqrt(2)
_MINUS_BY_ROOT_2 = (-_X) * math.sqrt(0.5) | (-_X) / math.sqrt(2) | _X * -math.sqrt(0.5)
_HARD = Apply("relu6", _X + 3.0)
_MOVED = _X + 1.0


def _halved(p: Pattern) -> Pattern:
    """`0.5 * x * p`, in every order."""
    return _HALF_X * p | _X * (0.5 * p) | 0.5 * (_X * p)


def _where(condition: str, bound: float, then: Pattern | float, otherwise: Pattern | float) -> Pattern:
    return Apply("where", Apply(condition, _X, bound), then, otherwise)


HARD_SIGMOID = _HARD * (1 / 6) | _HARD / 6.0
WRITTEN_OUT: dict[str, Pattern] = {
    "gelu": _halved(Apply("erfc", _MINUS_BY_ROOT_2)),
    "gelu_erf": _halved(1.0 + Apply("erf", _BY_ROOT_2)),
    "gelu_tanh": _halved(1.0 + _TANH),
    "hard_silu": _X * HARD_SIGMOID,
    "silu": _X * Apply("sigmoid", _X),
    "mish": _X * Apply("tanh", Apply("softplus", _X)),
    "log_sigmoid": -Apply("softplus", -_X),
}
"""Those that a graph writes as several ops, and that are one op of `torch_towers.ops.activations`."""

FORMULAS: dict[str, Pattern] = {
    **{name: Apply(name, _X) for name in ("sigmoid", "tanh", "elu", "selu", "softplus", "softsign")},
    **{name: Apply(name, _X, no_nan=zero) for name in ("relu", "relu6")},
    **{name: Apply(name, _X) for name in ("exp", "softmax", "log_softmax")},
    **WRITTEN_OUT,
    "leaky_relu": Apply("leaky_relu", _X, alpha=lambda alpha: abs(alpha - 0.2) < 1e-6),
    "celu": Apply("maximum", _X, 0.0) + Apply("expm1", Apply("minimum", _X, 0.0)),
    "hard_tanh": Apply("maximum", Apply("minimum", _X, 1.0), -1.0),
    "tanh_shrink": _X - Apply("tanh", _X),
    "hard_shrink": Apply("where", Apply("greater", Apply("abs", _X), 0.5), _X, 0.0),
    "soft_shrink": _where("greater", 0.5, _X - 0.5, _where("less", -0.5, _X + 0.5, 0.0)),
    "sparse_plus": _where("less_equal", -1.0, 0.0, _where("less", 1.0, 0.25 * square(_MOVED), _X)),
    "sparse_sigmoid": _where("less_equal", -1.0, 0.0, _where("greater_equal", 1.0, 1.0, 0.5 * _MOVED)),
    "squareplus": 0.5 * (_X + Apply("sqrt", square(_X) + 4.0)),
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
