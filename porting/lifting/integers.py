"""What integers of a graph can be: their bounds, and which are the splits of a row partition.

Results of lookups, hashes, buckets and tokenizers have known bounds. Row splits start with 0, ascend, and end with the number
of values that they part; the lengths of rows are not negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from porting.lifting.patterns import number
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.elementwise import ELEMENTWISE
from torch_towers.graph.graph import ModuleSpec, Node, node_of
from torch_towers.layers.sentencepiece import SentencepieceIds

Range = tuple[int, int]
_INTEGERS = ("int32", "int64", "size")
Count = tuple[str, str, int]
"""A number of values: ("length", a vector, and how much more), or ("sum", lengths or the splits made of them, and more)."""


@dataclass(frozen=True)
class Partition:
    """The result of an op or layer that is row splits.

    `parts`: results whose length, and how much more, is the last of the splits; `rows`: the operand whose length, and how much
    more, is the number of the splits.
    """

    splits: int
    parts: tuple[tuple[int, int], ...]
    rows: tuple[int, int] | None = None


_CODEPOINTS = (Partition(1, ((0, 0),)), Partition(4, ((2, 0), (3, 0), (1, -1)), rows=(1, 0)))
PARTITIONS: dict[str, tuple[Partition, ...]] = {
    "unicode_decode": (Partition(0, ((1, 0), (2, 0)), rows=(0, 1)),),
    "unicode_script_tokenize": _CODEPOINTS,
    "whitespace_tokenize_codepoints": _CODEPOINTS,
    "whitespace_tokenize": (Partition(1, ((0, 0), (2, 0), (3, 0)), rows=(0, 1)),),
    "regex_split_with_offsets": (Partition(3, ((0, 0), (1, 0), (2, 0)), rows=(0, 1)),),
    "byte_split": (Partition(1, ((0, 0), (2, 0), (3, 0)), rows=(0, 1)),),
    "ragged_range": (Partition(0, ((1, 0),)),),
    "WordpieceTokenizer": (Partition(1, ((0, 0), (2, 0), (3, 0)), rows=(0, 1)),),
    "FastWordpieceTokenizer": (Partition(2, ((0, 0), (1, 0), (3, 0), (4, 0)), rows=(0, 1)),),
    "SentencepieceTokenizer": (Partition(1, ((0, 0),)),),
}
"""The row splits that ops and layers give."""


_KEEPS_VALUES = frozenset(
    {"reshape", "squeeze", "unsqueeze", "transpose", "slice", "select", "broadcast_to", "in_range", "gather"}
)
"""Ops whose results are values of their first operand."""
_MAX_DEPTH = 30


def bounds_of(view: View, operand: Any) -> Range | None:
    """The minimum and maximum of an operand's integers; None if unknown."""
    return Integers(view).bounds(operand)


def lengths_behind(view: View, splits: Any) -> Any:
    """The lengths of rows whose sums are `splits`, written as `[0, *cumsum(lengths)]`; else None."""
    node = view.node(splits)
    if node is None or node.op != "concat" or len(node.inputs) != 2:
        return None
    first, rest = node.inputs[0], view.node(node.inputs[1])
    if view.shape(first) != (1,) or number(view, first) != 0 or rest is None or rest.op != "cumsum":
        return None
    return None if rest.attrs.get("exclusive") or rest.attrs.get("reverse") else rest.inputs[0]


def splits_behind(view: View, lengths: Any) -> Any:
    """The splits whose differences are `lengths`, written as `splits[1:] - splits[:-1]`; else None."""
    node = view.node(lengths)
    parts = [view.node(ref) for ref in node.inputs] if node is not None and node.op == "sub" else []
    ends = [(part.op, *part.inputs[1:], part.attrs.get("step")) for part in parts if part is not None]
    if node is None or ends != [("slice", 1, None, 1), ("slice", 0, -1, 1)]:
        return None
    of, other = (part.inputs[0] for part in parts if part is not None)
    return of if of == other and view.rank(of) == 1 else None


_Method = TypeVar("_Method", bound=Callable[["Integers", Any], Any])


