"""Infers the dtype and shape of an op's results by running the op itself on meta tensors, at two sets of sizes.

    x: ("batch", 8)   w: (16, 8)   linear(x, w)

The first run uses 3 for "batch", the second 43. The results are (3, 16) and (43, 16): sizes that agree are fixed, and
the one that is 3 and then 43 is "batch", so the result is ("batch", 16). Each dynamic size is a distinct prime, to tell
them apart.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from porting.conversion.values import Constant, Sizes, Value
from torch_towers.errors import InputError
from torch_towers.graph.dtypes import TORCH_DTYPES, dtype_name
from torch_towers.graph.graph import Size
from torch_towers.graph.registry import OPS, Number, Op
from torch_towers.program.shapes import WithoutCompiler

Specs = list[tuple[Any, Any]]
"""The dtype and shape of each result."""

_NO_AXIS = "Dimension out of range"
"""What torch says of an axis that a tensor of this rank has not."""
_PROBES = ((3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41), (43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97))
"""Two assignments of dynamic sizes."""


class SizeExpressions:
    """How the sizes of a graph are computed.

    `reads`: a `size` node -> the dynamic size that it reads; `computed`: a `size_add`, ... node -> its op and operands.
    """

    def __init__(self) -> None:
        self.reads: dict[str, str] = {}
        self.computed: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def leaves(self, symbol: str) -> list[str]:
        """The dynamic sizes that a size depends on."""
        return [found for found in self._computed_from(symbol) if self.operands_of(found) is None]

    def evaluate(self, symbol: str, sizing: Mapping[str, int]) -> int:
        """The value of a size under an assignment of the dynamic sizes."""
        values = dict(sizing)
        for found in self._computed_from(symbol):
            operands = self.operands_of(found)
            if operands is not None and found not in values:
                numbers = [values[item] if isinstance(item, str) else item for item in operands]
                name = self.computed[found][0] if found in self.computed else ""
                values[found] = OPS[name].function(*numbers) if name else numbers[0]
        return values[symbol]

    def operands_of(self, symbol: str) -> tuple[Any, ...] | None:
        """The operands of a computed size; None for a dynamic one."""
        if symbol in self.reads:
            return (self.reads[symbol],)
        return self.computed[symbol][1] if symbol in self.computed else None

    def _computed_from(self, symbol: str) -> list[str]:
        """`symbol` and its dependencies, operands first, each once: arithmetic may be long and share subexpressions."""
        found: dict[str, None] = {}
        pending = [symbol]
        while pending:
            operands = [item for item in self.operands_of(pending[-1]) or () if isinstance(item, str)]
            left = [item for item in operands if item not in found]
            if left:
                pending += left
            else:
                found[pending.pop()] = None
        return list(found)


def infer(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], expressions: SizeExpressions) -> Specs | None:
    """The dtype and shape of each result, or None if unknown. Errors: `InputError` for an axis out of range.

    An op's own rule comes first. If it leaves a size unknown, the op runs on meta tensors too: the size may be a literal.
    """
    told = _told(entry, operands, attrs)
    if entry.stage == "host" or (told is not None and (entry.stage != "tensor" or all(map(_is_whole, told)))):
        return told
    return _probed(entry, operands, attrs, expressions) or told


def _told(entry: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Specs | None:
    """What the op's own rule says; None if it has none."""
    if entry.infer is None:
        return None
    try:
        return list(entry.infer(*[_spec(operand) for operand in operands], **attrs))
    except IndexError as error:
        if _NO_AXIS in str(error):
            raise InputError(str(error)) from error
        raise


def _is_whole(spec: tuple[Any, Any]) -> bool:
    return spec[1] is not None and None not in spec[1]


def _probed(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], expressions: SizeExpressions) -> Specs | None:
    symbols = list(dict.fromkeys(_symbols(operands)))
    leaves = list(dict.fromkeys(leaf for symbol in symbols for leaf in expressions.leaves(symbol)))
    for free in (_distinct(leaves), _equal(leaves), _pinned(leaves, operands), *_single_pins(leaves, operands)):
        sizes = [{**sizing, **{symbol: expressions.evaluate(symbol, sizing) for symbol in symbols}} for sizing in free]
        probes = [_probe(entry, operands, attrs, sizing) for sizing in (sizes if symbols else sizes[:1])]
        if all(probe is not None for probe in probes):
            distinct = len(set(zip(free[0].values(), free[1].values(), strict=True))) == len(leaves)
            return _merge(probes if symbols else probes * 2, sizes, distinct)
    return None


