"""EinsumDense: sums of products of values with a weight along named axes, with a bias, where nn.Linear is not enough.

`abc,bcd->abd` has a matrix of its own for each place `b`, which the values, the weight and the result all have. A product
that nn.Linear can do with reshapes becomes that, in the next file, unless its bias spans only some of its new axes.
"""

from __future__ import annotations

from itertools import accumulate
from string import ascii_letters

from porting.lifting.patterns import Match, Refusal, Sum, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.einsum import (
    EINSUM,
    FLAT_PRODUCT,
    PARTED,
    Projection,
    check_other_uses,
    check_parted_uses,
    flat_layout,
    merged_axes,
    read_einsum,
)
from torch_towers.graph.graph import Node

_IS_LINEAR = ""  # the next file lifts it, or says why not


@rewrite("", PARTED | FLAT_PRODUCT)
def einsum_of_a_matrix(view: View, root: Node, match: Match) -> None:
    """`reshape(x @ reshape(kernel))` is `einsum(x, kernel)` if another einsum has this kernel: Keras 3 writes one call
    over a fixed and one over an open length in two ways."""
    kernel = match["kernel"]
    if all(user.op != "einsum" for user in view.consumers(kernel)):
        raise Refusal("no einsum has it")
    law, count = _law_of_matrix(view, match, root.name)
    view.rewrite(root, "einsum", _parted(view, root, match["x"], kernel, count), kernel, equation=law.equation)


@rewrite("EinsumDense", Sum(EINSUM, Weight("bias")))
def einsum_with_any_bias(view: View, root: Node, match: Match) -> None:
    """`einsum(x, kernel) + bias`, if the bias has axes of the kernel, or is one of the same author's layer."""
    kernel, x, law = read_einsum(view, match)
    bias = match["bias"]
    if law.is_linear and law.turned_result == law.result and view.shape(bias) == _new_sizes(view, kernel, law):
        raise Refusal(_IS_LINEAR)
    _check_bias(view, match["product"], law, kernel, bias)
    check_other_uses(view, kernel, bias, law.__eq__)
    _write(view, root, law, kernel, x, bias)


@rewrite("EinsumDense", EINSUM)
def einsum_along_kept_axes(view: View, root: Node, match: Match) -> None:
    """`einsum(x, kernel)`, if it is no matrix product: the kernel has its own part for each place of a kept axis."""
    kernel, x, law = read_einsum(view, match)
    if law.is_linear:
        raise Refusal(_IS_LINEAR)
    check_other_uses(view, kernel, None, law.__eq__)
    _write(view, root, law, kernel, x, None)


@rewrite("EinsumDense", Sum(PARTED, Weight("bias")))
def flat_kernel_with_any_bias(view: View, root: Node, match: Match) -> None:
    """`reshape(x @ reshape(kernel)) + bias`, as Keras 3 writes the same at fixed sizes."""
    kernel, bias, x = match["kernel"], match["bias"], match["x"]
    flat_layout(view, match)  # or refuses
    law, count = _law_of_matrix(view, match, match["parted"])
    sizes = view.shape(kernel) or ()
    if view.shape(bias) == sizes[count:]:
        raise Refusal(_IS_LINEAR)
    _check_bias(view, match["parted"], law, kernel, bias)
    check_parted_uses(view, match)
    _write(view, root, law, kernel, _parted(view, root, x, kernel, count), bias)


def _law_of_matrix(view: View, match: Match, product: str) -> tuple[Projection, int]:
    """The axes of a product with a kernel as a matrix, and how many of them are summed."""
    sizes, rows, count = view.shape(match["kernel"]) or (), view.shape(match["x"]), merged_axes(view, match)
    if rows is None or view.shape(product) != (*rows[:-1], *sizes[count:]):
        raise Refusal("its result is not split into the axes of its kernel")
    kept, summed, new = _letters(len(rows) - 1, count, len(sizes) - count)
    return Projection(kept + summed, summed + new, kept + new), count


def _parted(view: View, root: Node, x: str, kernel: str, count: int) -> str:
    """The values with the last axis split into the first `count` axes of the kernel, which are summed."""
    if count == 1:
        return x
    sizes = (view.shape(kernel) or ())[:count]
    known = view.dtype(kernel), (*(view.shape(x) or ())[:-1], *sizes)
    return view.before(root, "split_last", x, known=known, sizes=sizes)


def _letters(*counts: int) -> list[str]:
    """Letters for groups of so many axes."""
    ends = list(accumulate(counts))
    return [ascii_letters[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _new_sizes(view: View, kernel: str, law: Projection) -> tuple[int, ...]:
    sizes = dict(zip(law.kernel, view.shape(kernel) or (), strict=True))
    return tuple(sizes[letter] for letter in law.new)


def _check_bias(view: View, product: str, law: Projection, kernel: str, bias: str) -> None:
    """Refuses what is added if it widens the product, or may be a layer of its own, such as a table of positions."""
    sizes, result = view.shape(bias) or (), view.shape(product)
    if result is None or len(sizes) > len(result):
        raise Refusal(f"what is added has shape {list(sizes)}: it is not a bias of the product")
    after = law.result[law.result.find(".") + 1 :]  # the letters behind an ellipsis are counted from the end
    letters = after.rjust(len(result), ".")[len(result) - len(sizes) :]
    axes = list(zip(letters, sizes, result[len(result) - len(sizes) :], strict=True))
    if any(size not in (1, wanted) for _, size, wanted in axes):
        raise Refusal(f"what is added has shape {list(sizes)}: it is not a bias of the product")
    author = view.tensor_name(kernel).rpartition(".")[0]
    if author and author == view.tensor_name(bias).rpartition(".")[0]:
        return
    if any(size != 1 and letter not in law.kernel for letter, size, _ in axes):
        raise Refusal(f"what is added has shape {list(sizes)}, with axes that its kernel does not have")


def _write(view: View, root: Node, law: Projection, kernel: str, x: str, bias: str | None) -> None:
    args = {"equation": law.equation, "shape": view.shape(kernel), "bias_shape": None}
    weights = {"weight": kernel}
    if bias is not None:
        args["bias_shape"], weights["bias"] = view.shape(bias), bias
    view.layer(root, "EinsumDense", args, x, weights=weights)
