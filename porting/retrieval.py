"""Retrieval: finds the index in a graph that scores queries against stored candidates, and takes it apart.

    query tower -> MatMul with the candidates, transposed -> TopKV2 -> Gather of the identifiers

is what TensorFlow Recommenders' `BruteForce` exports. Cut before the product, the graph is the query tower, and candidates and
identifiers are data: an exact index made from them gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.arrays import as_stored
from porting.cut import Cut
from porting.saved_model import SavedModel
from torch_towers.checkpoint import Candidates
from torch_towers.graph import Graph, Node, node_of

PASSES = frozenset({"Identity", "ReadVariableOp", "StopGradient", "Snapshot"})
"""Ops that hand a tensor on."""
_PRODUCTS = {"MatMul": "transpose_b", "BatchMatMul": "adj_y", "BatchMatMulV2": "adj_y", "BatchMatMulV3": "adj_y"}
DEFAULT_K = 10
"""For an index whose k the graph computes: TFRS's default."""
_GATHERS = frozenset({"GatherV2", "ResourceGather", "Gather"})


@dataclass(frozen=True)
class Retrieval:
    """An index that was found: its query embedding by reference, the candidates `[n, dim]`, their identifiers `[n]`, and k.

    `scores` and `ids` name the outputs that are the scores and the identifiers (or indices); None where no output is.
    """

    kind: str
    embedding: str
    candidates: np.ndarray[Any, Any] | None
    identifiers: np.ndarray[Any, Any] | None
    k: int | None
    scores: str | None = None
    ids: str | None = None
    variables: frozenset[str] = frozenset()  # what candidates and identifiers were read from

    def cut(self) -> Cut:
        """The query tower: from the graph's inputs to the query's embedding."""
        return Cut(fetches={"embedding": self.embedding})

    def stored(self) -> Candidates | None:
        """Candidates and identifiers as a checkpoint holds them; None where the export has none."""
        if self.candidates is None:
            return None
        ids = None if self.identifiers is None else as_stored(self.identifiers)
        return Candidates(as_stored(self.candidates), ids, self.k or DEFAULT_K)

    def described(self) -> str:
        """What was found, in a line."""
        if self.candidates is None:
            return f"{self.kind}: the candidates are not in the export; the query tower is"
        ids = "no identifiers" if self.identifiers is None else f"{_kind(self.identifiers)} identifiers"
        n, dim = self.candidates.shape
        return f"{self.kind}: {n} candidates of {dim}, {ids}, k = {'computed' if self.k is None else self.k}"


def _kind(array: np.ndarray[Any, Any]) -> str:
    return "string" if array.dtype == object else array.dtype.name


def find(graph: Graph, model: SavedModel) -> Retrieval | None:
    """The one index in a flat TF graph; None where there is none, or more than one."""
    reader = _Reader(graph, model)
    found = [item for node in graph.nodes if (item := reader.brute_force(node)) is not None]
    return found[0] if len(found) == 1 else None


class _Reader:
    """Looks backwards from a TopKV2 and forwards to what uses it."""

    def __init__(self, graph: Graph, model: SavedModel) -> None:
        self.graph, self.model = graph, model
        self.nodes: Mapping[str, Node] = {node.name: node for node in graph.nodes}
        self.read: set[str] = set()

    def brute_force(self, top: Node) -> Retrieval | None:
        """The index whose best candidates `top` selects."""
        if top.op not in ("TopKV2", "TopK"):
            return None
        self.read = set()
        product = self.producer(top.inputs[0])
        if (
            product is None
            or product.op not in _PRODUCTS
            or product.attrs.get("transpose_a")
            or product.attrs.get("adj_x")
        ):
            return None
        candidates = self._transposed(product.inputs[1], bool(product.attrs.get(_PRODUCTS[product.op])))
        if candidates is None:
            return None
        k = self.constant(top.inputs[1]) if top.op == "TopKV2" else np.asarray(top.attrs.get("k"))
        gather = self._gather(top)
        identifiers = None if gather is None else self.constant(gather.inputs[0])
        selected = f"{top.name}:indices" if gather is None else gather.name
        return Retrieval(
            "brute force index", self.passed(product.inputs[0]), candidates, identifiers,
            None if k is None else int(k), self._output(f"{top.name}:values"), self._output(selected),
            frozenset(self.read),
        )  # fmt: skip

    def _transposed(self, ref: str, transposed: bool) -> np.ndarray[Any, Any] | None:
        """The matrix whose transpose is the second factor, `[n, dim]`."""
        node = self.producer(ref)
        if not transposed and node is not None and node.op == "Transpose":
            order = self.constant(node.inputs[1])
            if order is not None and order.tolist() == [1, 0]:
                ref, transposed = node.inputs[0], True
        matrix = self.constant(ref) if transposed else None
        return matrix if matrix is not None and matrix.ndim == 2 and matrix.dtype.kind == "f" else None

    def _gather(self, top: Node) -> Node | None:
        """The gather of the identifiers `[n]` at the places that `top` gives."""
        for node in self.graph.nodes:
            if node.op in _GATHERS and _names_result(self.passed(node.inputs[1]), top.name, "indices", 1):
                table = self.constant(node.inputs[0])
                if table is not None and table.ndim == 1:
                    return node
        return None

    def _output(self, wanted: str) -> str | None:
        """The output of the graph that is `wanted`: a node's only result, or "node:values", "node:indices"."""
        name, _, argument = wanted.partition(":")
        for output, ref in self.graph.outputs.items():
            ref = self.passed(ref)
            if argument and _names_result(ref, name, argument, ("values", "indices").index(argument)):
                return output
            if not argument and node_of(ref) == name:
                return output
        return None

    def passed(self, ref: str) -> str:
        """`ref` before the nodes that only hand it on."""
        while (node := self.nodes.get(node_of(ref))) is not None and node.op in PASSES and node.inputs:
            if node.op == "ReadVariableOp":
                break
            ref = node.inputs[0]
        return ref

    def producer(self, ref: str) -> Node | None:
        """The node that computes `ref`, looked at through those that hand it on."""
        return self.nodes.get(node_of(self.passed(ref)))

    def constant(self, ref: str) -> np.ndarray[Any, Any] | None:
        """The value of a constant or variable."""
        node = self.producer(ref)
        while node is not None and node.op == "ReadVariableOp":
            node = self.producer(node.inputs[0])
        if node is None:
            return None
        if "variable" in node.attrs:
            self.read.add(str(node.attrs["variable"]))
            value = self.model.variables[str(node.attrs["variable"])].numpy()
        elif node.op == "Const" and "value" in node.attrs:
            value = node.attrs["value"]
        else:
            return None
        return value if isinstance(value, np.ndarray) else None


def _names_result(ref: str, node: str, argument: str, index: int) -> bool:
    """Whether `ref` is the result `argument`, the `index`-th, of `node`: "top:indices:0" in a function, "top:1" in a graph."""
    name, _, rest = ref.partition(":")
    return name == node and (rest in (f"{argument}:0", argument) or rest == str(index) or (rest == "" and index == 0))
