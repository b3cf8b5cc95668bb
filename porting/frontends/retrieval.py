"""Finds the index in a graph that scores queries against stored candidates, and splits it.

    query tower -> MatMul with the candidates, transposed -> TopKV2 -> Gather of the identifiers

is what TensorFlow Recommenders' `BruteForce` exports. Before the product, the graph is the query tower; candidates and
identifiers are data: an exact index of them gives the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from porting.errors import PortingError
from porting.flat_graph import subgraph as cutting
from porting.flat_graph.effects import Functions
from porting.flat_graph.flatten import as_graph, flatten
from porting.flat_graph.subgraph import Cut
from porting.frontends.datasets import elements
from porting.saved_model import SavedModel
from porting.saved_model.names import Names
from torch_towers.checkpoint.checkpoint import Candidates
from torch_towers.formats.npz import as_stored
from torch_towers.graph.graph import Graph, Node, node_of

PASSES = frozenset({"Identity", "ReadVariableOp", "StopGradient", "Snapshot"})
"""Ops that pass a tensor through."""
_PRODUCTS = {"MatMul": "transpose_b", "BatchMatMul": "adj_y", "BatchMatMulV2": "adj_y", "BatchMatMulV3": "adj_y"}
DEFAULT_K = 10
"""TFRS's default k, for an index whose k is computed by the graph."""
_GATHERS = frozenset({"GatherV2", "ResourceGather", "Gather"})


@dataclass(frozen=True)
class Retrieval:
    """An index: the reference of its query embedding, the candidates `[n, dim]`, their identifiers `[n]`, and k.

    `scores` and `ids` name the outputs with scores and identifiers (or indices); None if there is none.
    """

    kind: str
    embedding: str
    candidates: np.ndarray[Any, Any] | None
    identifiers: np.ndarray[Any, Any] | None
    k: int | None
    scores: str | None = None
    ids: str | None = None
    variables: frozenset[str] = frozenset()  # the sources of candidates and identifiers

    def cut(self) -> Cut:
        """The query tower: from the graph's inputs to the query's embedding."""
        return Cut(fetches={"embedding": self.embedding})

    def stored(self) -> Candidates | None:
        """Candidates and identifiers for a checkpoint; None if the export has none."""
        if self.candidates is None:
            return None
        ids = None if self.identifiers is None else as_stored(self.identifiers)
        return Candidates(as_stored(self.candidates), ids, self.k or DEFAULT_K)

    def as_brute_force(self, graph: Graph, functions: Functions) -> Graph:
        """The index as a graph with one product with all candidates. Ties go to the earlier candidate, as in a merge of
        batches."""
        assert self.candidates is not None and self.identifiers is not None and self.k is not None
        tower = cutting.apply(graph, self.cut(), functions)
        names = Names({node.name for node in tower.nodes} | {spec.name for spec in tower.inputs})
        name = {
            part: names.unique(f"index/{part}")
            for part in ("candidates", "scores", "k", "top", "ids", "axis", "gather")
        }
        k = np.array(min(self.k, len(self.candidates)), np.int32)
        constants = {"candidates": self.candidates, "k": k, "ids": self.identifiers, "axis": np.array(0, np.int32)}
        nodes = [Node(name[part], "Const", (), {"value": value}) for part, value in constants.items()]
        attrs = {"transpose_a": False, "transpose_b": True}
        nodes += [
            Node(name["scores"], "MatMul", (self.embedding, name["candidates"]), attrs),
            Node(name["top"], "TopKV2", (name["scores"], name["k"]), {"sorted": True}),
            Node(name["gather"], "GatherV2", (name["ids"], f"{name['top']}:1", name["axis"]), {"batch_dims": 0}),
        ]
        outputs = {self.scores: name["top"], self.ids: name["gather"]}
        kept = {output: ref for output, ref in outputs.items() if output is not None}
        return Graph(
            tower.inputs, (*tower.nodes, *nodes), {output: kept[output] for output in graph.outputs if output in kept}
        )

    def described(self) -> str:
        """A one-line description."""
        if self.candidates is None:
            return f"{self.kind}: the candidates are not in the export; the query tower is"
        ids = "no identifiers" if self.identifiers is None else f"{_kind(self.identifiers)} identifiers"
        n, dim = self.candidates.shape
        return f"{self.kind}: {n} candidates of {dim}, {ids}, k = {'computed' if self.k is None else self.k}"


