"""nn.Linear with reshapes: projections by `einsum`, as EinsumDense and MultiHeadAttention write them.

`abc,cde->abde` is a Linear from `c` to `d * e`, whose last axis is split. The kernel `[c, d, e]` is reshaped once,
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_letters

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node, node_of

EINSUM = Apply("einsum", Any_("a"), Any_("b"), name="product")
_FLAT_KERNEL = Apply("reshape", Weight("kernel"), name="flat_kernel")
FLAT_PRODUCT = Apply("matmul", Any_("x"), _FLAT_KERNEL, name="product")
PARTED = Apply("reshape", FLAT_PRODUCT, name="parted")


@dataclass(frozen=True, slots=True)
class Projection:
    """An einsum of values with a kernel: axes by their letters, "." for those of an ellipsis."""

    x: str
    kernel: str
    result: str

    @property
    def equation(self) -> str:
        """Values first, as torch and TensorFlow spell it."""
        return f"{self.x},{self.kernel}->{self.result}".replace(".", "...")

    @property
    def contracted(self) -> str:
        return "".join(letter for letter in self.x if letter in self.kernel)

    @property
    def kept(self) -> str:
        return "".join(letter for letter in self.x if letter not in self.kernel)

    @property
    def new(self) -> str:
        return "".join(letter for letter in self.result if letter not in self.x)

    @property
    def is_linear(self) -> bool:
        """Whether it is a matrix product up to transposes."""
        if not self.contracted or set(self.contracted) & set(self.result):
            return False  # it multiplies along an axis that it keeps, or sums along none
        if set(self.kernel) != {*self.contracted, *self.new} or {*self.kept, *self.new} != set(self.result):
            return False  # it sums along an axis of one operand alone
        # nothing may move past the axes that an ellipsis stands for
        return "." not in self.x + self.kernel or (self.turned_x == self.x and self.turned_result == self.result)

    @property
    def layout(self) -> list[int]:
        """The kernel's axes in the order of nn.Linear's weight: those of the result, then those that are summed."""
        return [self.kernel.index(letter) for letter in self.new + self.contracted]

    def has_linear_of(self, other: Projection) -> bool:
        """Whether both are products with the same nn.Linear: the axes that they keep may differ."""
        return other.is_linear and self.layout == other.layout and len(self.new) == len(other.new)

    @property
    def turned_x(self) -> str:
        """The axes of the values in nn.Linear's order: summed axes last."""
        return self.kept + self.contracted

    @property
    def turned_result(self) -> str:
        """The axes of the result in nn.Linear's order: new axes last."""
        return self.kept + self.new


@rewrite("Linear", Apply("add", EINSUM, Weight("bias")))
def einsum_with_bias(view: View, root: Node, match: Match) -> None:
    """`einsum(x, kernel) + bias`, if the bias has the new axes of the kernel."""
    kernel, x, law = _read_linear(view, match)
    sizes = _sizes(view, kernel, law)
    wanted = tuple(sizes[letter] for letter in law.new)
    if view.shape(match["bias"]) != wanted or law.turned_result != law.result:
        raise Refusal(f"what is added has shape {list(view.shape(match['bias']) or ())}, expected {list(wanted)}")
    check_other_uses(view, kernel, match["bias"], law.has_linear_of)
    _write(view, root, law, kernel, x, match["bias"])


@rewrite("Linear", EINSUM)
def einsum(view: View, root: Node, match: Match) -> None:
    """`einsum(x, kernel)`, without a bias of the kernel's new axes."""
    kernel, x, law = _read_linear(view, match)
    check_other_uses(view, kernel, None, law.has_linear_of)
    _write(view, root, law, kernel, x, None)


def _read_linear(view: View, match: Match) -> tuple[str, str, Projection]:
    kernel, x, law = read_einsum(view, match)
    if not law.is_linear:
        raise Refusal("it is no matrix product: it keeps an axis that it multiplies along, or drops one of an operand")
    return kernel, x, law


def read_einsum(view: View, match: Match) -> tuple[str, str, Projection]:
    """The kernel of an einsum, its other operand, and the letters."""
    node = view.nodes[match["product"]]
    weights = [
        ref for ref in node.inputs if view.nodes.get(node_of(ref)) and view.nodes[node_of(ref)].op == "parameter"
    ]
    if len(node.inputs) != 2 or len(weights) != 1:
        raise Refusal("it is not a product of values with one weight")
    kernel = weights[0]
    law = _law(node, kernel)
    if any(len(set(axes)) != len(axes) for axes in (law.x, law.kernel, law.result)):
        raise Refusal("it takes a diagonal")
    if view.dtype(kernel) not in FLOATS or len(view.shape(kernel) or ()) != len(law.kernel):
        raise Refusal(f"the weight {kernel!r} is not floats of the axes {law.kernel!r}")
    return kernel, node.inputs[1 - node.inputs.index(kernel)], law


