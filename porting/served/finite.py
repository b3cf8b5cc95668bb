"""Which tensors of a graph cannot be NaN, so that relus need no NaN handling.

Weights, and sums of them, are assumed to be finite: no trained tower comes near the largest float. Users' floats may
be anything, and a division, a logarithm or the mean of nothing may give NaN.
"""

from __future__ import annotations

from porting.served.draft import IDENTITIES, Draft
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node, node_of

_ALL = {
    "Add", "AddV2", "AddN", "Sub", "Mul", "Neg", "Abs", "Square", "SquaredDifference", "Maximum", "Minimum", "Relu", "Relu6",
    "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "Tanh", "Sigmoid", "Erf", "Erfc", "Softmax", "Sin", "Cos", "BiasAdd",
    "MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum", "Conv2D", "DepthwiseConv2dNative", "Conv3D", "Pack", "Unpack",
    "MaxPool", "AvgPool", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "ZerosLike", "OnesLike",
}  # fmt: skip
"""Ops whose results are finite if all operands are."""
_LEADING = {
    "Reshape": 1, "ExpandDims": 1, "Squeeze": 1, "Transpose": 1, "Slice": 1, "StridedSlice": 1, "Tile": 1, "Pad": 1,
    "MirrorPad": 1, "GatherV2": 1, "Gather": 1, "ResourceGather": 1, "GatherNd": 1, "BroadcastTo": 1, "ReverseV2": 1,
    "Sum": 1, "SplitV": 1, "ReadVariableOp": 1,
}  # fmt: skip
"""Ops of which only the first operands flow into the result."""
_LATER = {"SelectV2": 1, "Select": 1, "Split": 1}
"""Ops of which the operands from this index on flow into the result."""
_ALWAYS = {"OneHot", "VarHandleOp", "VariableV2", "Variable"}


class Finite:
    """`finite(ref)`: whether a tensor has neither NaN nor infinities for any input."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._known: dict[str, bool] = {}
        for node in draft.nodes.values():
            self._known[node.name] = self._of(node)

    def __call__(self, ref: str) -> bool:
        return self._known.get(node_of(ref), False)

    def _of(self, node: Node) -> bool:
        if node.op == "Const":
            value = self._draft.value(node.name)
            return value is not None and bool(value.isfinite().all())
        if node.op == "Cast":
            return self(node.inputs[0]) or str(node.attrs["SrcT"]) not in FLOATS
        if node.op in IDENTITIES or node.op in _ALWAYS or node.op in _ALL:
            return all(map(self, node.inputs if node.op not in _ALWAYS else ()))
        if node.op == "ConcatV2":
            return all(map(self, node.inputs[:-1]))
        if node.op in _LEADING:
            return all(map(self, node.inputs[: _LEADING[node.op]]))
        return node.op in _LATER and all(map(self, node.inputs[_LATER[node.op] :]))
