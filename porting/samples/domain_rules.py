"""Rules of `porting.samples.follower` by op: what each op says about the domain of its operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from porting.samples.follower import (
    HANDLERS,
    LENGTH,
    MOVES,
    PIECES,
    ROWS,
    SAME,
    Follower,
    Handler,
    Table,
    Trace,
    Weight,
    loose,
    plain,
)
from porting.samples.serialized_examples import PARSERS, features_of
from porting.saved_model import FunctionRef
from torch_towers.graph.graph import Graph, Node

KEYS = 40  # per table


def rule(*ops: str) -> Callable[[Handler], Handler]:
    def add(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(ops, function))
        return function

    return add


def _first(count: int) -> list[int]:
    return [0]


def _second(count: int) -> list[int]:
    return [1]


MOVES.update(dict.fromkeys(
    ("Reshape", "Transpose", "ExpandDims", "Squeeze", "BroadcastTo", "Tile", "Unpack", "SplitV", "Slice", "StridedSlice",
     "ReverseV2", "Roll", "Pad", "PadV2", "MirrorPad", "GatherV2", "Gather", "GatherNd"), _first))  # fmt: skip
MOVES.update({"Split": _second, "Pack": range, "ConcatV2": lambda count: range(count - 1),
              "Concat": lambda count: range(1, count)})  # fmt: skip
SAME.update({"Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "CheckNumerics", "Floor", "Round", "Rint",
         "Ceil", "Relu", "Abs", "PlaceholderWithDefault", "StringLower", "StringUpper", "StringStrip", "CaseFoldUTF8",
         "NormalizeUTF8", "UnicodeTranscode", "AsString", "TensorListFromTensor"})  # fmt: skip
PIECES.update({"StringSplit", "StringNGrams", "StringJoin", "ReduceJoin", "UnsortedSegmentJoin", "UnicodeDecode", "UnicodeDecodeWithOffsets",
           "RegexSplitWithOffsets", "WhitespaceTokenizeWithOffsets", "WhitespaceTokenizeWithOffsetsV2",
           "UnicodeScriptTokenizeWithOffsets", "RaggedTensorToTensor", "RaggedTensorToSparse", "RaggedGather", "RaggedRange",
           "SparseToDense", "SparseReshape", "SparseFillEmptyRows", "SparseSlice", "SparseConcat", "Unique", "UniqueV2", "DynamicPartition",
           "DynamicStitch", "ParallelDynamicStitch", "BooleanMask", "Where", "TopKV2", "TensorListStack", "TensorArrayGatherV3",
           "RaggedTensorToVariant", "RaggedTensorFromVariant", "ScatterNd"})  # fmt: skip


# -- numbers ----------------------------------------------------------------------------------------------------------------


@rule("Cast")
def cast(follow: Follower, node: Node, operands: list[Any]) -> Any:
    if node.attrs.get("DstT") == "bool":
        follow.note(operands[0], "truths", True)
    return [operands[0]]


@rule("AddV2", "Add", "BiasAdd", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "FloorDiv", "TruncateDiv")
def arithmetic(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """With a constant, elements remain traceable to the input; otherwise tracing ends here."""
    x, y = operands
    swapped = isinstance(x, np.ndarray)
    trace, held = (y, x) if swapped else (x, y)
    if node.op == "Sub" and swapped and held.dtype.kind in "iuf" and np.all(held == 1):
        follow.note(trace, "masks", True)
    if not isinstance(held, np.ndarray) or not isinstance(trace, Trace) or held.dtype.kind not in "iuf":
        for value in operands:
            if isinstance(value, Trace):
                if node.op == "Mul":
                    follow.note(value, "truths", True)
                follow.ends(value)
        return []
    with np.errstate(all="ignore"):
        scale, offset = _affine(node.op, held.astype(np.float64), swapped)
    if scale is None or (held.ndim and not trace.fixed and held.size > 1):
        follow.ends(trace)
        return []
    with np.errstate(all="ignore"):
        parts = np.broadcast_arrays(trace.origin, trace.scale * scale, trace.offset * scale + offset)
    return [Trace(*parts, fixed=trace.fixed)]


def _affine(op: str, held: Any, swapped: bool) -> tuple[Any, Any]:
    """scale and offset of `x op held`, or of `held op x`."""
    if op in ("AddV2", "Add", "BiasAdd"):
        return 1.0, held
    if op == "Sub":
        return (-1.0, held) if swapped else (1.0, -held)
    if op == "Mul":
        return held, 0.0
    return (None, None) if swapped else (1 / held, 0.0)


@rule("Neg")
def negative(follow: Follower, node: Node, operands: list[Any]) -> Any:
    trace = operands[0]
    return [Trace(trace.origin, -trace.scale, -trace.offset, trace.fixed)]


@rule("Maximum", "Minimum", "ClipByValue")
def clip(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """Bounds are edges; values in between pass through."""
    _compare(follow, operands)
    return [next(value for value in operands if isinstance(value, Trace))]


@rule("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "FloorMod", "Mod", "TruncateMod")
def comparison(follow: Follower, node: Node, operands: list[Any]) -> Any:
    _compare(follow, operands)
    for value in operands if follow.counting else ():
        follow.note(value, "counts", True)
    return []


def _compare(follow: Follower, operands: list[Any]) -> None:
    for held in (value for value in operands if isinstance(value, np.ndarray)):
        for value in (value for value in operands if isinstance(value, Trace)):
            if held.dtype.kind in "iuf":
                follow.note(value, "edges", *(float(item) for item in held.reshape(-1)[:KEYS] if np.isfinite(item)))
            elif held.dtype == object:
                follow.note(value, "keys", *held.reshape(-1)[:KEYS].tolist())


@rule("Bucketize")
def bucketize(follow: Follower, node: Node, operands: list[Any]) -> Any:
    follow.note(operands[0], "edges", *(float(edge) for edge in node.attrs["boundaries"]))
    return []


@rule("Log", "Sqrt", "Rsqrt")
def positive(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """The operand should be positive."""
    follow.note(operands[0], "spreads", (0.0, 100.0))
    return []


@rule("Log1p")
def above_minus_one(follow: Follower, node: Node, operands: list[Any]) -> Any:
    follow.note(operands[0], "spreads", (0.0, 100.0))
    return []


@rule("Select", "SelectV2")
def select(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """`where(x < 0, x + n, x)` is x; for different elements it is one of them."""
    found = [value for value in operands[1:] if isinstance(value, Trace)]
    if not found:
        follow.note(operands[0], "truths", True)
        return []
    if len(found) == 2 and np.array_equal(found[0].origin, found[1].origin):
        found = [min(found, key=lambda trace: float(np.abs(trace.offset).sum()))]
    return [found[0] if len(found) == 1 else loose(found)]


# -- ids ----------------------------------------------------------------------------------------------------------------------


def _rows(value: Any, axis: int = 0) -> int | None:
    return value.shape[axis] if isinstance(value, (Weight, np.ndarray)) and len(value.shape) > axis else None


def _in_range(follow: Follower, ids: Any, rows: int | None) -> None:
    if rows:
        follow.note(ids, "ranges", (0.0, float(rows - 1)))


@rule("GatherV2", "Gather", "ResourceGather")
def gather(follow: Follower, node: Node, operands: list[Any]) -> Any:
    params, ids = operands[:2]
    if isinstance(params, Trace):
        return follow.moved(node, operands)
    axis = operands[2] if len(operands) > 2 else np.array(0)
    _in_range(follow, ids, _rows(params, int(axis)) if isinstance(axis, np.ndarray) else None)
    return []


@rule("GatherNd", "ResourceGatherNd")
def gather_nd(follow: Follower, node: Node, operands: list[Any]) -> Any:
    params, ids = operands
    if isinstance(params, Trace):
        return follow.moved(node, operands)
    _in_range(follow, ids, _rows(params))
    return []


@rule("Range", "Fill", "LinSpace", "BroadcastArgs", "Empty", "Multinomial")
def size(follow: Follower, node: Node, operands: list[Any]) -> Any:
    for value in operands[: 1 if node.op == "Fill" else None]:
        follow.note(value, "counts", True)
    return []


@rule("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN", "SparseSegmentSumWithNumSegments",
      "SparseSegmentMeanWithNumSegments", "SparseSegmentSqrtNWithNumSegments")  # fmt: skip
def segments(follow: Follower, node: Node, operands: list[Any]) -> Any:
    _in_range(follow, operands[1], _rows(operands[0]))
    return []


@rule("OneHot")
def one_hot(follow: Follower, node: Node, operands: list[Any]) -> Any:
    depth = operands[1]
    follow.note(depth, "counts", True)
    _in_range(follow, operands[0], int(depth) if isinstance(depth, np.ndarray) else None)
    return []


@rule("DenseBincount", "Bincount", "RaggedBincount", "SparseBincount")
def bincount(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """Operands: [splits or indices,] values, [dense shape,] size, weights."""
    values = next(value for value in operands if isinstance(value, Trace))
    size = operands[-2] if node.op != "Bincount" else operands[1]
    _in_range(follow, values, int(size) if isinstance(size, np.ndarray) and size.size == 1 else None)
    return []


@rule("LookupTableFind", "LookupTableFindV2")
def lookup(follow: Follower, node: Node, operands: list[Any]) -> Any:
    table, keys = operands[:2]
    if isinstance(table, Table):
        follow.note(keys, "keys", *some_keys(follow, table))
    return []


@rule("WordpieceTokenizeWithOffsets")
def wordpieces(follow: Follower, node: Node, operands: list[Any]) -> Any:
    if isinstance(operands[1], Table):
        follow.note(operands[0], "keys", *some_keys(follow, operands[1]))
    follow.note(operands[0], "separators", b" ")
    return [loose([value for value in operands if isinstance(value, Trace)])] * 4


def some_keys(follow: Follower, table: Table) -> list[Any]:
    """Keys from all parts of a table; numbers as floats."""
    keys = follow.model.tables[table.key].keys.reshape(-1)
    found = keys[:: max(1, len(keys) // KEYS)][:KEYS].tolist()
    return [key if isinstance(key, bytes) else float(key) for key in found]


# -- text ---------------------------------------------------------------------------------------------------------------------


@rule("StringToNumber")
def to_number(follow: Follower, node: Node, operands: list[Any]) -> Any:
    follow.note(operands[0], "numbers", str(node.attrs.get("out_type", "float32")))
    return [operands[0]]


@rule("Substr")
def substring(follow: Follower, node: Node, operands: list[Any]) -> Any:
    text, position, length = operands
    if isinstance(text, Trace) and isinstance(position, np.ndarray) and isinstance(length, np.ndarray):
        for at, size in zip(np.atleast_1d(position).tolist(), np.atleast_1d(length).tolist(), strict=False):
            follow.note(text, "pieces", f"{at} {size}")
    return [text if isinstance(text, Trace) else None]


@rule("StringSplitV2")
def split(follow: Follower, node: Node, operands: list[Any]) -> Any:
    text, separator = operands
    if isinstance(separator, np.ndarray) and separator.size == 1:
        follow.note(text, "separators", separator.reshape(-1)[0] or b" ")
    return [None, loose([text]), None]


@rule("StaticRegexFullMatch", "RegexFullMatch", "StaticRegexReplace", "RegexReplace")
def regular_expression(follow: Follower, node: Node, operands: list[Any]) -> Any:
    pattern = node.attrs.get("pattern")
    if pattern is None and isinstance(operands[1], np.ndarray):
        pattern = operands[1].reshape(-1)[0]
    if pattern is not None:
        follow.note(operands[0], "patterns", pattern.encode() if isinstance(pattern, str) else pattern)
    return [operands[0]] if "Replace" in node.op else []


@rule("DecodeBase64")
def base64(follow: Follower, node: Node, operands: list[Any]) -> Any:
    follow.note(operands[0], "encodings", "base64")
    return [operands[0]]


@rule("DecodeJpeg", "DecodePng", "DecodeImage", "DecodeAndCropJpeg", "DecodeBmp", "DecodeGif")
def decode(follow: Follower, node: Node, operands: list[Any]) -> Any:
    follow.note(operands[0], "decoders", node.op)
    return []


@rule(*PARSERS)
def parse(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """Every feature is an input of its own."""
    features = features_of(node, [value if isinstance(value, np.ndarray) else None for value in operands])
    traces: dict[str, list[Trace]] = {kind: [] for kind in ("sparse", "dense", "ragged")}
    for feature in features:
        element = np.array(follow.feature(operands[0], feature))
        batch = () if node.op == "ParseSingleExample" else (ROWS,)
        shape = (*batch, *(LENGTH if size < 0 else size for size in feature.shape or ()))
        trace = plain(np.broadcast_to(element, shape))
        traces[feature.kind].append(trace if feature.kind == "dense" else loose([trace]))
    nothing = [None] * len(traces["sparse"])
    return {"sparse_indices": nothing, "sparse_values": traces["sparse"], "sparse_shapes": nothing,
            "dense_values": traces["dense"], "ragged_values": traces["ragged"],
            "ragged_row_splits": [None] * len(traces["ragged"])}  # fmt: skip


# -- branches and loops -------------------------------------------------------------------------------------------------------


@rule("While", "StatelessWhile")
def loop(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """Runs one iteration; changed variables get their values after it."""
    results = _inside(follow, node.attrs["body"], operands)
    around, follow.counting = follow.counting, True
    _inside(follow, node.attrs["cond"], operands)
    follow.counting = around
    return [value if isinstance(value, Trace) else None for value in results]


@rule("If", "StatelessIf", "Case", "StatelessCase")
def branch(follow: Follower, node: Node, operands: list[Any]) -> Any:
    """Follows every branch; a result is that of the first one."""
    bodies = [node.attrs[name] for name in ("then_branch", "else_branch") if name in node.attrs]
    bodies += list(node.attrs.get("branches", ()))
    found = [_inside(follow, body, operands[1:]) for body in bodies]
    return [next((v for v in values if isinstance(v, Trace)), values[0]) for values in zip(*found, strict=False)]


def _inside(follow: Follower, reference: FunctionRef | Graph, operands: list[Any]) -> list[Any]:
    body = follow.body(reference)
    if body is None or len(body.inputs) != len(operands):
        return []
    stack = follow.stack
    follow.stack = (*stack, reference.name) if isinstance(reference, FunctionRef) else stack
    results = follow.run(body, operands)
    follow.stack = stack
    return results


@rule("TensorListGetItem")
def item(follow: Follower, node: Node, operands: list[Any]) -> Any:
    return [_row(operands[0])]


@rule("TensorArrayReadV3")
def read(follow: Follower, node: Node, operands: list[Any]) -> Any:
    return [_row(operands[2])]


@rule("TensorArrayScatterV3")
def scatter(follow: Follower, node: Node, operands: list[Any]) -> Any:
    return [operands[2]]


def _row(trace: Any) -> Any:
    if not isinstance(trace, Trace) or not trace.fixed or not trace.origin.ndim:
        return trace
    return Trace(trace.origin[0], trace.scale[0], trace.offset[0])
