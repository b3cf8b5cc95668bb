"""Activations that a graph spells out become one op, whatever the order of their factors; what is nearly one stays."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.porting.rewrites.by_hand import layer, lifted, ops

X = {"x": ("float32", ("n", 4))}
ROOT_2, SLOPE = math.sqrt(2), math.sqrt(2 / math.pi)


def tanh_gelu(t: Any, x: Any, cube: float = 0.044715) -> Any:
    inner = t.mul(SLOPE, t.add(x, t.mul(cube, t.pow(x, 3.0))))
    return t.mul(t.mul(0.5, x), t.add(1.0, t.tanh(inner)))


FORMULAS: list[tuple[str, dict[str, Any], Any]] = [
    ("gelu", {"form": "tanh"}, tanh_gelu),
    ("gelu", {"form": "erf"}, lambda t, x: t.mul(0.5, t.mul(x, t.add(t.erf(t.div(x, ROOT_2)), 1.0)))),
    ("gelu", {"form": "erfc"}, lambda t, x: t.mul(t.mul(x, 0.5), t.erfc(t.mul(t.neg(x), math.sqrt(0.5))))),
    ("hard_silu", {}, lambda t, x: t.mul(t.mul(t.relu6(t.add(x, 3.0)), 1 / 6), x)),
    ("hard_sigmoid", {}, lambda t, x: t.div(t.relu6(t.add(3.0, x)), 6.0)),
    ("silu", {}, lambda t, x: t.mul(t.sigmoid(x), x)),
    ("mish", {}, lambda t, x: t.mul(x, t.tanh(t.softplus(x)))),
    ("log_sigmoid", {}, lambda t, x: t.neg(t.softplus(t.neg(x)))),
    ("clipped_line", {"slope": 0.2, "offset": 0.5},
     lambda t, x: t.maximum(t.minimum(t.add(t.mul(x, 0.2), 0.5), 1.0), 0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attrs", "write"), FORMULAS, ids=[f"{op} {attrs}" for op, attrs, _ in FORMULAS])
def test_a_formula_is_one_op(op: str, attrs: dict[str, Any], write: Any) -> None:
    found = lifted(write, X)
    assert ops(found) == [op]
    assert dict(found.graph.nodes[-1].attrs) == pytest.approx(attrs)
    assert found.counts == {op: 1}


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x: tanh_gelu(t, x, 0.0447),
        lambda t, x: t.mul(x, t.sigmoid(t.mul(1.702, x))),
        lambda t, x: t.mul(0.5, t.mul(x, t.add(t.erf(x), 1.0))),
        lambda t, x: t.div(t.relu6(t.add(x, 3.0)), 3.0),
        lambda t, x: t.neg(t.softplus(x)),
    ],
)
def test_other_numbers_stay_a_formula(write: Any) -> None:
    assert len(ops(lifted(write, X))) > 1


def prelu(t: Any, x: Any, alpha: Any) -> Any:
    return t.add(t.relu(x), t.mul(t.neg(alpha), t.relu(t.neg(x))))


def test_prelu_has_a_slope_for_each_feature() -> None:
    assert layer(lifted(prelu, X, {"tower.alpha": (4,)})) == ("PReLU", {"num_parameters": 4})
    found = lifted(prelu, X, {"tower.alpha": (1,)})
    assert "its slopes are [1]" in "\n".join(found.refusals)
