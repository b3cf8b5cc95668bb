"""Convolutions: Conv1d, Conv2d, Conv3d and their transposes; depthwise ones have one group per channel."""

from __future__ import annotations

import re
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Pattern, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import ModuleSpec, Node
from torch_towers.ops.conv import torch_kernel

_CONV = Apply("conv", Any_("x"), Weight("kernel"), name="conv")
_BACK = Apply("conv_transpose", Any_("x"), Weight("kernel"), name="conv")


def _biased(conv: Pattern) -> Pattern:
    """The convolution plus one number per channel, however it is added."""
    bias = Weight("bias")
    reshaped = Apply("reshape", bias, name="reshaped")
    return conv + bias | conv + reshaped | Apply("bias_add", conv, bias, name="added")


@rewrite("Conv", _biased(_CONV) | _biased(_BACK))
def conv_with_bias(view: View, root: Node, match: Match) -> str:
    """A convolution with a weight, and the bias added to it."""
    outputs, bias = _channels(view, match)[1], match["bias"]
    if view.shape(bias) != (outputs,):
        raise Refusal(f"what is added has shape {list(view.shape(bias) or ())}, expected [{outputs}]: it is not a bias")
    if _channel_of_bias(view, root, match) != _channel(view, match):
        raise Refusal("what is added is not added by channel")
    return _lift(view, root, match, bias)


@rewrite("Conv", _CONV | _BACK)
def conv(view: View, root: Node, match: Match) -> str:
    """A convolution with a weight, without a bias, or with different biases at different uses."""
    return _lift(view, root, match, None)


_TURNED = Apply("transpose", Any_("x"), perm=lambda perm: perm == (0, *range(2, len(perm)), 1), name="turned")


@rewrite("", Apply("transpose", Apply("module", _TURNED, name="layer")), keeps=("turned",))
def channels_first(view: View, root: Node, match: Match) -> None:
    """A layer between two transposes of the channels, as converters from channels-first frameworks write it: the layer of
    such images."""
    node = view.nodes[match["layer"]]
    name, spec, perm = str(node.attrs["module"]), view.modules[str(node.attrs["module"])], root.attrs["perm"]
    if not re.fullmatch(r"Conv(Transpose)?[123]d", spec.type) or spec.args.get("channels_last") is False:
        raise Refusal("it is no convolution with the channels last")
    if tuple(perm) != (0, len(perm) - 1, *range(1, len(perm) - 1)) or len(node.inputs) != 1:
        raise Refusal("its channels do not become the second axis again")
    if [call.name for call in view.nodes.values() if call.attrs.get("module") == name] != [node.name]:
        raise Refusal("it is called elsewhere too")
    view.modules[name] = ModuleSpec(spec.type, {**spec.args, "channels_last": False})
    view.rewrite(root, "module", match["x"], module=name)


def _channel(view: View, match: Match) -> int:
    """The axis of the channels, counted from the end."""
    attrs = view.nodes[match["conv"]].attrs
    return -1 if attrs["channels_last"] else -1 - len(attrs["strides"])


def _channel_of_bias(view: View, root: Node, match: Match) -> int | None:
    """The axis along which the bias is added, counted from the end; None if there is none."""
    if match.get("added") is not None:
        axis, rank = root.attrs.get("axis", -1), len(view.nodes[match["conv"]].attrs["strides"]) + 2
        return axis % rank - rank
    if match.get("reshaped") is None:
        return -1
    shape, size = view.shape(match["reshaped"]) or (), (view.shape(match["bias"]) or (0,))[0]
    axes = [at - len(shape) for at, length in enumerate(shape) if length == size]
    return axes[0] if len(axes) == 1 and all(length in (1, size) for length in shape) else None


def _channels(view: View, match: Match) -> tuple[int, int, int]:
    """The layer's input and output channels, and its number of groups."""
    node, kernel = view.nodes[match["conv"]], view.shape(match["kernel"])
    rank = len(node.attrs["strides"])
    if kernel is None or len(kernel) != rank + 2 or view.dtype(match["kernel"]) not in FLOATS:
        raise Refusal(f"the weight {match['kernel']!r} is not a kernel of floats")
    if node.op == "conv_transpose":
        return kernel[-1], kernel[-2], 1
    if node.attrs.get("depthwise"):
        return kernel[-2], kernel[-2] * kernel[-1], kernel[-2]
    shape = view.shape(match["x"])
    inputs = None if shape is None else shape[_channel(view, match)]
    if not isinstance(inputs, int):
        raise Refusal("the number of channels of its input is not known")
    return inputs, kernel[-1], inputs // kernel[-2]


def _lift(view: View, root: Node, match: Match, bias: str | None) -> str:
    node, kernel = view.nodes[match["conv"]], match["kernel"]
    inputs, outputs, groups = _channels(view, match)
    _check_other_uses(view, node, kernel, bias)
    attrs, back = node.attrs, node.op == "conv_transpose"
    rank = len(attrs["strides"])
    args: dict[str, Any] = {
        "in_channels": inputs, "out_channels": outputs, "kernel_size": tuple((view.shape(kernel) or ())[:rank]),
        "stride": tuple(attrs["strides"]), "padding": attrs["padding"], "dilation": tuple(attrs["dilations"]),
        "bias": bias is not None,
    }  # fmt: skip
    args |= {} if back or groups == 1 else {"groups": groups}
    args |= {} if attrs["channels_last"] else {"channels_last": False}
    weights = {"weight": kernel} if bias is None else {"weight": kernel, "bias": bias}
    values = {"weight": torch_kernel(view.tensor(kernel), bool(attrs.get("depthwise"))).contiguous()}
    kind = f"Conv{'Transpose' if back else ''}{rank}d"
    sizes = node.inputs[2:]
    view.layer(root, kind, args, match["x"], *sizes, weights=weights, values=values, called=_name(view, kernel))
    shape = view.shape(match["x"])
    if back and shape is not None:
        known = tuple(size if isinstance(size, int) else None for size in sizes)
        found = (shape[0], *known, outputs) if attrs["channels_last"] else (shape[0], outputs, *known)
        view.know(root, view.dtype(match["x"]), found)
    return kind


def _name(view: View, kernel: str) -> str:
    """Names the two halves of a separable convolution `separable.depthwise` and `separable.pointwise`."""
    scope, _, last = view.tensor_name(kernel).rpartition(".")
    halves = {f"{scope}.pointwise_kernel", f"{scope}.pointwise.weight"} & view.store.keys()
    if scope and halves and last in ("depthwise_kernel", "pointwise_kernel"):
        return f"{scope}.{last.removesuffix('_kernel')}"
    return ""


def _check_other_uses(view: View, node: Node, kernel: str, bias: str | None) -> None:
    """The kernel changes its layout, so all its users must be lifted, to the same layer."""
    for user in view.consumers(kernel):
        if user.op != node.op or user.inputs[1] != kernel or user.inputs[0] == kernel:
            raise Refusal(f"its kernel {kernel!r} is also used by {user.op} {user.name!r}")
        if dict(user.attrs) != dict(node.attrs):
            raise Refusal(f"its kernel {kernel!r} is also used by {user.name!r}, with other strides or padding")
        if view.shape(user.inputs[0]) is None:
            raise Refusal(f"the shape of the input of {user.name!r} is not known")
        if bias is not None:
            sums = view.consumers(user.name)
            if len(sums) != 1 or bias not in sums[0].inputs or view.is_output(user.name):
                raise Refusal(f"its kernel {kernel!r} is also used by {user.name!r}, without the same bias")