def _law(node: Node, kernel: str) -> Projection:
    """The axes of an einsum of two operands, named anew in order, so that two spellings of one layer are equal."""
    operands, _, result = str(node.attrs["equation"]).replace(" ", "").replace("...", ".").partition("->")
    parts, at = operands.split(","), node.inputs.index(kernel)
    x, kernel = parts[1 - at], parts[at]
    found = dict.fromkeys(letter for letter in x + kernel if letter.isalpha())
    names = str.maketrans(dict(zip(found, ascii_letters, strict=False)))
    return Projection(*(axes.translate(names) for axes in (x, kernel, result)))


def _sizes(view: View, kernel: str, law: Projection) -> dict[str, int]:
    return dict(zip(law.kernel, view.shape(kernel) or (), strict=True))


def check_other_uses(view: View, kernel: str, bias: str | None, is_same: Callable[[Projection], bool]) -> None:
    """All users of the kernel must become calls of the same layer, with the same bias."""
    for user in view.consumers(kernel):
        other = _law(user, kernel) if user.op == "einsum" and user.inputs.count(kernel) == 1 else None
        if other is None or not is_same(other):
            raise Refusal(f"its kernel {kernel!r} is also used by {user.op} {user.name!r}")
        _check_same_bias(view, user, kernel, bias)


def _check_same_bias(view: View, user: Node, kernel: str, bias: str | None) -> None:
    if bias is None:
        return
    sums = view.consumers(user.name)
    if len(sums) != 1 or sums[0].op != "add" or bias not in sums[0].inputs or view.is_output(user.name):
        raise Refusal(f"its kernel {kernel!r} is also used by {user.name!r}, without the same bias")


def _write(view: View, root: Node, law: Projection, kernel: str, x: str, bias: str | None) -> None:
    """Merges the summed axes, calls nn.Linear, and splits the new axes, each only if needed."""
    sizes, dtype = _sizes(view, kernel, law), view.dtype(kernel)
    inner, outer = ([sizes[letter] for letter in letters] for letters in (law.contracted, law.new))
    shape = view.shape(x)
    if shape is None:
        raise Refusal("the shape of its input is not known")
    width = math.prod(inner), math.prod(outer)
    _linear(view, root, x, kernel, bias, (law.layout, *width))
    turn = [law.x.index(letter) for letter in law.turned_x]
    if law.turned_x != law.x:
        shape = tuple(shape[axis] for axis in turn)
        x = view.before(root, "transpose", x, known=(dtype, shape), perm=tuple(turn))
    rows = shape[: len(shape) - len(inner)]
    if len(inner) != 1:
        x = view.before(root, "join_last", x, known=(dtype, (*rows, width[0])), count=len(inner))
    view.rewrite(root, "module", x, module=view.nodes[root.name].attrs["module"])
    if len(outer) != 1:
        view.then(root, "split_last", known=(dtype, (*rows, width[1])), sizes=tuple(outer))
    if law.turned_result != law.result:
        perm = tuple(law.turned_result.index(letter) for letter in law.result)
        view.then(root, "transpose", known=(dtype, (*rows, *outer)), perm=perm)


def _linear(view: View, root: Node, x: str, kernel: str, bias: str | None, layout: tuple[list[int], int, int]) -> None:
    """Makes `root` a call of nn.Linear, whose weight has the kernel's axes in the order of `layout`, in two groups."""
    order, in_features, out_features = layout
    args = {"in_features": in_features, "out_features": out_features, "bias": bias is not None}
    value = view.tensor(kernel)
    weights, values = {"weight": kernel}, {"weight": value}
    if value.ndim == len(order):  # otherwise another call of this layer has reshaped it
        values["weight"] = value.permute(order).reshape(out_features, in_features).contiguous()
    if bias is not None:
        weights["bias"], values["bias"] = bias, view.tensor(bias).reshape(-1)
    view.layer(root, "Linear", args, x, weights=weights, values=values)


# -- Keras 3 with fixed sizes: the kernel is reshaped to a matrix at every call
# -------------------------------------------


@rewrite("Linear", Apply("add", PARTED, Weight("bias")))
def flat_kernel_with_bias(view: View, root: Node, match: Match) -> None:
    """`reshape(x @ reshape(kernel)) + bias`, if the last axis is split like the bias."""
    product, sizes = view.nodes[match["product"]], view.shape(match["bias"])
    before, after = view.shape(product.name), view.shape(match["parted"])
    if not sizes or len(sizes) < 2 or before is None or after != (*before[:-1], *sizes):
        raise Refusal(f"what is added has shape {list(sizes or ())}: it is not a bias of the product")
    order, width = flat_layout(view, match)
    check_parted_uses(view, match)
    _linear(view, root, match["x"], match["kernel"], match["bias"], (order, *width))
    view.then(root, "split_last", known=(view.dtype(match["kernel"]), before), sizes=sizes)