def _kind(array: np.ndarray[Any, Any]) -> str:
    return "string" if array.dtype == object else array.dtype.name


def find(graph: Graph, model: SavedModel) -> Retrieval | None:
    """The only index in a flat TF graph; None if there is none, or several."""
    reader = _Reader(graph, model)
    found: list[Retrieval] = []
    for node in graph.nodes:
        item = reader.brute_force(node) or reader.streaming(node) or reader.scann(node)
        found += [] if item is None else [item]
    return found[0] if len(found) == 1 else None


def runnable(graph: Graph, model: SavedModel) -> Graph:
    """`graph` with a Streaming index replaced by an equivalent product, TopKV2 and Gather; other graphs unchanged.

    Errors: `PortingError` names the ops of other tf.data pipelines, or of ScaNN, and says what to port instead.
    """
    searchers = sorted({node.op for node in graph.nodes if node.op.startswith("Scann>")})
    if searchers:
        raise PortingError(
            f"this entry searches with ScaNN ({', '.join(searchers)}), whose searcher runs only in ScaNN's own library: "
            "port the query tower before it (--query without --whole), and search the candidates with an index made from it"
        )
    reduce = next((node for node in graph.nodes if node.op == "ReduceDataset"), None)
    pipeline = sorted({node.op for node in graph.nodes if node.op.endswith(("Dataset", "DatasetV2", "DatasetV3"))})
    if not pipeline:
        return graph
    reason = "it is not the pipeline of a TensorFlow Recommenders Streaming index"
    found = None
    if reduce is not None:
        try:
            found = _Reader(graph, model).streaming(reduce)
        except PortingError as error:
            reason = str(error)
    if found is None or found.candidates is None:
        where = (reduce or next(node for node in graph.nodes if node.op in pipeline)).name
        raise PortingError(
            f"this entry runs a tf.data pipeline ({', '.join(pipeline)}) at {where!r}, which cannot be ported: {reason}; port the "
            "query model alone (--query-signature query_model.__call__; --inspect lists the functions) and the candidates beside it"
        )
    return found.as_brute_force(graph, model.functions)