def _remembered(method: _Method) -> _Method:
    """Answers each question once, and None to those that follow from too many others: a file's graph may be of any depth."""

    def answer(self: Integers, ref: Any) -> Any:
        key = (method.__name__, ref)
        if key not in self.answers and self.depth < _MAX_DEPTH:
            self.depth += 1
            self.answers[key] = method(self, ref)
            self.depth -= 1
        return self.answers.get(key)

    return cast("_Method", answer)


class Integers:
    """What is known of the integers of a graph as it is now."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.answers: dict[tuple[str, Any], Any] = {}
        self.depth = 0

    # -- bounds -----------------------------------------------------------------------------------------------------------

    def bounds(self, operand: Any) -> Range | None:
        """The minimum and maximum of an operand's integers; None if unknown."""
        value = number(self._view, operand)
        if value is not None:
            return (int(value), int(value)) if float(value).is_integer() else None
        return self._of_value(operand)

    @_remembered
    def _of_value(self, operand: Any) -> Range | None:
        view, node = self._view, self._view.node(operand)
        while node is not None and node.op in _KEEPS_VALUES:
            if node.op == "select" and node.inputs[1] == 0 and self.are_splits(node.inputs[0]):
                return 0, 0
            operand = node.inputs[0]
            node = view.node(operand)
        if node is None:
            return None
        if node.op == "constant":
            return _of_constant(view.constant(operand))
        if node.op in ("cast", "to_integer"):
            return _within(self.bounds(node.inputs[0]), str(node.attrs["dtype"]))
        if node.op == "add":
            return self._of_sum(operand, node)
        if node.op == "floor_mod" and view.dtype(operand) in _INTEGERS:
            divisor = self.bounds(node.inputs[1])
            return (0, divisor[1] - 1) if divisor is not None and divisor[0] > 0 else None
        if node.op == "ragged_to_tensor":
            return _union(map(self.bounds, node.inputs[:2]))
        if node.op == "where" and len(node.inputs) == 3:
            return _union(map(self.bounds, node.inputs[1:]))
        if self._counts(operand, node):
            return 0, limits_of("int64")[1]
        return _of_module(view, view.modules[str(node.attrs["module"])], operand) if node.op == "module" else None

    def _of_sum(self, operand: str, node: Node) -> Range | None:
        parts = [self.bounds(part) for part in node.inputs]
        sums = (
            None if None in parts else (sum(part[0] for part in parts if part), sum(part[1] for part in parts if part))
        )
        return _within(sums, self._view.dtype(operand))

    def _counts(self, operand: str, node: Node) -> bool:
        """Whether the values count, from 0, something that is in memory."""
        if self._view.dtype(operand) not in ("int64", "size"):
            return False
        if node.op in ("size", "where_true") or self.are_splits(operand):
            return True
        if node.op == "sizes_tensor":
            return all(map(self._is_from_zero, node.inputs))
        if node.op == "sub":
            return self.are_splits(splits_behind(self._view, operand))
        return node.op == "cumsum" and self._is_from_zero(node.inputs[0])

    def _is_from_zero(self, operand: Any) -> bool:
        bounds = None if operand is None else self.bounds(operand)
        return bounds is not None and bounds[0] >= 0

    # -- row partitions ---------------------------------------------------------------------------------------------------

    @_remembered
    def are_splits(self, operand: Any) -> bool:
        """Whether an operand is known to be row splits."""
        node, found = self._view.node(operand), self._partition(operand)
        if node is None:
            return False
        if found is not None:
            return self._partitions(node) is not _CODEPOINTS or self.are_splits(node.inputs[1])
        if self._is_composed(node):
            return True
        return self._view.dtype(operand) == "int64" and self._is_from_zero(lengths_behind(self._view, operand))

    def _is_composed(self, node: Node) -> bool:
        """Whether splits are `inner[outer]`: rows of rows, as the rows that they have in all."""
        if node.op != "gather" or not all(map(self.are_splits, (node.inputs[0], self._checked(node.inputs[1])))):
            return False
        last = self.last(self._checked(node.inputs[1]))
        return last is not None and self.length(node.inputs[0]) == more_than(last, 1)

    def _checked(self, ref: Any) -> Any:
        node = self._view.node(ref)
        return node.inputs[0] if node is not None and node.op == "in_range" else ref

    def _partitions(self, node: Node) -> tuple[Partition, ...]:
        if node.op != "module":
            return PARTITIONS.get(node.op, ())
        spec = self._view.modules[str(node.attrs["module"])]
        return PARTITIONS.get(spec.type, ()) if spec.args.get("row_splits", True) else ()

    def _partition(self, ref: Any) -> Partition | None:
        """What an op that gives `ref` as splits says of them."""
        node = self._view.node(ref)
        parts = self._partitions(node) if node is not None else ()
        return next((part for part in parts if ref == f"{node_of(ref)}:{part.splits}"), None)

    @_remembered
    def count(self, ref: Any) -> Count | None:
        """A number that is the length of a vector, or the last of row splits, and how much more."""
        node = self._view.node(ref)
        if node is None:
            return None
        if node.op == "sizes_tensor" and node.attrs.get("scalar"):
            return self.count(node.inputs[0])
        if node.op == "size" and node.attrs["axis"] == 0:
            return self.length(str(node.inputs[0]))
        if node.op == "size_sub" and isinstance(node.inputs[1], int):
            return more_than(self.count(node.inputs[0]), -node.inputs[1])
        if node.op == "select" and node.inputs[1] == -1 and self.are_splits(node.inputs[0]):
            return self.last(node.inputs[0])
        return None

    @_remembered
    def last(self, splits: Any) -> Count | None:
        """The last of row splits."""
        node, lengths = self._view.node(splits), lengths_behind(self._view, splits)
        if node is None:
            return None
        if node.op == "gather":  # rows of rows
            return self.last(node.inputs[0])
        if node.op == "ragged_range" and [number(self._view, node.inputs[at]) for at in (0, 2)] == [0, 1]:
            lengths = node.inputs[1] if self._view.rank(node.inputs[1]) == 1 else None
        return self._sum(splits if lengths is None else lengths)

    def end(self, ref: Any) -> Count | None:
        """The number that all of a vector's are below: of places in another vector, or of the splits that part it."""
        node = self._view.node(ref)
        while node is not None and node.op in {"repeat_rows", *_KEEPS_VALUES} and not self.are_splits(ref):
            ref, node = node.inputs[0], self._view.node(node.inputs[0])
        if node is not None and node.op == "arange" and node.inputs[::2] == (0, 1):
            return self.count(node.inputs[1])
        return more_than(self.last(ref), 1) if self.are_splits(ref) else None

    @_remembered
    def length(self, vector: str) -> Count | None:
        """The length of a vector."""
        node = self._view.node(vector)
        if node is None:
            return "length", vector, 0
        for partition in self._partitions(node):
            last = self.last(f"{node.name}:{partition.splits}")
            more = {f"{node.name}:{result}": more for result, more in partition.parts}
            if vector in more and last is not None:
                return more_than(last, -more[vector])
            if vector == f"{node.name}:{partition.splits}" and partition.rows is not None:
                operand, more_rows = partition.rows
                return more_than(self.length(str(node.inputs[operand])), more_rows)
        return self._as_long(node) or self._as_counted(vector, node) or ("length", vector, 0)

    def _as_counted(self, vector: str, node: Node) -> Count | None:
        """The length that follows from a number, or from that of another vector."""
        if node.op == "arange" and node.inputs[::2] == (0, 1):
            return self.count(node.inputs[1])
        if node.op == "broadcast_to" and len(node.inputs) == 2:
            return self.count(node.inputs[1])
        if node.op == "slice" and self._view.rank(vector) == 1 and self.are_splits(node.inputs[0]):  # never empty
            but_one = node.attrs["step"] == 1 and node.inputs[1:] in ((1, None), (0, -1))
            return more_than(self.length(node.inputs[0]), -1) if but_one else None
        splits, lengths = splits_behind(self._view, vector), lengths_behind(self._view, vector)
        if splits is not None:
            return more_than(self.length(splits), -1)
        return None if lengths is None else more_than(self.length(lengths), 1)

    def _as_long(self, node: Node) -> Count | None:
        """The length that a result has from its operands."""
        if node.op == "gather" and not node.attrs.get("axis") and self._view.rank(node.inputs[1]) == 1:
            return self.length(node.inputs[1])
        if node.op == "repeat_rows":
            return self._sum(node.inputs[1])
        if node.op == "reshape" and node.inputs[1:] == (-1,) and self._view.rank(node.inputs[0]) == 1:
            return self.length(node.inputs[0])
        if node.op not in ELEMENTWISE and node.op != "in_range":
            return None
        ranks = [self._view.rank(ref) for ref in node.inputs]
        lengths = {self.length(ref) for ref, rank in zip(node.inputs, ranks, strict=True) if rank == 1}
        return lengths.pop() if len(lengths) == 1 and {*ranks} <= {0, 1} else None

    def _sum(self, lengths: Any) -> Count:
        """The sum of lengths of rows, at whatever width of integers."""
        node = self._view.node(lengths)
        while node is not None and node.op == "cast":
            lengths, node = node.inputs[0], self._view.node(node.inputs[0])
        return "sum", str(lengths), 0


