"""Fusion: runs several nodes as one call if that is faster and gives the same numbers.

The graph does not change; only its plan, the list of steps, has one step instead of several. If a fused step does not
apply at run time (gradients are needed, a layer was swapped, the graph is being compiled), it falls back to the single
calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from torch_towers.graph.dtypes import torch_dtype
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.kernels.fast_path import plain, untouched
from torch_towers.kernels.top_k import top_k_of_products
from torch_towers.layers.conv import convolved
from torch_towers.layers.embedding import Embedding
from torch_towers.layers.linear import linear, linear_relu
from torch_towers.layers.pools import MaskedAverage
from torch_towers.layers.text_pipeline import pipeline_of
from torch_towers.program.binding import Env, Host, Run, Step, call, descend, getter, path


class Fused(NamedTuple):
    """One call for several nodes: `absorbed` precede the computed node, and nothing else reads them."""

    absorbed: tuple[str, ...]
    run: Run  # returns `NotImplemented` to fall back to the single calls


class Readers:
    """A graph's nodes by name, and their readers, for the patterns in this file.

    The matcher of formulas in `porting/lifting/patterns.py` is not used here: the runtime works without the porter, and
    the patterns here depend on what a formula does not say (a literal k, a single reader, a constant text).
    """

    def __init__(self, graph: Graph, host: Host) -> None:
        self.graph, self.host = graph, host
        self.nodes = {node.name: node for node in graph.nodes}
        self._readers = Counter(name for node in graph.nodes for name in map(node_of, references(node.inputs)))
        self._readers.update(map(node_of, graph.outputs.values()))

    def only(self, reference: Any) -> Node | None:
        """The node of a reference to its only result, if it has no other reader."""
        node = self.nodes.get(reference) if isinstance(reference, str) else None
        return node if node is not None and self._readers[node.name] == 1 else None

    def scalar(self, reference: Any) -> bytes | None:
        """The constant string scalar that a reference names."""
        node = self.nodes.get(reference) if isinstance(reference, str) else None
        value = self.host.get(str(node.attrs["tensor"])) if node is not None and node.op == "constant" else None
        return None if value is None or value.ndim else value.item()

    def module_type(self, node: Node) -> str:
        """The type of the module that a node calls, or an empty string."""
        spec = self.graph.modules.get(str(node.attrs["module"])) if node.op == "module" else None
        return "" if spec is None else spec.type


def plan_of(graph: Graph, host: Host, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The plan of a run: `steps`, one per node, with fused steps in place of several."""
    single = dict(steps)
    view = Readers(graph, host)
    fused = {node.name: found for node in graph.nodes for pattern in _PATTERNS if (found := pattern(view, node))}
    absorbed = {name for found in fused.values() for name in found.absorbed}

    def before(name: str) -> list[Step]:
        """The single calls that a fused step replaces, except the last."""
        parts = fused[name].absorbed if name in fused else ()
        return [step for part in parts for step in (*before(part), (part, single[part]))]

    return tuple(
        (name, _with_single_calls(fused[name].run, before(name), run) if name in fused else run)
        for name, run in single.items()
        if name not in absorbed
    )


def _with_single_calls(fast: Run, parts: Sequence[Step], last: Run) -> Run:
    def run(root: nn.Module, env: Env) -> Any:
        value = fast(root, env)
        if value is NotImplemented:
            for name, part in parts:
                env[name] = part(root, env)
            value = last(root, env)
        return value

    return run


_MIN_IDS = 256  # number of ids above which embedding_bag is faster than gather and sum


def _weighted_embedding(view: Readers, node: Node) -> Fused | None:
    """A weighted sum or masked average of `embedding(ids)`: sums rows as they are read, without materializing them."""
    average = path(str(node.attrs["module"])) if view.module_type(node) == "MaskedAverage" else None
    rows = view.only(node.inputs[0]) if node.op == "weighted_sum" or average is not None else None
    if rows is None or view.module_type(rows) != "Embedding":
        return None
    parts, ids, weights = path(str(rows.attrs["module"])), rows.inputs[0], node.inputs[1]
    if not isinstance(ids, str) or not isinstance(weights, str) or ":" in ids + weights:
        return None

    def run(root: nn.Module, env: Env) -> Any:
        layer, x = descend(root, parts), env[ids]
        if (
            not untouched(layer, Embedding)
            or x.ndim != 2
            or x.device.type != "cpu"
            or not plain(x, env[weights], layer.weight)  # type: ignore[reportArgumentType]
            or x.numel() < _MIN_IDS  # last: a captured graph must not compare its sizes
        ):
            return NotImplemented
        total = cast(Tensor, layer.weighted_sum(x, env[weights]))  # type: ignore[operator]
        if average is None:
            return total
        pool = descend(root, average)
        if not isinstance(pool, MaskedAverage) or not untouched(pool, MaskedAverage) or not pool.finite:
            return NotImplemented
        return pool.divided(total, env[weights])

    return Fused((rows.name,), run)


def _dense(view: Readers, node: Node) -> Fused | None:
    """A dense layer and the relu after it."""
    layer = node if node.op == "module" else view.only(node.inputs[0]) if node.op == "relu" else None
    if layer is None or view.module_type(layer) != "Linear":
        return None
    product = linear if layer is node else partial(linear_relu, no_nan=bool(node.attrs.get("no_nan")))
    parts, find = path(str(layer.attrs["module"])), getter(layer.inputs[0])

    def run(root: nn.Module, env: Env) -> Any:
        return product(descend(root, parts), find(env))

    return Fused(() if layer is node else (layer.name,), run)


