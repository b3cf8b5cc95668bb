"""The relus that TensorFlow fuses into oneDNN products, which map NaN to 0.

oneDNN is on by default in pip's TensorFlow on x86 since 2.9. Its own relu maps NaN to 0; the op `Relu` keeps NaN.
Source: tensorflow/core/grappler/optimizers/remapper.cc.
"""

from __future__ import annotations

from functools import cache

import torch

from porting.served.draft import Draft
from porting.served.finite import Finite
from torch_towers.graph.graph import Node

_ADDS = ("Add", "AddV2")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv3D")
_BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


@cache
def fused_dtypes() -> frozenset[str]:
    """The floats whose relus oneDNN fuses: float32, and bfloat16 where the processor has instructions for it.

    A port follows the processor on which it is made and compared. Source: IsDataTypeSupportedByOneDNNOnThisCPU
    (tensorflow/core/util/util.cc).
    """
    if hasattr(torch.cpu, "get_capabilities"):  # older versions of torch do not list them
        has = torch.cpu.get_capabilities()
        narrow = bool(has.get("avx512_f") or has.get("avx_ne_convert"))
    else:
        narrow = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return frozenset({"float32", "bfloat16"} if narrow else {"float32"})


def mark_fused(draft: Draft) -> None:
    """Sets the attribute `no_nan` of every Relu and Relu6 that oneDNN fuses, if its input may be NaN."""
    finite = Finite(draft)
    for name, node in list(draft.nodes.items()):
        is_relu = node.op in ("Relu", "Relu6") and draft.dtype(name) in fused_dtypes()
        if is_relu and is_fused(draft, node) and not finite(node.inputs[0]):
            draft.mark(name, no_nan=True)


def is_fused(draft: Draft, relu: Node) -> bool:
    """Whether TensorFlow fuses this relu into its producer."""
    before = _alone(draft, relu.inputs[0], "BiasAdd", *_ADDS, "AddN", *_BATCH_NORMS)
    if before is None:
        return False
    if before.op in _BATCH_NORMS:
        return _is_inference(before) and (relu.op == "Relu" or _alone(draft, before.inputs[0], "Conv2D") is not None)
    return _biased(draft, before, "MatMul", *_CONVOLUTIONS) or _residual(draft, before)


def _alone(draft: Draft, ref: str, *ops: str) -> Node | None:
    """The producer of `ref`, if it is one of these ops and has no other reader."""
    node = draft.node(ref, *ops)
    return node if node is not None and draft.users(node.name) == 1 else None


def _is_inference(norm: Node) -> bool:
    return norm.attrs.get("is_training", True) is False


def _biased(draft: Draft, node: Node, *products: str) -> bool:
    """Whether `node` adds a bias to a product."""
    if node.op == "BiasAdd":
        return _product(draft, node.inputs[0], *products)
    if node.op not in _ADDS:
        return False
    pairs = (node.inputs, node.inputs[::-1])
    return any(_product(draft, x, *products) and _is_vector(draft, bias) for x, bias in pairs)


def _product(draft: Draft, ref: str, *products: str) -> bool:
    node = _alone(draft, ref, *products)
    if node is None or node.op != "MatMul":
        return node is not None
    turned = draft.node(node.inputs[0], "Transpose") is not None  # TensorFlow first fuses it as a transposed operand
    return bool(node.attrs.get("transpose_a", False)) == turned


def _is_vector(draft: Draft, ref: str) -> bool:
    """Whether `ref` is a variable or constant vector over the channels."""
    value = draft.value(ref)
    if value is not None:
        return value.ndim >= 1 and value.numel() == value.shape[-1]
    shape = draft.shape(ref)
    return shape is not None and len(shape) >= 1 and all(size == 1 for size in shape[:-1])


def _residual(draft: Draft, node: Node) -> bool:
    """Whether `node` adds a tensor of equal shape to a biased convolution without other readers."""
    if node.op == "BiasAdd" or len(node.inputs) != 2:
        return False
    parts = [_alone(draft, ref, "BiasAdd", *_ADDS) for ref in node.inputs]
    return any(part is not None and _biased(draft, part, *_CONVOLUTIONS) for part in parts)
