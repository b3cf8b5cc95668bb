"""Identities of images: undoes sequences as images of height one, and dilation by batches of pixels.

They create no layer, but normalize a convolution to the form that the model's author wrote.
"""

from __future__ import annotations

from typing import Any

from porting.conversion.values import Value
from porting.lifting.naming import layer_scope
from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.zero_padding import zero_margins
from torch_towers.graph.graph import Node

_X = Any_("x")


@rewrite("", Apply("squeeze", Apply("reshape", Weight("weight"))))
def bias_is_a_vector(view: View, root: Node, match: Match) -> None:
    """Removes axes of length one that are added to a weight and squeezed again, as Keras 3 adds a bias."""
    if view.shape(root.name) is None or view.shape(root.name) != view.shape(match["weight"]):
        raise Refusal("its shape changes")
    view.alias(root, match["weight"])


@rewrite("", Apply("squeeze", Apply("add", _X, Weight("bias"), name="sum"), name="squeeze"))
def bias_behind_the_axis(view: View, root: Node, match: Match) -> None:
    """Moves a bias from before to after the squeeze of an axis of length one."""
    if len(view.shape(match["bias"]) or ()) != 1:
        raise Refusal("not a vector")
    _swap(view, root, match["sum"], _axis(view, root, match["sum"]), match["x"], (match["bias"],), {})


_KERNEL = Apply("unsqueeze", Weight("kernel"), name="lifted")
_FLAT = Apply("conv", _X, _KERNEL, name="inner") | Apply("conv_transpose", _X, _KERNEL, name="inner")


@rewrite("", Apply("squeeze", _FLAT))
def convolution_of_sequences(view: View, root: Node, match: Match) -> None:
    """A convolution over images of height one, with a kernel of height one, is one over sequences."""
    inner = view.nodes[match["inner"]]
    axis = _axis(view, root, inner.name)
    attrs = dict(inner.attrs)
    place = axis - (1 if attrs["channels_last"] else 2)
    lifted, rank = view.nodes[match["lifted"]].attrs["axis"], len(view.shape(match["kernel"]) or ()) + 1
    shape, padding, sizes = view.shape(match["x"]), attrs["padding"], inner.inputs[2:]
    if len(attrs["strides"]) < 2 or place not in range(len(attrs["strides"])) or lifted % rank != place:
        raise Refusal("another axis than the kernel's")
    if shape is None or shape[axis] != 1 or (sizes and sizes[place] != 1):
        raise Refusal("an axis that is not known to have length one")
    if isinstance(padding, tuple):
        if padding[place] != (0, 0):
            raise Refusal("padding on the axis")
        attrs["padding"] = _without(padding, place)
    attrs |= {key: _without(attrs[key], place) for key in ("strides", "dilations")}
    _swap(view, root, inner.name, axis, match["x"], (match["kernel"], *_without(sizes, place)), attrs)


@rewrite("", Apply("squeeze", Apply("max_pool", _X, name="inner") | Apply("avg_pool", _X, name="inner")))
def pool_of_sequences(view: View, root: Node, match: Match) -> None:
    """A pool over images of height one, of windows of height one, is one over sequences."""
    inner = view.nodes[match["inner"]]
    axis, attrs, shape = _axis(view, root, inner.name), dict(inner.attrs), view.shape(match["x"])
    place = axis - (1 if attrs["channels_last"] else 2)
    if place not in range(len(attrs["size"])) or attrs["size"][place] != 1 or shape is None or shape[axis] != 1:
        raise Refusal("its windows are not known to have length one on the axis")
    if isinstance(attrs["padding"], tuple):
        if attrs["padding"][place] != (0, 0):
            raise Refusal("padding on the axis")
        attrs["padding"] = _without(attrs["padding"], place)
    attrs |= {key: _without(attrs[key], place) for key in ("size", "strides")}
    _swap(view, root, inner.name, axis, match["x"], (), attrs)


@rewrite("", Apply("squeeze", Apply("unsqueeze", _X, name="inner")))
def axis_there_and_back(view: View, root: Node, match: Match) -> None:
    """An axis of length one that is added and squeezed again."""
    rank = (view.rank(match["x"]) or -9) + 1
    axes = root.attrs["axes"]
    if rank < 0 or len(axes) != 1 or axes[0] % rank != view.nodes[match["inner"]].attrs["axis"] % rank:
        raise Refusal("another axis")
    view.alias(root, match["x"])