def _convolution(view: Readers, node: Node) -> Fused | None:
    """A convolution with its normalization and relu: one pass over the image instead of five."""
    activation = node if node.op in ("relu", "relu6") else None
    below = view.only(node.inputs[0]) if activation is not None else node
    norm = below if below is not None and view.module_type(below) == "BatchNorm" else None
    layer = view.only(norm.inputs[0]) if norm is not None else below
    if layer is None or layer is node or view.module_type(layer) not in ("Conv1d", "Conv2d", "Conv3d"):
        return None
    parts, find = path(str(layer.attrs["module"])), getter(layer.inputs[0])
    of_norm = path(str(norm.attrs["module"])) if norm is not None else []
    relu, no_nan = activation.op if activation else "", bool(activation and activation.attrs.get("no_nan"))

    def run(root: nn.Module, env: Env) -> Any:
        return convolved(descend(root, parts), descend(root, of_norm) if of_norm else None, find(env), relu, no_nan)

    return Fused((below.name if activation is not None and below is not None else layer.name,), run)


def _best_of_products(view: Readers, node: Node) -> Fused | None:
    """`top_k(matmul(queries, matrix_transpose(candidates)), k)`: block by block, without the full score matrix."""
    product = view.only(node.inputs[0]) if node.op == "top_k" else None
    turned = view.only(product.inputs[1]) if product is not None and product.op == "matmul" else None
    if product is None or turned is None or turned.op != "matrix_transpose" or not isinstance(node.inputs[1], int):
        return None
    queries, candidates, k = getter(product.inputs[0]), getter(turned.inputs[0]), node.inputs[1]
    dtype = torch_dtype(node.attrs.get("dtype", "int32"))

    def run(root: nn.Module, env: Env) -> Any:
        q, c = queries(env), candidates(env)
        if q.ndim != 2 or c.ndim != 2 or not plain(q, c) or k > len(c):
            return NotImplemented
        values, positions = top_k_of_products(q, c, k)
        return values, positions.to(dtype)

    return Fused((turned.name, product.name), run)


def _counted_mask(view: Readers, node: Node) -> Fused | None:
    """`reduce_sum(cast(unsqueeze(mask, 2)), axis 1)`: the number of unmasked positions per row, as a float column."""
    if node.op != "reduce_sum" or node.attrs.get("axes") != (1,) or node.attrs.get("keepdim"):
        return None
    floats = view.only(node.inputs[0])
    column = view.only(floats.inputs[0]) if floats is not None and floats.op == "cast" else None
    if floats is None or column is None or column.op != "unsqueeze" or column.attrs.get("axis") not in (2, -1):
        return None
    dtype, mask = torch_dtype(str(floats.attrs["dtype"])), column.inputs[0]
    if dtype not in (torch.float32, torch.float64) or not isinstance(mask, str) or ":" in mask:
        return None

    def run(root: nn.Module, env: Env) -> Any:
        x = env[mask]
        return torch.sum(x, 1, True, dtype=dtype) if x.dtype == torch.bool and x.ndim == 2 else NotImplemented

    return Fused((column.name, floats.name), run)


def _scaled_integers(view: Readers, node: Node) -> Fused | None:
    """`cast(integers) * number`, in the memory of the cast: an image of bytes takes one array of floats, not two."""
    floats = view.only(node.inputs[0]) if node.op == "mul" and isinstance(node.inputs[1], float) else None
    if floats is None or floats.op != "cast" or not isinstance(floats.inputs[0], str):
        return None
    find, dtype, factor = getter(floats.inputs[0]), torch_dtype(str(floats.attrs["dtype"])), node.inputs[1]

    def run(root: nn.Module, env: Env) -> Any:
        x = find(env)
        if x.dtype not in _INTEGERS or dtype not in (torch.float32, torch.float64) or not plain(x):
            return NotImplemented
        return x.to(dtype).mul_(factor)

    return Fused((floats.name,), run)


_INTEGERS = frozenset((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))


def _text_pipeline(view: Readers, node: Node) -> Fused | None:
    """String ops before split and lookup, in one pass over each text."""
    if view.module_type(node) != "TextVectorization":
        return None
    chain: list[_Change] = []
    text: Any = node.inputs[0]
    while change := _change(view, text):
        chain.insert(0, change)
        text = change.text
    layer = view.host[f"module:{node.attrs['module']}"]
    while chain:
        pipeline = pipeline_of([(change.op, change.attrs) for change in chain], layer)
        if pipeline is not None:
            absorbed = tuple(name for change in chain for name in change.absorbed)
            return Fused(absorbed, call(pipeline, (chain[0].text,)))
        chain.pop(0)
    return None


class _Change(NamedTuple):
    """A node that maps a text to a text: `attrs` as `pipeline_of` takes them."""

    text: Any
    op: str
    attrs: Mapping[str, Any]
    absorbed: tuple[str, ...]


def _change(view: Readers, reference: Any) -> _Change | None:
    node = view.only(reference)
    if node is None or node.op not in ("lower", "upper", "strip", "regex_replace", "string_join"):
        return None
    if node.op != "string_join":
        return _Change(node.inputs[0], node.op, node.attrs, (node.name,))
    given = [view.scalar(operand) for operand in node.inputs]
    if given.count(None) != 1:
        return None
    place, separator = given.index(None), node.attrs.get("separator", b"")
    before = b"".join(cast(bytes, part) + separator for part in given[:place])
    after = b"".join(separator + cast(bytes, part) for part in given[place + 1 :])
    constants = tuple(str(operand) for i, operand in enumerate(node.inputs) if i != place and view.only(operand))
    return _Change(node.inputs[place], "string_join", {"before": before, "after": after}, (*constants, node.name))


_PATTERNS: tuple[Callable[[Readers, Node], Fused | None], ...] = (
    _weighted_embedding,
    _counted_mask,
    _scaled_integers,
    _dense,
    _convolution,
    _best_of_products,
    _text_pipeline,
)
