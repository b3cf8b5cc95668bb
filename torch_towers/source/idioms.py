"""Rewrites a simplified graph to the idioms of PyTorch: `flatten`, `expand`, one `cat`, masks without detours.

Each rule looks at one node and preserves its numbers. `FLATTEN` and `EXPAND` are ops that only a source has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.graph import Graph, ModuleSpec, Node, node_of, references
from torch_towers.graph.names import numbered
from torch_towers.source.layout import UNKNOWN, Dim, Known
from torch_towers.source.simplify import ordered, renamed
from torch_towers.tower import Tower

FLATTEN, EXPAND = "flatten", "expand"
_MOVES = frozenset(("unsqueeze", "squeeze", "transpose"))
_LOOKUPS = frozenset(("StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "Discretization", "in_range"))
"""What gives ids below 2**31 in the preprocessing: a table of embeddings takes them as they are."""


def idiomatic(graph: Graph, known: dict[str, Known], tensors: Mapping[str, Tensor], tower: Tower) -> Graph:
    """The graph in the form that one would write; new values are added to `known`."""
    rewriter = _Rewriter(graph, known, tensors, _small_ids(tower))
    names: dict[str, Any] = {}
    for node in graph.nodes:
        node = replace(node, inputs=renamed(node.inputs, names))
        for rule in _RULES:
            found = rule(rewriter, node)
            if isinstance(found, str):
                names[node.name] = found
                break
            node = found or node
        else:
            rewriter.add(node)
    outputs = {name: str(renamed((ref,), names)[0]) for name, ref in graph.outputs.items()}
    return ordered(Graph(graph.inputs, tuple(rewriter.nodes.values()), outputs, rewriter.modules))


def _small_ids(tower: Tower) -> set[str]:
    """The encoder's inputs that are ids of a lookup or were checked against the size of a table."""
    graph = tower.parts["preprocess"].graph
    nodes = {node.name: node for node in graph.nodes}
    found: set[str] = set()
    for name, ref in graph.outputs.items():
        node = nodes.get(node_of(ref))
        kind = "" if node is None else graph.modules[str(node.attrs["module"])].type if node.op == "module" else node.op
        if kind in _LOOKUPS:
            found.add(name)
    return found


@dataclass
class _Rewriter:
    """The nodes so far, and what is known of all."""

    graph: Graph
    known: dict[str, Known]
    tensors: Mapping[str, Tensor]
    small: set[str]
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])

    def __post_init__(self) -> None:
        self.modules = dict(self.graph.modules)
        self.uses = Counter(node_of(ref) for node in self.graph.nodes for ref in references(node.inputs))
        self.uses.update(map(node_of, self.graph.outputs.values()))
        self.calls = Counter(str(node.attrs["module"]) for node in self.graph.nodes if node.op == "module")
        self.readers: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for ref in references(node.inputs):
                self.readers.setdefault(node_of(ref), []).append(node)
        self.taken = {node.name for node in self.graph.nodes} | {spec.name for spec in self.graph.inputs}

    def add(self, node: Node) -> str:
        self.nodes[node.name] = node
        return node.name

    def new(self, node: Node, known: Known) -> str:
        """Adds a node under a name of its own."""
        name = numbered(node.name, self.taken.__contains__)
        self.taken.add(name)
        self.known[name] = known
        return self.add(replace(node, name=name))

    def of(self, ref: Any) -> Known:
        spec = next((spec for spec in self.graph.inputs if spec.name == ref), None)
        known = self.known.get(ref, UNKNOWN) if isinstance(ref, str) else UNKNOWN
        return known if known.dtype or spec is None else Known(spec.dtype)

    def dims(self, ref: Any) -> tuple[Dim, ...] | None:
        """The sizes of a value, if all are known."""
        dims = self.of(ref).dims
        return None if dims is None or None in dims else dims


Rule = Callable[[_Rewriter, Node], "Node | str | None"]
"""Returns a node in place of one (under its name), a value that is the same, or None."""


# -- casts ----------------------------------------------------------------------------------------------------------------


def _cast(found: _Rewriter, node: Node) -> Node | str | None:
    """A cast to what it is, and casts of a mask: `mask.int().float()` is `mask.float()`."""
    if node.op != "cast" or not isinstance(node.inputs[0], str):
        return None
    dtype, ref = str(node.attrs["dtype"]), node.inputs[0]
    if found.of(ref).dtype == dtype:
        return ref
    moves: list[Node] = []
    while (before := found.nodes.get(ref)) is not None and before.op in _MOVES:
        moves.append(before)
        ref = str(before.inputs[0])
    if before is None or before.op != "cast" or found.of(before.inputs[0]).dtype != "bool":
        return None
    value = str(before.inputs[0])
    for move in reversed(moves):
        value = found.new(replace(move, inputs=(value, *move.inputs[1:])), replace(found.of(move.name), dtype="bool"))
    return value if dtype == "bool" else replace(node, inputs=(value,))


def _ids(found: _Rewriter, node: Node) -> Node | None:
    """A lookup takes ids of both integer dtypes: no cast before it."""
    if node.op != "module" or found.modules[str(node.attrs["module"])].type not in ("Embedding", "EmbeddingBag"):
        return None
    cast = found.nodes.get(str(node.inputs[0]))
    if cast is None or cast.op != "cast" or not isinstance(cast.inputs[0], str):
        return None
    before, after = found.of(cast.inputs[0]).dtype, str(cast.attrs["dtype"])
    wider = before == "int32" and after == "int64"
    same = before == "int64" and after == "int32" and cast.inputs[0] in found.small
    return replace(node, inputs=(cast.inputs[0], *node.inputs[1:])) if wider or same else None