def more_than(count: Count | None, more: int) -> Count | None:
    """A count and `more`."""
    return None if count is None else (*count[:2], count[2] + more)


def _union(parts: Iterable[Range | None]) -> Range | None:
    known = list(parts)
    least, greatest = [part[0] for part in known if part], [part[1] for part in known if part]
    return (min(least), max(greatest)) if len(least) == len(known) else None


def _within(bounds: Range | None, dtype: str | None) -> Range | None:
    """`bounds`, if a dtype represents all integers between them."""
    if bounds is None or dtype not in TORCH_DTYPES:
        return None
    least, greatest = limits_of(dtype)
    return bounds if least <= bounds[0] and bounds[1] <= greatest else None


def _of_constant(value: Any) -> Range | None:
    if not isinstance(value, Tensor) or not value.numel() or value.dtype not in (torch.int32, torch.int64):
        return None
    return int(value.min()), int(value.max())


def _of_module(view: View, spec: ModuleSpec, ref: str) -> Range | None:
    if spec.type in ("StringLookup", "IntegerLookup") or (
        spec.type == "TextVectorization" and spec.args["output_mode"] == "int"
    ):
        return _ids_of_vocabulary(view, spec)
    if spec.type == "Hashing":
        return 0, int(spec.args["num_bins"]) - 1
    if spec.type == "Discretization":
        return 0, len(spec.args["boundaries"])
    if spec.type == "SentencepieceTokenizer" and ref == f"{node_of(ref)}:0" and not spec.args.get("pieces"):
        return 0, pieces_of(view, spec) - 1
    if spec.type == "SentencepieceRows":
        shift, pad = int(spec.args["shift"]), int(spec.args["pad"])
        return min(shift, pad), max(shift + pieces_of(view, spec) - 1, pad)
    return None


def pieces_of(view: View, spec: ModuleSpec) -> int:
    """The vocabulary size of a SentencePiece model."""
    return int(SentencepieceIds(view.store[str(spec.args["model"])]).processor.GetPieceSize())


def _ids_of_vocabulary(view: View, spec: ModuleSpec) -> Range:
    args: dict[str, Any] = dict(spec.args)
    first, size = int(args["first_id"]), len(view.store[args["vocabulary"]])
    ids = [int(args["oov_id"]), int(args["oov_id"]) + max(int(args.get("oov_buckets", 0)) - 1, 0)]
    ids += [first, first + size - 1] if size else []
    ids += [int(args["mask_id"])] if args.get("mask_token") is not None else []
    ids += [int(args["pad_id"])] if spec.type == "TextVectorization" else []
    return min(ids), max(ids)


def limits_of(dtype: str) -> Range:
    """The range in which a dtype represents all integers; (1, 0) if there is none."""
    if dtype in FLOATS:
        most = round(2 / torch.finfo(TORCH_DTYPES[dtype]).eps)
        return -most, most
    if dtype == "bool" or dtype.startswith("complex"):
        return 1, 0
    info = torch.iinfo(TORCH_DTYPES[dtype])
    return info.min, info.max
