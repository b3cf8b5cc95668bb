"""Infers the float precision of each output of a TF graph, by dataflow.

An output is as precise as the coarsest rounding on its way. Ops that move, choose or compare values do not round, nor
does a cast to a wider float; inputs, weights and constants are taken as they are. Rounding ends at integers, booleans
and texts, which must be bit-exact.
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
"""Ops that return floats unchanged: nothing is rounded."""
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
"""Ops from floats to something else: a boolean, an id, a text."""
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
"""Ops that always compute in float32."""


def precisions(graph: Graph, functions: Functions) -> dict[str, str]:
    """The coarsest float dtype to which each output of a flat TF graph is rounded; outputs without rounding are
    omitted."""
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
    """The float dtype to which `node` rounds its results; None if it does not round."""
    if node.op in EXACT:
        return None
    if node.op in FLOAT32:
        return "float32"
    if node.op == "Cast":
        source, target = _float(node.attrs["SrcT"]), _float(node.attrs["DstT"])
        wider = target is not None and source is not None and COARSENESS[target] <= COARSENESS[source]
        return None if wider else target
    if references_of(node):  # a branch or loop: any rounding inside
        body = all_nodes(Graph((), (node,), {}), functions)[1:]
        return _coarsest(filter(None, (_rounds_to(inner, functions) for inner in body if not references_of(inner))))
    named = (
        _float(item) for value in node.attrs.values() for item in (value if isinstance(value, tuple) else (value,))
    )
    return _coarsest(filter(None, named))


def _float(dtype: object) -> str | None:
    """The float dtype of a dtype's components; None if it is not a float."""
    if not isinstance(dtype, str):
        return None
    name = _WIDENED.get(dtype, dtype)
    return name if name in COARSENESS else None