def equal_rows(
    entry: Op, operands: Sequence[Any], attrs: dict[str, Any], result: Any, expressions: SizeExpressions
) -> list[tuple[str, str]]:
    """Pairs of leading sizes that must be equal: those of `operands` if the op requires it, and of results with as many
    rows."""
    tensors = _tensors(operands)
    firsts = list(dict.fromkeys(size for operand in tensors if isinstance(size := operand.shape[0], str)))
    symbols = list(dict.fromkeys(_symbols(operands)))
    if entry.infer is not None or len(firsts) < 2 or any(expressions.operands_of(symbol) for symbol in symbols):
        return []
    if len(symbols) > len(_PROBES[0]) and len(firsts) < len(symbols):
        return []
    rows = [dict.fromkeys(firsts, sizing[firsts[0]]) for sizing in _distinct(symbols)]
    if len(symbols) <= len(_PROBES[0]) and _probe(entry, operands, attrs, _distinct(symbols)[0]) is not None:
        return []
    probes = [_probe(entry, operands, attrs, {**s, **r}) for s, r in zip(_distinct(symbols), rows, strict=True)]
    if any(probe is None for probe in probes):
        return []
    pairs = [(firsts[0], other) for other in firsts[1:]]
    for value, first, second in zip(result if isinstance(result, tuple) else (result,), *probes, strict=True):
        follows = first[1][:1] == (rows[0][firsts[0]],) and second[1][:1] == (rows[1][firsts[0]],)
        if follows and value.shape and isinstance(value.shape[0], str):
            pairs.append((firsts[0], value.shape[0]))
    return pairs


def positional(entry: Op, count: int) -> list[tuple[str, Any]]:
    """The names and annotations of the first `count` operands of an op."""
    found = list(entry.operands)
    if entry.is_variadic:
        found += found[-1:] * (count - len(found))
    return found[:count]


def takes_literal(hint: Any) -> bool:
    return (
        hint is int
        or hint == Number
        or (hint is not None and set(typing.get_args(Number)) <= set(typing.get_args(hint)))
    )


def _spec(operand: Any) -> Any:
    if isinstance(operand, (tuple, list)):
        return tuple(_spec(item) for item in operand)
    if isinstance(operand, (Value, Constant, Sizes)):
        return (operand.dtype, operand.shape)
    return (type(operand).__name__, ())


def _symbols(operands: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for operand in operands:
        if isinstance(operand, (tuple, list)):
            found += _symbols(operand)
        elif isinstance(operand, Value) and operand.dtype == "size":
            found.append(operand.ref)
        elif isinstance(operand, Sizes):
            found += _symbols(operand.items.reshape(-1).tolist())
        elif isinstance(operand, Value) and operand.shape is not None:
            found += [size for size in operand.shape if isinstance(size, str)]
    return found


def _tensors(operands: Sequence[Any]) -> list[Any]:
    """The operands that are tensors of rank 1 or more."""
    nested = [operand if isinstance(operand, (tuple, list)) else (operand,) for operand in operands]
    return [
        item for items in nested for item in items if isinstance(item, Value) and item.dtype != "size" and item.shape
    ]


def _distinct(symbols: list[str]) -> list[dict[str, int]]:
    """Two assignments with a distinct prime per dynamic size, so that a size of the result identifies its source."""
    if len(symbols) > len(_PROBES[0]):
        return _equal(symbols)
    return [dict(zip(symbols, probe, strict=False)) for probe in _PROBES]


def _equal(symbols: list[str]) -> list[dict[str, int]]:
    """Two assignments with all dynamic sizes equal, for ops on tensors whose sizes the model guarantees to be equal."""
    return [dict.fromkeys(symbols, probe[0]) for probe in _PROBES]


def _pinned(symbols: list[str], operands: Sequence[Any]) -> list[dict[str, int]]:
    """Two assignments in which a dynamic size equals the fixed size of another operand at the same axis, if one has one."""
    numbers: dict[str, int] = {}
    shapes = [operand.shape for operand in _tensors(operands)]
    for shape, other in itertools.permutations(shapes, 2):
        for size, number in zip(reversed(shape), reversed(other), strict=False):  # broadcasting aligns the last axes
            if isinstance(size, str) and isinstance(number, int) and number != 1:
                numbers.setdefault(size, number)
    return [{**sizing, **{name: n for name, n in numbers.items() if name in sizing}} for sizing in _distinct(symbols)]


def _single_pins(symbols: list[str], operands: Sequence[Any]) -> Iterator[list[dict[str, int]]]:
    """Pairs of assignments in which one dynamic size equals a fixed one of another operand at any axis: as the inner sizes of
    a product do, the channels of a convolution, or the letters of an einsum."""
    shapes = [operand.shape for operand in _tensors(operands)]
    for symbol in symbols:
        others = [shape for shape in shapes if symbol not in shape]
        for number in dict.fromkeys(size for shape in others for size in shape if isinstance(size, int) and size > 1):
            yield [{**sizing, symbol: number} for sizing in _distinct(symbols)]


def _probe(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], sizing: dict[str, int]) -> Any:
    """Runs the op on meta tensors under one assignment; None if that is impossible.

    Constants are meta tensors too, unless the op reads their values.
    """
    found = _tried(entry, operands, attrs, sizing, device="meta")
    return _tried(entry, operands, attrs, sizing, device="cpu") if found is None else found


