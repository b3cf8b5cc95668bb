"""TensorFlow's constant folding of arithmetic with a constant operand.

Source: tensorflow/core/grappler/optimizers/constant_folding.cc (SimplifyArithmeticOperations, ReduceDivToReciprocalMul,
ConstantPushDown).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from porting.served.draft import Draft
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_ADDS = ("Add", "AddV2")
_CONTRACTIONS = ("MatMul", "Conv2D", "DepthwiseConv2dNative", "Conv3D")


def neutral_operand(draft: Draft, name: str) -> bool:
    """`x + 0`, `x - 0`, `x * 1` and `x / 1` become `x`, even if `x` is -0; `0 - x` becomes `-x`."""
    node = draft.nodes[name]
    if node.op not in (*_ADDS, "BiasAdd", "Sub", "Mul", "Div", "RealDiv") or draft.value(name) is not None:
        return False
    left, right = node.inputs
    neutral = 1.0 if node.op in ("Mul", "Div", "RealDiv") else 0.0
    if draft.scalar(right) == neutral or (neutral == 0.0 and _no_bias(draft, left, right, node)):
        return draft.become(name, "Identity", left)
    if draft.scalar(left) == neutral and node.op in (*_ADDS, "Mul"):
        return draft.become(name, "Identity", right)
    if draft.scalar(left) == 0.0 and node.op == "Sub":
        return draft.become(name, "Neg", right)
    return False


def _no_bias(draft: Draft, x: str, bias: str, node: Node) -> bool:
    """Whether a constant bias is all zeros."""
    if node.op != "BiasAdd" and (node.op not in _ADDS or draft.node(x, *_CONTRACTIONS) is None):
        return False
    value = draft.value(bias)
    return value is not None and value.ndim == 1 and not bool(value.any())


def division(draft: Draft, name: str) -> bool:
    """`x / c` becomes `x * (1 / c)`, and `xdivy(x, c)` becomes `mul_no_nan(1 / c, x)`, for floats and complex
    numbers."""
    node = draft.nodes[name]
    if node.op not in ("Div", "RealDiv", "Xdivy") or not _is_float(draft.dtype(name)):
        return False
    divisor = draft.value(node.inputs[1])
    if divisor is None or draft.value(node.inputs[0]) is not None:
        return False
    inverse = draft.constant(name, "recip", torch.reciprocal(divisor))
    if node.op == "Xdivy":
        return draft.become(name, "MulNoNan", inverse, node.inputs[0])
    return draft.become(name, "Mul", node.inputs[0], inverse)


class _Kind(NamedTuple):
    """A pair of operations to regroup: the commutative one and its inverse."""

    commutative: tuple[str, ...]
    inverse: tuple[str, ...]


_REGROUPED = ("float32", "float64", "complex64", "complex128")
_KINDS = (_Kind(_ADDS, ("Sub",)), _Kind(("Mul",), ("Div",)))


def regrouping(draft: Draft, name: str) -> bool:
    """`(x + c1) + c2` becomes `x + (c1 + c2)`, and so with every mixture of + and -, or of * and /.

    If a sum or difference has only one constant, `c - (x + y)` becomes `(c - y) - x`. Integers, float16 and bfloat16:
    only pure sums and products.
    """
    parent = draft.nodes[name]
    kind = next((kind for kind in _KINDS if parent.op in (*kind.commutative, *kind.inverse)), None)
    if kind is None:
        return False
    constant = [draft.value(ref) is not None for ref in parent.inputs]
    if sum(constant) != 1:
        return False
    c, below = parent.inputs if constant[0] else parent.inputs[::-1]
    child = draft.node(below, *kind.commutative, *kind.inverse)
    if child is None or draft.users(child.name) > 1:
        return False
    return _regroup(draft, parent, child, kind, c, constant[0])


def _regroup(draft: Draft, parent: Node, child: Node, kind: _Kind, c: str, c_is_left: bool) -> bool:
    leaves = [draft.value(ref) is not None for ref in child.inputs]
    commutes, child_commutes = parent.op in kind.commutative, child.op in kind.commutative
    if all(leaves) or not ((commutes and child_commutes) or draft.dtype(parent.name) in _REGROUPED):
        return False
    operands = tuple(child.inputs)
    if not any(leaves):
        if (commutes and child_commutes) or kind.commutative == ("Mul",) or draft.scalar(c) is None:
            return False  # TensorFlow's arithmetic optimizer undoes it numerically
        operands = tuple(sorted(operands, key=draft.source)) if child_commutes else operands
    y_is_left = leaves[0]
    y, x = operands if y_is_left else operands[::-1]
    flipped = not commutes and c_is_left  # the parent subtracts the child from the constant
    c_away = not commutes and not c_is_left
    x_away = (not child_commutes and y_is_left) != flipped
    y_away = (not child_commutes and not y_is_left) != flipped
    plus = parent.op if commutes else child.op if child_commutes else kind.commutative[0]
    minus = kind.inverse[0]
    draft.become(child.name, minus if c_away != y_away else plus, *((y, c) if c_away else (c, y)))
    outer = minus if x_away or (c_away and y_away) else plus
    return draft.become(parent.name, outer, *((child.name, x) if x_away else (x, child.name)))


def _is_float(dtype: str) -> bool:
    return dtype in FLOATS or dtype.startswith("complex")


CONSTANTS = (neutral_operand, division, regrouping)
