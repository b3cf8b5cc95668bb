"""Precision: in which float each output of a TF graph is computed, by dataflow.

An output is as exact as the coarsest rounding on its way. What moves, chooses or compares values does not round, nor does a cast to
a wider float; what the inputs, weights and constants hold is what it is. Behind an integer, a boolean or a text there is no
rounding any more: those are equal to the bit or the comparison fails.
"""

from __future__ import annotations

from collections.abc import Iterable

from porting.conversion.convert import all_nodes
from porting.flat_graph.effects import Functions, references_of
from torch_towers.graph.graph import Graph, Node, node_of

COARSENESS = {"float64": 1, "float32": 2, "float16": 3, "bfloat16": 4}
_WIDENED = {"complex128": "float64", "complex64": "float32"}

EXACT = frozenset(
    [
        "Const",
        "Placeholder",
        "PlaceholderWithDefault",
        "VarHandleOp",
        "VariableV2",
        "Variable",
        "ReadVariableOp",
        "Identity",
        "IdentityN",
        "Snapshot",
        "StopGradient",
        "PreventGradient",
        "CheckNumerics",
        "EnsureShape",
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "Transpose",
        "Pack",
        "Unpack",
        "Concat",
        "ConcatV2",
        "Split",
        "SplitV",
        "Slice",
        "StridedSlice",
        "Tile",
        "BroadcastTo",
        "Fill",
        "ZerosLike",
        "OnesLike",
        "Pad",
        "PadV2",
        "MirrorPad",
        "Reverse",
        "ReverseV2",
        "ReverseSequence",
        "Roll",
        "Gather",
        "GatherV2",
        "GatherNd",
        "ResourceGather",
        "ResourceGatherNd",
        "Select",
        "SelectV2",
        "Where",
        "BooleanMask",
        "Maximum",
        "Minimum",
        "Max",
        "Min",
        "Relu",
        "Relu6",
        "Abs",
        "Neg",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "Rint",
        "ClipByValue",
        "MaxPool",
        "MaxPoolV2",
        "MaxPool3D",
        "TopK",
        "TopKV2",
        "InvertPermutation",
        "MatrixDiag",
        "MatrixDiagV2",
        "MatrixDiagV3",
        "MatrixDiagPart",
        "MatrixDiagPartV2",
        "MatrixDiagPartV3",
        "MatrixBandPart",
        "DynamicPartition",
        "DynamicStitch",
        "ParallelDynamicStitch",
        "ScatterNd",
        "TensorScatterUpdate",
        "SparseToDense",
        "SpaceToBatchND",
        "BatchToSpaceND",
        "SpaceToDepth",
        "DepthToSpace",
        "ResizeNearestNeighbor",
        "RaggedGather",
        "RaggedTensorToTensor",
        "RaggedTensorToVariant",
        "RaggedTensorFromVariant",
        "TensorListFromTensor",
        "TensorListStack",
        "TensorListGetItem",
        "TensorListSetItem",
        "TensorListReserve",
        "TensorListGather",
        "TensorListConcat",
        "TensorListConcatV2",
        "TensorListPushBack",
        "TensorListPopBack",
        "EmptyTensorList",
        "ParseExample",
        "ParseExampleV2",
        "ParseSingleExample",
        "LookupTableFindV2",
        "LookupTableFind",
        "Switch",
        "Merge",
        "Enter",
        "Exit",
        "NextIteration",
        "SparseReorder",
        "SparseReshape",
        "SparseSlice",
        "SparseConcat",
        "SparseFillEmptyRows",
        "Unique",
        "UniqueV2",
        "ImmutableConst",
        "StringToNumber",
        "DecodeRaw",
        "DecodeCSV",
        "Bitcast",
    ]
)
"""Ops that give floats which they were given, or that are read: nothing is rounded."""
DECISIONS = frozenset(
    [
        "Less",
        "LessEqual",
        "Greater",
        "GreaterEqual",
        "Equal",
        "NotEqual",
        "ApproximateEqual",
        "ArgMax",
        "ArgMin",
        "Bucketize",
        "IsNan",
        "IsInf",
        "IsFinite",
        "Shape",
        "ShapeN",
        "Size",
        "Rank",
        "AsString",
        "SearchSorted",
        "LowerBound",
        "UpperBound",
    ]
)
"""Ops that make something else of floats: a boolean, an id, a text."""
FLOAT32 = frozenset(
    [
        "ResizeBilinear",
        "ResizeBicubic",
        "ResizeArea",
        "CropAndResize",
        "CropAndResizeV2",
        "DecodeWav",
        "AudioSpectrogram",
        "Mfcc",
        "Dequantize",
        "QuantizedMatMul",
        "NonMaxSuppressionV3",
        "NonMaxSuppressionV4",
        "NonMaxSuppressionV5",
    ]
)
"""Ops that compute in float32, whatever they are given."""


def precisions(graph: Graph, functions: Functions) -> dict[str, str]:
    """The coarsest float that each output of a flat TF graph is rounded to on its way; outputs without any rounding are left out."""
    found: dict[str, str] = {}  # by node
    for node in graph.nodes:
        if node.op in DECISIONS or _to_no_float(node):
            continue
        own = _rounds_to(node, functions)
        worst = _coarsest(
            [*(found[name] for name in map(node_of, node.inputs) if name in found), *([own] if own else [])]
        )
        if worst is not None:
            found[node.name] = worst
    return {name: found[node_of(ref)] for name, ref in graph.outputs.items() if node_of(ref) in found}


def _coarsest(names: Iterable[str]) -> str | None:
    return max(names, key=COARSENESS.__getitem__, default=None)


def _to_no_float(node: Node) -> bool:
    return node.op == "Cast" and _float(node.attrs["DstT"]) is None


def _rounds_to(node: Node, functions: Functions) -> str | None:
    """The float that `node` rounds its results to; None where it rounds nothing."""
    if node.op in EXACT:
        return None
    if node.op in FLOAT32:
        return "float32"
    if node.op == "Cast":
        source, target = _float(node.attrs["SrcT"]), _float(node.attrs["DstT"])
        wider = target is not None and source is not None and COARSENESS[target] <= COARSENESS[source]
        return None if wider else target
    if references_of(node):  # a branch or a loop: what is rounded anywhere inside
        body = all_nodes(Graph((), (node,), {}), functions)[1:]
        return _coarsest(filter(None, (_rounds_to(inner, functions) for inner in body if not references_of(inner))))
    named = (
        _float(item) for value in node.attrs.values() for item in (value if isinstance(value, tuple) else (value,))
    )
    return _coarsest(filter(None, named))


def _float(dtype: object) -> str | None:
    """The float that numbers of a dtype are made of; None where it is no float, or no dtype."""
    if not isinstance(dtype, str):
        return None
    name = _WIDENED.get(dtype, dtype)
    return name if name in COARSENESS else None