def _tried(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], sizing: dict[str, int], device: str) -> Any:
    try:
        metas = [
            _meta(operand, hint, sizing, device)
            for operand, (_, hint) in zip(operands, positional(entry, len(operands)), strict=True)
        ]
        extra = {"device": torch.device("meta")} if entry.takes_device else {}
        with torch.no_grad(), WithoutCompiler():
            result = entry.function(*metas, **attrs, **extra)
    except IndexError as error:
        if _NO_AXIS not in str(error):
            return None
        raise InputError(str(error)) from error  # by the rank alone, whatever the sizes are
    except Exception:
        return None
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(item, torch.Tensor) for item in results):
        return None
    moves_strings = any(dtype == "string" for dtype in _dtypes(operands))
    return [
        ("string" if moves_strings and item.dtype == torch.int8 else dtype_name(item), tuple(item.shape))
        for item in results
    ]


def _dtypes(operands: Sequence[Any]) -> list[str | None]:
    nested = [operand if isinstance(operand, (tuple, list)) else (operand,) for operand in operands]
    return [getattr(item, "dtype", None) for items in nested for item in items]


class _UnknownError(Exception):
    """Too little is known of an operand to create a dummy."""


_STRING_STAND_IN = torch.int8
"""Represents strings on the meta device: ops that move strings return this dtype."""


def _meta(operand: Any, hint: Any, sizing: dict[str, int], device: str) -> Any:
    """A dummy for an operand; `device` is that of constants."""
    if isinstance(operand, (tuple, list)):
        return tuple(_meta(item, hint, sizing, device) for item in operand)
    if isinstance(operand, Sizes):
        items = [_meta(item, int, sizing, device) for item in operand.items.reshape(-1).tolist()]
        tensor = torch.tensor(items, dtype=TORCH_DTYPES[operand.dtype]).reshape(operand.shape)
        return tensor.item() if hint is int else tensor.to(device)
    if isinstance(operand, Constant):
        if not isinstance(operand.array, torch.Tensor):
            return torch.empty(operand.shape, dtype=_STRING_STAND_IN, device="meta")
        if operand.shape == () and takes_literal(hint):
            return operand.python()
        return operand.array.to("meta" if operand.array.numel() > 64 else device)
    if isinstance(operand, Value):
        if operand.dtype == "size":
            return sizing[operand.ref]
        dtype = _STRING_STAND_IN if operand.dtype == "string" else TORCH_DTYPES.get(operand.dtype or "")
        if operand.shape is None or dtype is None:
            raise _UnknownError
        shape = [sizing[size] if isinstance(size, str) else size for size in operand.shape]
        return torch.empty(typing.cast(Any, shape), dtype=dtype, device="meta")
    return operand


def _merge(probes: list[Any], sizings: list[dict[str, int]], distinct: bool) -> list[tuple[Any, Any]] | None:
    """Merges two runs: equal sizes are fixed, sizes that follow a symbol get its name, others are unknown."""
    merged: list[tuple[Any, Any]] = []
    for (dtype, first), (_, second) in zip(*probes, strict=True):
        if len(first) != len(second):
            merged.append((dtype, None))
            continue
        merged.append((dtype, tuple(_merged_size(a, b, sizings, distinct) for a, b in zip(first, second, strict=True))))
    return merged


def _merged_size(a: int, b: int, sizings: list[dict[str, int]], distinct: bool) -> Size:
    if a == b:
        return a
    if not distinct:
        return None  # all dynamic sizes were equal, so they cannot be told apart
    return next((name for name in sizings[0] if (sizings[0][name], sizings[1][name]) == (a, b)), None)
