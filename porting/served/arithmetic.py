"""The rewrites of TensorFlow's arithmetic optimizer.

Source: tensorflow/core/grappler/optimizers/arithmetic_optimizer.cc (ConvertPow, ConvertLog1p, ConvertExpm1, LogSoftmax,
SqrtDivToRsqrtMul, RemoveInvolution).
"""

from __future__ import annotations

from porting.served.draft import Draft
from torch_towers.graph.dtypes import FLOATS

_POWERS = {2.0: "Square", 0.5: "Sqrt", -0.5: "Rsqrt", -1.0: "Reciprocal", 1.0: "Identity"}


def power(draft: Draft, name: str) -> bool:
    """`x ** c` for exponents with their own op: `-inf ** 0.5` is NaN then, not inf. `x ** 3` becomes `x *
    square(x)`."""
    node = draft.nodes[name]
    if node.op != "Pow" or draft.value(node.inputs[0]) is not None:
        return False
    x, exponent = node.inputs[0], draft.scalar(node.inputs[1])
    if exponent == 3.0:
        square = draft.insert(name, "square", "Square", (x,), {"T": draft.dtype(name)})
        return draft.become(name, "Mul", x, square)
    if exponent not in _POWERS or (exponent not in (1.0, 2.0) and draft.dtype(name) not in FLOATS):
        return False
    return draft.become(name, _POWERS[exponent], x)


def log1p(draft: Draft, name: str) -> bool:
    """`log(x + 1)` becomes `log1p(x)`, also if others read the sum."""
    node = draft.nodes[name]
    added = draft.node(node.inputs[0], "Add", "AddV2") if node.op == "Log" else None
    if added is None or draft.value(name) is not None:
        return False
    for x, one in (added.inputs, added.inputs[::-1]):
        if draft.scalar(one) == 1.0:
            return draft.become(name, "Log1p", x)
    return False


def expm1(draft: Draft, name: str) -> bool:
    """`exp(x) - 1` becomes `expm1(x)`, also if others read the exponential."""
    node = draft.nodes[name]
    raised = draft.node(node.inputs[0], "Exp") if node.op == "Sub" else None
    if raised is None or draft.scalar(node.inputs[1]) != 1.0 or draft.value(name) is not None:
        return False
    return draft.become(name, "Expm1", raised.inputs[0])


def division_by_root(draft: Draft, name: str) -> bool:
    """`x / sqrt(y)` becomes `x * rsqrt(y)`, if nothing else reads the square root."""
    node = draft.nodes[name]
    if node.op not in ("Div", "RealDiv", "Xdivy"):
        return False
    root = draft.node(node.inputs[1], "Sqrt")
    if root is None or draft.users(root.name) > 1 or draft.value(root.name) is not None:
        return False
    draft.become(root.name, "Rsqrt", *root.inputs)
    if node.op == "Xdivy":
        return draft.become(name, "MulNoNan", root.name, node.inputs[0])
    return draft.become(name, "Mul", node.inputs[0], root.name)


def log_softmax(draft: Draft, name: str) -> bool:
    """`log(softmax(x))` becomes `log_softmax(x)`, if nothing else reads the softmax."""
    node = draft.nodes[name]
    shares = draft.node(node.inputs[0], "Softmax") if node.op == "Log" else None
    if shares is None or draft.users(shares.name) > 1:
        return False
    return draft.become(name, "LogSoftmax", *shares.inputs)


def inverse_of_inverse(draft: Draft, name: str) -> bool:
    """`1 / (1 / x)` becomes `x`."""
    inner = _inverted(draft, name)
    x = None if inner is None else _inverted(draft, draft.source(inner))
    return x is not None and draft.value(x) is None and draft.become(name, "Identity", x)


def _inverted(draft: Draft, ref: str) -> str | None:
    """The operand `x` if `ref` is `1 / x`."""
    node = draft.node(ref, "Reciprocal", "Inv", "RealDiv", "Div")
    if node is None or draft.dtype(node.name) not in FLOATS:
        return None
    if node.op in ("Reciprocal", "Inv"):
        return node.inputs[0]
    return node.inputs[1] if draft.scalar(node.inputs[0]) == 1.0 else None


ARITHMETIC = (power, log1p, expm1, division_by_root, log_softmax, inverse_of_inverse)