def check_parted_uses(view: View, match: Match) -> None:
    """The kernel changes its layout, so all its products must be split, with the same bias."""
    for user in view.consumers(match["flat_kernel"]):
        parted = view.consumers(user.name)
        if len(parted) != 1 or parted[0].op != "reshape" or view.is_output(user.name):
            raise Refusal(f"its kernel {match['kernel']!r} is also used by {user.name!r}, without the same bias")
        _check_same_bias(view, parted[0], match["kernel"], match["bias"])


@rewrite("Linear", Apply("add", FLAT_PRODUCT, Weight("bias")))
def flat_kernel_with_vector(view: View, root: Node, match: Match) -> None:
    """`x @ reshape(kernel) + bias`, if only the kernel's input axes are merged."""
    order, width = flat_layout(view, match)
    if view.shape(match["bias"]) != width[1:]:
        raise Refusal(f"what is added has shape {list(view.shape(match['bias']) or ())}, expected [{width[1]}]")
    for user in view.consumers(match["flat_kernel"]):
        _check_same_bias(view, user, match["kernel"], match["bias"])
    _linear(view, root, match["x"], match["kernel"], match["bias"], (order, *width))


@rewrite("Linear", FLAT_PRODUCT)
def flat_kernel(view: View, root: Node, match: Match) -> None:
    """`x @ reshape(kernel)`, with a matrix made from a kernel of higher rank."""
    order, width = flat_layout(view, match)
    _linear(view, root, match["x"], match["kernel"], None, (order, *width))


def flat_layout(view: View, match: Match) -> tuple[list[int], tuple[int, int]]:
    """The kernel's axes in nn.Linear's order, and the sizes of its matrix `[in, out]`."""
    kernel, inner = match["kernel"], merged_axes(view, match)
    shape = view.shape(kernel) or ()
    if len(view.consumers(kernel)) != 1:
        raise Refusal(f"its kernel {kernel!r} is also used by other ops")
    for user in view.consumers(match["flat_kernel"]):
        if user.op != "matmul" or user.inputs[1] != match["flat_kernel"] or (view.rank(user.inputs[0]) or 0) < 2:
            raise Refusal(f"its kernel {kernel!r} is also used by {user.op} {user.name!r}")
    return [*range(inner, len(shape)), *range(inner)], (math.prod(shape[:inner]), math.prod(shape[inner:]))


def merged_axes(view: View, match: Match) -> int:
    """How many leading axes of the kernel are those that are summed."""
    kernel, flat = match["kernel"], view.shape(match["flat_kernel"])
    shape = view.shape(kernel) or ()
    if view.dtype(kernel) not in FLOATS or flat is None or len(flat) != 2 or len(shape) < 3:
        raise Refusal(f"the weight {kernel!r} is not floats reshaped to a matrix")
    inner = next((count for count in range(1, len(shape)) if math.prod(shape[:count]) == flat[0]), None)
    if inner is None:
        raise Refusal(f"its kernel has the axes {list(shape)}, of which no leading ones multiply to {flat[0]}")
    return inner


@rewrite("", Apply("reshape", Apply("module", Any_("x"), name="linear")))
def parted_heads(view: View, root: Node, match: Match) -> None:
    """Splits the last axis of nn.Linear's result."""
    before, after = view.shape(match["linear"]), view.shape(root.name)
    if view.module_of(view.nodes[match["linear"]], "Linear") is None or not before or not after:
        raise Refusal("not a Linear, or its shape is not known")
    sizes, rows = after[len(before) - 1 :], len(before) - 1
    if len(sizes) < 2 or not all(isinstance(size, int) for size in sizes) or math.prod(sizes) != before[-1]:
        raise Refusal("the last axis is not split")
    if (
        sum(old != new for old, new in zip(before[:-1], after[:rows], strict=True)) > 1
    ):  # one may be renamed: the others determine it
        raise Refusal("other axes change too")
    view.rewrite(root, "split_last", match["linear"], sizes=sizes)
    view.settle(root.name, (*before[:-1], *sizes))


@rewrite("", Apply("reshape", Any_("x")))
def joined_axes(view: View, root: Node, match: Match) -> None:
    """Merges the last axes, however the sizes before them are computed."""
    before, after, node = view.shape(match["x"]), view.shape(root.name), view.node(match["x"])
    if not before or not after or len(after) < 2 or view.dtype(match["x"]) not in FLOATS:
        raise Refusal("not floats of a known shape")
    count = len(before) - len(after) + 1
    inner = before[len(after) - 1 :]
    if count < 2 or not all(isinstance(size, int) for size in inner) or math.prod(inner) != after[-1]:
        raise Refusal("the last axes are not merged")
    if before[: len(after) - 1] != after[:-1] or (node is not None and node.op in ("parameter", "constant")):
        raise Refusal("other axes change too")
    view.rewrite(root, "join_last", match["x"], count=count)
