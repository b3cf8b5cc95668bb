"""Patterns: formulas that match a layer among the ops of a graph. `x * rsqrt(var + eps)` is written just like that.

Patterns match a normal form: operands of `add`, `mul`, `maximum`, ... in any order, `x - y` as `x + (-y)`, and
literals, scalar constants and splats as the same number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import Node, node_of

COMMUTATIVE = frozenset(
    """add mul maximum minimum equal logical_and logical_or squared_difference size_add size_mul size_min
    size_max""".split()  # noqa: SIM905
)
SOURCES = frozenset({"parameter", "constant"})


class Nodes(Protocol):
    """What a pattern needs: nodes by name, and constants' values."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...

    @property
    def store(self) -> Mapping[str, Any]: ...

    def dtype(self, ref: Any) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Match:
    """The result of a match: operands and numbers by pattern name, and the covered nodes.

    `dtype` is the precision of the node whose operands are being matched: that of its literals.
    """

    found: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nodes: tuple[str, ...] = ()
    dtype: str = "float32"

    def __getitem__(self, name: str) -> Any:
        return self.found[name]

    def get(self, name: str) -> Any:
        """The binding of `name`, None if the matched alternative has no such part."""
        return self.found.get(name)

    def bind(self, name: str, value: Any) -> Match | None:
        """With `name` bound to `value`; None if it is already bound to something else."""
        if not name:
            return self
        if name in self.found:
            return self if self.found[name] == value else None
        return replace(self, found={**self.found, name: value})

    def cover(self, node: Node) -> Match:
        return replace(self, nodes=(*self.nodes, node.name))


class Refusal(Exception):  # noqa: N818  (no error: what it says is part of the report)
    """A pattern matched, but lifting it could change a number or a name, for the given reason. Raised before anything
    is written."""


class Pattern:
    """A formula. `p.find(nodes, operand, match)` yields every match of `operand`."""

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        raise NotImplementedError

    def negated(self) -> Pattern | None:
        """A pattern `q` such that `p` matches `-x` iff `q` matches `x`. None if there is none."""
        return None

    def roots(self) -> frozenset[str]:
        """The ops whose results the pattern can match; empty for any op."""
        return frozenset()

    def __add__(self, other: Pattern | float) -> Pattern:
        return Sum(self, _pattern(other))

    def __radd__(self, other: float) -> Pattern:
        return Sum(_pattern(other), self)

    def __sub__(self, other: Pattern | float) -> Pattern:
        return Sum(self, Negative(_pattern(other)))

    def __mul__(self, other: Pattern | float) -> Pattern:
        return Product(self, _pattern(other))

    def __rmul__(self, other: float) -> Pattern:
        return Product(_pattern(other), self)

    def __truediv__(self, other: Pattern | float) -> Pattern:
        return Apply("div", self, _pattern(other))

    def __neg__(self) -> Pattern:
        return Negative(self)

    def __or__(self, other: Pattern) -> Pattern:
        return Either(self, other)


def _pattern(value: Pattern | float) -> Pattern:
    return value if isinstance(value, Pattern) else Number(value)


@dataclass(frozen=True)
class Any_(Pattern):  # noqa: N801
    """Any value. Equal names match the same value."""

    name: str

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        if isinstance(operand, str) and (bound := match.bind(self.name, operand)):
            yield bound


@dataclass(frozen=True)
class Size(Pattern):
    """Any operand: a value, or a literal. Equal names match the same operand."""

    name: str

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        if (bound := match.bind(self.name, operand)) is not None:
            yield bound


@dataclass(frozen=True)
class Source(Pattern):
    """A weight or a constant tensor, bound to its reference."""

    name: str
    ops: frozenset[str] = SOURCES

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is not None and node.op in self.ops and (bound := match.bind(self.name, operand)):
            yield bound


def Weight(name: str) -> Pattern:  # noqa: N802
    """A weight, bound to its reference."""
    return Source(name, frozenset({"parameter"}))


@dataclass(frozen=True)
class Number(Pattern):
    """A number: equal to `value` (at the graph's precision) if given, else any, bound to `name`."""

    value: float | None = None
    name: str = ""
    sign: int = 1

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        value = number(nodes, operand)
        if value is None:
            return
        value = value * self.sign if self.sign < 0 else value
        if (self.value is None or same(value, self.value, match.dtype)) and (bound := match.bind(self.name, value)):
            node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
            yield bound if node is None or node.op in SOURCES else bound.cover(node)

    def negated(self) -> Pattern:
        return replace(self, sign=-self.sign)


@dataclass(frozen=True)
class Apply(Pattern):
    """One op with matching operands. `attrs` must be equal, or satisfy the given function; `bind` names the node."""

    op: str
    operands: tuple[Pattern, ...]
    attrs: Mapping[str, Any]
    name: str

    def __init__(self, op: str, *operands: Pattern | float, name: str = "", **attrs: Any) -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "operands", tuple(map(_pattern, operands)))
        object.__setattr__(self, "attrs", attrs)
        object.__setattr__(self, "name", name)

    def roots(self) -> frozenset[str]:
        return frozenset({self.op})

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is None or node.op != self.op or not self._accepts(node):
            return
        bound = match.bind(self.name, node.name)
        if bound is None:
            return
        dtype = next((found for ref in node.inputs if (found := nodes.dtype(ref)) in FLOATS), match.dtype)
        for inputs in orders(node):
            yield from find_all(nodes, self.operands, inputs, replace(bound.cover(node), dtype=dtype))

    def _accepts(self, node: Node) -> bool:
        return all(
            wanted(node.attrs.get(key)) if callable(wanted) else key in node.attrs and node.attrs[key] == wanted
            for key, wanted in self.attrs.items()
        )