def _axis(view: View, root: Node, operand: str) -> int:
    """The axis that `root` squeezes, counted from the front."""
    rank, axes = view.rank(operand), root.attrs["axes"]
    if rank is None or len(axes or ()) != 1:
        raise Refusal("not one axis of a known rank")
    return int(axes[0]) % rank


def _swap(
    view: View, root: Node, inner: str, axis: int, x: str, others: tuple[Any, ...], attrs: dict[str, Any]
) -> None:
    """`squeeze(f(x, ...))` becomes `f(squeeze(x), ...)`: the inner node squeezes, the outer one is `f`."""
    shape = view.shape(x)
    if len(view.consumers(inner)) != 1 or view.is_output(inner) or shape is None:
        raise Refusal("used elsewhere too")
    node = view.nodes[inner]
    view.rewrite(root, node.op, inner, *others, **attrs)
    view.rewrite(node, "squeeze", x, axes=(axis,))
    view.known[inner] = Value(inner, view.dtype(x), _without(shape, axis))


def _without(items: Any, place: int) -> tuple[Any, ...]:
    return tuple(item for at, item in enumerate(items) if at != place)


@rewrite("", Apply("conv", Apply("pad", _X, Number(0.0), name="pad"), Any_("kernel"), padding="VALID"))
def margins_of_the_convolution(view: View, root: Node, match: Match) -> None:
    """Zeros that the layer of a convolution puts around its input, as a causal one does, are its padding."""
    pad = view.nodes[match["pad"]]
    if layer_scope(pad.name.split(".")[:-1]) != layer_scope(root.name.split(".")[:-1]):
        raise Refusal("a layer of its own")
    margins, channels_last = zero_margins(view, pad)
    if channels_last != root.attrs["channels_last"]:
        raise Refusal("its channels are another axis")
    view.rewrite(root, "conv", match["x"], *root.inputs[1:], **{**root.attrs, "padding": margins})


_PLAIN = Apply("conv", Apply("space_to_batch", _X, name="apart"), Any_("kernel"), name="conv", padding="VALID")


@rewrite("dilation", Apply("batch_to_space", _PLAIN, name="together"))
def dilation(view: View, root: Node, match: Match) -> None:
    """space_to_batch, convolution and batch_to_space are one dilated convolution."""
    apart, conv = view.nodes[match["apart"]], view.nodes[match["conv"]]
    block, attrs = root.attrs["block"], dict(conv.attrs)
    if apart.attrs["block"] != block or len(block) != len(attrs["strides"]):
        raise Refusal(f"space_to_batch has blocks of {apart.attrs['block']}, batch_to_space of {block}")
    if any(step != 1 for step in (*attrs["strides"], *attrs["dilations"])) or not attrs["channels_last"]:
        raise Refusal("the convolution inside has strides or dilations of its own, or its channels come first")
    pads, crops = _pairs(apart.inputs[1:]), _pairs(root.inputs[1:])
    margins = tuple((_less(view, a, c), _less(view, b, d)) for (a, b), (c, d) in zip(pads, crops, strict=True))
    shape = view.shape(match["kernel"])
    if shape is None or any(size is None for pair in margins for size in pair):
        raise Refusal("its padding is not known to be that of a dilated kernel")
    reach = [(k - 1) * step for k, step in zip(shape, block, strict=False)]
    if all(pair == (need // 2, need - need // 2) for pair, need in zip(margins, reach, strict=True)):
        margins = "SAME"
    attrs |= {"dilations": tuple(block), "padding": "VALID" if not _any(margins) else margins}
    view.rewrite(root, "conv", match["x"], match["kernel"], **attrs)
    space, x = view.shape(match["x"]), view.dtype(match["x"])
    if space is not None and margins == "SAME":
        channels = (view.shape(conv.name) or (None,))[-1]
        view.known[root.name] = Value(root.name, x, (*space[:-1], channels))


def _pairs(flat: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _any(margins: Any) -> bool:
    return margins == "SAME" or any(size for pair in margins for size in pair)


def _less(view: View, padded: Any, cropped: Any) -> int | None:
    """`padded - cropped`, if that is a number; either may be a run-time size."""
    if isinstance(padded, int) and isinstance(cropped, int):
        return padded - cropped
    if padded == cropped:
        return 0
    node = view.node(padded)
    if node is None or node.op != "size_add" or cropped not in node.inputs:
        return None
    other = next((item for item in node.inputs if item != cropped), None)
    return other if isinstance(other, int) else None