class _Reader:
    """Matches backwards from a TopKV2, and forwards to its users."""

    def __init__(self, graph: Graph, model: SavedModel) -> None:
        self.graph, self.model = graph, model
        self.nodes: Mapping[str, Node] = {node.name: node for node in graph.nodes}
        self.read: set[str] = set()

    def brute_force(self, top: Node) -> Retrieval | None:
        """The index from which `top` selects."""
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

    def streaming(self, reduce: Node) -> Retrieval | None:
        """The index whose batches of candidates `reduce` merges: `Streaming`.

        Source: Streaming.call, tensorflow_recommenders/layers/factorized_top_k.py.
        """
        scoring = self.producer(reduce.inputs[0]) if reduce.op == "ReduceDataset" else None
        if (
            scoring is None
            or "f" not in scoring.attrs
            or not scoring.op.startswith(("MapDataset", "ParallelMapDataset"))
        ):
            return None
        self.read = set()
        captured = scoring.inputs[1:2]
        scored, merged = self._body(scoring), self._body(reduce)
        k = _streams(scored, merged)
        if k is None or not captured or self._is_variable(captured[0]):
            return None
        rows = list(elements(scoring.inputs[0], self.nodes, self.constant, self.model))
        if not rows or any(len(row) != 2 for row in rows):
            return None
        identifiers, candidates = (np.concatenate(column) for column in zip(*rows, strict=True))
        scores, ids = (self._output(f"{reduce.name}:components", index) for index in (0, 1))
        read = frozenset(self.read)
        return Retrieval("streaming index", self.passed(captured[0]), candidates, identifiers, k, scores, ids, read)

    def _body(self, node: Node) -> Graph:
        return flatten(as_graph(self.model.functions[node.attrs["f"].name]), self.model.functions)

    def _is_variable(self, ref: str) -> bool:
        node = self.producer(ref)
        return node is None or "variable" in node.attrs

    def scann(self, search: Node) -> Retrieval | None:
        """The index that ScaNN searches: its searcher is not portable; its candidates are in the export if it reorders
        by them.

        Source: scann/scann_ops/cc/ops/scann_ops.cc and py/scann_ops.py (google-research).
        """
        if not search.op.startswith("Scann>ScannSearch") or len(search.inputs) < 3:
            return None
        self.read = set()
        searcher = self.producer(search.inputs[0])
        dataset = config = None
        if searcher is not None and searcher.op == "Scann>TensorsToScann":
            dataset, config = self.constant(searcher.inputs[0]), self.constant(searcher.inputs[1])
        dot = config is None or b"DotProduct" in bytes(config.reshape(-1)[0])
        if dataset is not None and (dataset.ndim != 2 or dataset.size == 0 or not dot):
            dataset = None  # only quantized, or with another distance
        gather = self._gather(search)
        identifiers = None if gather is None else self.constant(gather.inputs[0])
        k = self.constant(search.inputs[2])
        return Retrieval(
            "ScaNN index", self.passed(search.inputs[1]), dataset, identifiers, None if k is None or k < 1 else int(k),
            variables=frozenset(self.read),
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
        """The gather of the identifiers `[n]` at the indices of `top`."""
        for node in self.graph.nodes:
            place = self.passed(node.inputs[1]) if node.op in _GATHERS else ""
            if any(_names_result(place, top.name, word, index) for word, index in _places(top)):
                table = self.constant(node.inputs[0])
                if table is not None and table.ndim == 1:
                    return node
        return None

    def _output(self, wanted: str, index: int | None = None) -> str | None:
        """The graph output that is `wanted`: a node's only result, "node:values" and "node:indices", or an element of a
        list."""
        name, _, argument = wanted.partition(":")
        for output, ref in self.graph.outputs.items():
            ref = self.passed(ref)
            if index is not None and ref in (
                f"{name}:{argument}:{index}",
                f"{name}:{index}",
                name if index == 0 else "",
            ):
                return output
            if index is None and argument and _names_result(ref, name, argument, ("values", "indices").index(argument)):
                return output
            if not argument and node_of(ref) == name:
                return output
        return None

    def passed(self, ref: str) -> str:
        """`ref`, looking through nodes that only pass it through."""
        while (node := self.nodes.get(node_of(ref))) is not None and node.op in PASSES and node.inputs:
            if node.op == "ReadVariableOp":
                break
            ref = node.inputs[0]
        return ref

    def producer(self, ref: str) -> Node | None:
        """The producer of `ref`, looking through pass-through nodes."""
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
        return cast("np.ndarray[Any, Any]", value) if isinstance(value, np.ndarray) else None


def _places(node: Node) -> list[tuple[str, int]]:
    """The results of `node` that are the indices of the best candidates."""
    return [("indices", 0), ("index", 0)] if node.op.startswith("Scann>") else [("indices", 1)]


def _streams(scored: Graph, merged: Graph) -> int | None:
    """k, if one function scores a batch of candidates and the other merges two top-k lists, the earlier one first."""
    best, kept = _top(scored), _top(merged)
    if best is None or kept is None or best[1] != kept[1]:
        return None
    product, joined = best[0], kept[0]
    queries = scored.inputs[2].name if len(scored.inputs) == 3 else ""
    first = [spec.name for spec in merged.inputs]
    scores = (
        product.op == "MatMul"
        and product.attrs.get("transpose_b")
        and list(product.inputs) == [queries, scored.inputs[1].name]
    )
    joins = joined.op == "ConcatV2" and len(first) == 4 and list(joined.inputs[:2]) == [first[0], first[2]]
    return best[1] if scores and joins else None


def _top(body: Graph) -> tuple[Node, int] | None:
    """The operand of a function's only TopKV2, and k (the minimum with the number of scores)."""
    nodes = {node.name: node for node in body.nodes}
    tops = [node for node in body.nodes if node.op == "TopKV2"]
    if len(tops) != 1 or not {nodes[node_of(ref)].op for ref in body.outputs.values()} <= {
        "Identity",
        "TopKV2",
        "GatherV2",
    }:
        return None
    source, k = nodes.get(node_of(tops[0].inputs[0])), nodes.get(node_of(tops[0].inputs[1]))
    if k is not None and k.op == "Minimum":
        k = next((nodes[node_of(ref)] for ref in k.inputs if nodes[node_of(ref)].op == "Const"), None)
    if source is None or k is None or k.op != "Const":
        return None
    return source, int(k.attrs["value"])


def _names_result(ref: str, node: str, argument: str, index: int) -> bool:
    """Whether `ref` is the result `argument`, the `index`-th, of `node`: "top:indices:0" in a function, "top:1" in a
    graph."""
    name, _, rest = ref.partition(":")
    return name == node and (rest in (f"{argument}:0", argument) or rest == str(index) or (rest == "" and index == 0))