def find_all(nodes: Nodes, patterns: tuple[Pattern, ...], operands: tuple[Any, ...], match: Match) -> Iterator[Match]:
    """Every match of all patterns with their operands; surplus operands are ignored."""
    if len(operands) < len(patterns):
        return
    if not patterns:
        yield match
        return
    for first in patterns[0].find(nodes, operands[0], match):
        yield from find_all(nodes, patterns[1:], operands[1:], replace(first, dtype=match.dtype))


def orders(node: Node) -> list[tuple[Any, ...]]:
    """The operands of `node`, in both orders if it is commutative."""
    if node.op in COMMUTATIVE and len(node.inputs) == 2 and node.inputs[0] != node.inputs[1]:
        return [node.inputs, (node.inputs[1], node.inputs[0])]
    return [node.inputs]


@dataclass(frozen=True)
class Sum(Pattern):
    """`a + b` in all forms: `a - (-b)`, `b - (-a)`."""

    a: Pattern
    b: Pattern

    def roots(self) -> frozenset[str]:
        return frozenset({"add", "sub"})

    @cached_property
    def _forms(self) -> tuple[Pattern, ...]:
        differences = ((self.a, self.b.negated()), (self.b, self.a.negated()))
        return (
            Apply("add", self.a, self.b),
            *(Apply("sub", left, right) for left, right in differences if right is not None),
        )

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        for form in self._forms:
            yield from form.find(nodes, operand, match)


@dataclass(frozen=True)
class Negative(Pattern):
    """`-p` in all forms: `neg(p)`, a negative number, or a product with one negative factor."""

    inner: Pattern

    def roots(self) -> frozenset[str]:
        negated = self.inner.negated()
        return frozenset({"neg"}) | (negated.roots() if negated is not None else frozenset())

    @cached_property
    def _forms(self) -> tuple[Pattern, ...]:
        forms: list[Pattern] = [Apply("neg", self.inner)]
        if isinstance(self.inner, Number):
            forms.append(self.inner.negated())
        if isinstance(self.inner, Product):
            forms.append(Apply("mul", Negative(self.inner.a), self.inner.b))
            forms.append(Apply("mul", self.inner.a, Negative(self.inner.b)))
        return tuple(forms)

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        for form in self._forms:
            yield from form.find(nodes, operand, match)

    def negated(self) -> Pattern:
        return self.inner


@dataclass(frozen=True)
class Product(Pattern):
    """`a * b`."""

    a: Pattern
    b: Pattern

    def roots(self) -> frozenset[str]:
        return frozenset({"mul"})

    @cached_property
    def _form(self) -> Pattern:
        return Apply("mul", self.a, self.b)

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        return self._form.find(nodes, operand, match)

    def negated(self) -> Pattern | None:
        return None if self.a.negated() is None and self.b.negated() is None else Negative(self)


@dataclass(frozen=True)
class Either(Pattern):
    """One of several formulas, tried in order."""

    options: tuple[Pattern, ...]

    def __init__(self, *options: Pattern) -> None:
        flat = [part for option in options for part in (option.options if isinstance(option, Either) else (option,))]
        object.__setattr__(self, "options", tuple(flat))

    def roots(self) -> frozenset[str]:
        parts = [option.roots() for option in self.options]
        every: set[str] = {op for part in parts for op in part} if all(parts) else set()
        return frozenset(every)

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        for option in self.options:
            yield from option.find(nodes, operand, match)


@dataclass(frozen=True)
class Where(Pattern):
    """A pattern with a condition on the match."""

    inner: Pattern
    condition: Callable[[Any, Any], bool]

    def roots(self) -> frozenset[str]:
        return self.inner.roots()

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        if self.condition(nodes, operand):
            yield from self.inner.find(nodes, operand, match)


def square(p: Pattern) -> Pattern:
    """`p²` in all forms."""
    return Apply("square", p) | Apply("mul", p, p) | Apply("pow", p, 2)


def number(nodes: Nodes, operand: Any) -> float | None:
    """The number if `operand` is a literal or a splat constant, else None."""
    if isinstance(operand, (bool, int, float)):
        return operand
    node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
    if node is not None and node.op in ("zeros_like", "ones_like"):
        return int(node.op == "ones_like")
    if node is not None and node.op in ("broadcast_to", "reshape", "squeeze", "unsqueeze"):
        return number(nodes, node.inputs[0])
    if node is not None and node.op in ("reduce_sum", "conv"):
        parts = node.inputs[: 2 if node.op == "conv" else 1]
        return 0 if all(number(nodes, part) == 0 for part in parts) else None
    value = constant(nodes, operand)
    if not isinstance(value, Tensor) or not value.numel() or value.is_complex():
        return None
    first = value.reshape(-1)[0]
    if value.numel() > 1 and not bool((value == first).all()):
        return None
    return first.item()


def constant(nodes: Nodes, operand: Any) -> Any:
    """The value of a constant: a tensor or an array of bytes; None for computed values and weights."""
    node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
    return nodes.store[str(node.attrs["tensor"])] if node is not None and node.op == "constant" else None


def same(a: float, b: float, dtype: str) -> bool:
    """Equal, or equal after rounding to `dtype`. In float64 the last bits may come from another libm."""
    if a == b:
        return True
    if dtype == "float64":
        return math.isclose(a, b, rel_tol=2.0**-51)
    return bool(torch.tensor(float(a), dtype=TORCH_DTYPES[dtype]) == torch.tensor(float(b), dtype=TORCH_DTYPES[dtype]))


def zero(value: Any) -> bool:
    """Accepts an attribute that is 0, False, or absent."""
    return not value