def _where(found: _Rewriter, node: Node) -> str | None:
    """A choice by a mask that is true everywhere, as TF Transform writes one: `where(zeros_like(x) + 1, y, z)`."""
    if node.op != "where" or not isinstance(node.inputs[1], str):
        return None
    cast = found.nodes.get(str(node.inputs[0]))
    total = found.nodes.get(str(cast.inputs[0])) if cast is not None and cast.op == "cast" else None
    zeros = found.nodes.get(str(total.inputs[0])) if total is not None and total.op == "add" else None
    number = total.inputs[1] if total is not None and len(total.inputs) == 2 else None
    if isinstance(number, str) and (constant := found.nodes.get(number)) is not None and constant.op == "constant":
        value = found.tensors[str(constant.attrs["tensor"])]
        number = value.item() if value.ndim == 0 else None
    always = zeros is not None and zeros.op == "zeros_like" and isinstance(number, int | float) and bool(number)
    same = found.dims(node.name) is not None and found.dims(node.name) == found.dims(node.inputs[1])
    return node.inputs[1] if always and same else None


# -- shapes ---------------------------------------------------------------------------------------------------------------


def _reshape(found: _Rewriter, node: Node) -> Node | None:
    """A reshape that adds or removes an axis of size 1, or joins axes."""
    if node.op != "reshape":
        return None
    before, after = found.dims(node.inputs[0]), found.dims(node.name)
    if before is None or after is None:
        return None
    for axis in range(max(len(before), len(after)))[::-1]:
        if after[:axis] + after[axis + 1 :] == before and after[axis : axis + 1] == (1,):
            return Node(node.name, "unsqueeze", node.inputs[:1], {"axis": -1 if axis == len(before) else axis})
        if before[:axis] + before[axis + 1 :] == after and before[axis : axis + 1] == (1,):
            return Node(node.name, "squeeze", node.inputs[:1], {"axes": (axis,)})
    return _flattened(node, before, after)


def _flattened(node: Node, before: tuple[Dim, ...], after: tuple[Dim, ...]) -> Node | None:
    """`flatten` of the axes that differ, if they are of known sizes."""
    start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    behind = len(after) - start - 1
    joined = before[start : len(before) - behind]
    sizes = [size for size in joined if isinstance(size, int)]
    if (
        behind < 0
        or len(joined) < 2
        or len(sizes) < len(joined)
        or before[len(before) - behind :] != after[start + 1 :]
    ):
        return None
    if after[start] != torch.Size(sizes).numel():
        return None
    return Node(
        node.name, FLATTEN, node.inputs[:1], {"start": start, "stop": len(before) - 1 - behind if behind else -1}
    )


def _tile(found: _Rewriter, node: Node) -> Node | None:
    """Repetition along axes of size 1 is `expand`, which copies nothing."""
    dims = found.dims(node.inputs[0]) if node.op == "tile" else None
    times = node.inputs[1:]
    if dims is None or len(times) != len(dims) or any(n != 1 and dim != 1 for n, dim in zip(times, dims, strict=True)):
        return None
    sizes = tuple(n if dim == 1 and n != 1 else -1 for n, dim in zip(times, dims, strict=True))
    return Node(node.name, EXPAND, (node.inputs[0], *sizes), {})


def _concat(found: _Rewriter, node: Node) -> Node | None:
    """A `cat` of what a `cat` along the same axis gave is one `cat`."""
    rank = len(found.of(node.name).dims or ()) if node.op == "concat" else 0
    if not rank:
        return None
    axis = int(node.attrs["axis"]) % rank
    operands: list[Any] = []
    for ref in node.inputs:
        inner = found.nodes.get(ref) if isinstance(ref, str) else None
        same = inner is not None and inner.op == "concat" and int(inner.attrs["axis"]) % rank == axis
        operands += inner.inputs if inner is not None and same and found.uses[inner.name] == 1 else (ref,)
    return replace(node, inputs=tuple(operands)) if len(operands) > len(node.inputs) else None


def _positions(found: _Rewriter, node: Node) -> Node | None:
    """A lookup of all positions in order, which is then added to something: the table itself."""
    module = str(node.attrs["module"]) if node.op == "module" else ""
    constant = found.nodes.get(str(node.inputs[0])) if module and found.modules[module].type == "Embedding" else None
    readers = found.readers.get(node.name, [])
    if constant is None or constant.op != "constant" or found.calls[module] != 1 or not readers:
        return None
    ids = found.tensors[str(constant.attrs["tensor"])]
    args = found.modules[module].args
    if ids.numel() != args["num_embeddings"] or not torch.equal(
        ids.flatten(), torch.arange(ids.numel(), dtype=ids.dtype)
    ):
        return None
    if ids.ndim > 2 or (ids.ndim == 2 and len(ids) != 1) or not all(_adds(found, node.name, one) for one in readers):
        return None
    sizes = {name: args[name] for name in ("num_embeddings", "embedding_dim")}
    found.modules[module] = ModuleSpec("PositionEmbedding", sizes)
    found.known[node.name] = replace(found.of(node.name), dims=(ids.numel(), args["embedding_dim"]))
    return replace(node, inputs=(ids.numel(),))


def _adds(found: _Rewriter, name: str, reader: Node) -> bool:
    """Whether a node adds a value to one of a higher rank."""
    others = [ref for ref in references(reader.inputs) if ref != name]
    return reader.op == "add" and len(others) == 1 and len(found.of(others[0]).dims or ()) > 2


_RULES: tuple[Rule, ...] = (_cast, _where, _ids, _reshape, _tile, _concat, _positions)
