"""Splits a tower's graph into preprocessing on the host, the encoder, and postprocessing on the host.

The cut is where the last string or table value becomes a number. Ops that decide an id (bucketize, a cast from float to
id) and ops whose result size depends on values also go before the encoder. So the encoder has only tensors with a
dynamic batch size, and compiles and exports as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from porting.conversion.values import Value
from porting.crossing_names import origin, wanted_name
from porting.lifting.editable import exchanged
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Graph, Node, Size, TensorSpec, node_of, references
from torch_towers.graph.names import numbered
from torch_towers.graph.registry import MODULES, OPS, Stage
from torch_towers.program.binding import is_layer
from torch_towers.program.program import stored_names

SOURCES = frozenset({"parameter", "constant"})
"""Nodes without operands: each stage that uses one gets a copy."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The three graphs of a tower. `postprocess` is None if the encoder's outputs are the tower's.

    `crossing` maps the name of each value passed between stages to its reference in the whole graph, before any check
    of its range.
    """

    preprocess: Graph
    encoder: Graph
    postprocess: Graph | None
    crossing: Mapping[str, str]


def split(graph: Graph, known: Mapping[str, Value]) -> Parts:
    """Splits `graph` into three stages. `known` has the inferred dtypes and shapes of its values."""
    parts = _parts(graph, known)
    graph = _with_checked_ids(graph, parts)
    border = _Border(*_with_own_sizes(graph, known, parts))
    cuts = border.cut("preprocess"), border.cut("encoder"), border.cut_postprocess()
    return Parts(*cuts, {name: origin(ref, border.nodes) for ref, name in border.names.items()})


def _parts(graph: Graph, known: Mapping[str, Value]) -> dict[str, str]:
    """The stage of each node: "preprocess", "encoder" or "postprocess"."""
    weighted, after, before = _weighted(graph, known), set[str](), set[str]()
    kept = weighted | _lists_for(weighted, graph, known)
    for node in graph.nodes:
        operands = [node_of(ref) for ref in references(node.inputs)]
        stage = _stage(node, graph, known)
        if not after.isdisjoint(operands) or (stage == "host" and node.name in weighted):
            after.add(node.name)
        elif stage == "host" or (stage == "early" and node.name not in kept):
            before.add(node.name)
    for node in reversed(graph.nodes):
        if node.name in before:
            before |= {node_of(ref) for ref in references(node.inputs)}
    return {
        node.name: "postprocess" if node.name in after else "preprocess" if node.name in before else "encoder"
        for node in graph.nodes
        if node.op not in SOURCES
    }


def _weighted(graph: Graph, known: Mapping[str, Value]) -> set[str]:
    """The nodes that depend on a weight."""
    found: set[str] = set()
    for node in graph.nodes:
        operands = {node_of(ref) for ref in references(node.inputs)}
        if not found.isdisjoint(operands) or any(_is_weight(inner, of, known) for inner, of in _all(node, graph)):
            found.add(node.name)
    return found


def _lists_for(weighted: set[str], graph: Graph, known: Mapping[str, Value]) -> set[str]:
    """The tensor lists that the encoder fills: they are created there, because only tensors cross between stages."""
    users: dict[str, set[str]] = {}
    for node in graph.nodes:
        for ref in references(node.inputs):
            if ref in known and known[ref].dtype == "variant":
                users.setdefault(node_of(ref), set()).add(node.name)
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if not (weighted | found).isdisjoint(users.get(node.name, ())):
            found.add(node.name)
    return found


def _is_weight(node: Node, graph: Graph, known: Mapping[str, Value]) -> bool:
    """Whether `node` is a weight, or a layer with weights."""
    if node.op == "module":
        return is_layer(MODULES[graph.modules[str(node.attrs["module"])].type]) and bool(_held(node, graph))
    return node.op == "parameter" and (known[node.name].dtype in FLOATS if node.name in known else True)


def _held(node: Node, graph: Graph) -> list[str]:
    name = str(node.attrs["module"])
    return stored_names(name, graph.modules[name])


def _all(node: Node, graph: Graph) -> Iterator[tuple[Node, Graph]]:
    """`node` and all nodes of its branches and bodies, each with its graph."""
    yield node, graph
    for value in node.attrs.values():
        if isinstance(value, Graph):
            for inner in value.nodes:
                yield from _all(inner, value)


def _stage(node: Node, graph: Graph, known: Mapping[str, Value]) -> Stage:
    if node.op in SOURCES:
        return "tensor"
    stages = {_own_stage(inner, of) for inner, of in _all(node, graph) if inner.op not in SOURCES}
    touched = [node.name, f"{node.name}:0", *references(node.inputs)]
    if "host" in stages or any(ref in known and known[ref].dtype == "string" for ref in touched):
        return "host"
    return "early" if "early" in stages else "tensor"


def _own_stage(node: Node, graph: Graph) -> Stage:
    if node.op == "module":
        return MODULES[graph.modules[str(node.attrs["module"])].type].stage
    return OPS[node.op].stage


def _with_checked_ids(graph: Graph, parts: Mapping[str, str]) -> Graph:
    """Lets the encoder read ids that `preprocess` checks after their checks alone: they cross once, not twice.

    Several checks of the same ids become one after the other: the last has passed them all. One that an earlier check
    implies is left out.
    """
    last: dict[str, str] = {}  # check of each value
    source: dict[str, str] = {}  # what each check checks
    limits: dict[str, int] = {}  # the smallest of the limits so far
    spared: dict[str, str] = {}  # a check that an earlier one implies -> that one's end
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=exchanged(node.inputs, spared))
        if node.op == "in_range" and parts.get(node.name) == "preprocess":
            ids, limit = str(node.inputs[0]), node.inputs[1]
            source[node.name] = ids = source.get(ids, ids)
            if isinstance(limit, int) and limit >= limits.get(ids, limit + 1):
                spared[node.name] = last[ids]
                continue
            if isinstance(limit, int):
                limits[ids] = limit
            node = replace(node, inputs=(last.get(ids, ids), limit))
            last[ids] = node.name
        nodes.append(node)
    new = last | {check: last[ids] for check, ids in source.items()}
    return replace(
        graph,
        nodes=tuple(
            replace(node, inputs=exchanged(node.inputs, new)) if parts.get(node.name) == "encoder" else node
            for node in nodes
        ),
        outputs={name: spared.get(ref, ref) for name, ref in graph.outputs.items()},
    )


def _with_own_sizes(
    graph: Graph, known: Mapping[str, Value], parts: dict[str, str]
) -> tuple[Graph, Mapping[str, Value], dict[str, str]]:
    """Lets the encoder read sizes from tensors that it gets anyway, instead of getting them as integers.

    An integer input would be a constant of the compiled and exported encoder; the size of a tensor stays dynamic. For

        preprocess:  ids = hash(texts);  n = size(texts, axis=0)          n: the symbol "batch", as ids.shape[0]
        encoder:     x = gather(weight, ids);  y = reshape(x, n, 4)

    `ids` crosses, and its axis 0 is "batch" too. So the encoder gets a copy, `n_2 = size(ids, axis=0)`, and `n` no
    longer crosses. Arithmetic of such sizes (`size_mul`, ...) is copied with its operands.
    """
    crossing = _Border(graph, known, parts).crossing["encoder"]
    copies = _size_copies(graph, known, parts, _carriers(crossing, known))
    wanted = {copies[ref].name for ref in crossing if ref in copies}
    kept: list[Node] = []
    for copy in reversed(copies.values()):
        if copy.name in wanted:
            wanted |= set(references(copy.inputs))
            kept.insert(0, copy)
    if not kept:
        return graph, known, parts
    new = {name: copy.name for name, copy in copies.items()}
    nodes = [replace(n, inputs=exchanged(n.inputs, new)) if parts.get(n.name) == "encoder" else n for n in graph.nodes]
    known = {**known, **{copy.name: Value(copy.name, "size", ()) for copy in kept}}
    parts = {**parts, **{copy.name: "encoder" for copy in kept}}
    return replace(graph, nodes=(*kept, *nodes)), known, parts  # the copies read inputs of the encoder


def _carriers(crossing: list[str], known: Mapping[str, Value]) -> dict[Size, tuple[str, int]]:
    """Maps each size of a tensor that crosses to the tensor and the axis to read it from."""
    carriers: dict[Size, tuple[str, int]] = {}
    for ref in crossing:
        value = known.get(ref)
        if value is not None and value.dtype not in ("string", "size", "variant", None):
            for axis, size in enumerate(value.shape or ()):
                carriers.setdefault(size, (ref, axis))
    return carriers


def _size_copies(
    graph: Graph, known: Mapping[str, Value], parts: Mapping[str, str], carriers: Mapping[Size, tuple[str, int]]
) -> dict[str, Node]:
    """The sizes of `preprocess` that the encoder can compute itself, with the nodes that do so."""
    taken = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs} | set(graph.outputs)
    copies: dict[str, Node] = {}
    for node in graph.nodes:
        copy = _own_size(node, known, carriers, copies) if parts.get(node.name) == "preprocess" else None
        if copy is not None:
            copies[node.name] = replace(copy, name=numbered(node.name, taken.__contains__))
            taken.add(copies[node.name].name)
    return copies


def _own_size(
    node: Node, known: Mapping[str, Value], carriers: Mapping[Size, tuple[str, int]], copies: Mapping[str, Node]
) -> Node | None:
    """The node that computes the same size in the encoder; None if `node` is not a size, or no crossing tensor has
    it."""
    if node.op == "size":
        source = known.get(node.inputs[0])
        size = None if source is None or source.shape is None else source.shape[node.attrs["axis"]]
        if not isinstance(size, str) or size not in carriers:
            return None
        ref, axis = carriers[size]
        return replace(node, inputs=(ref,), attrs={"axis": axis})
    if node.op.startswith("size_") and all(ref in copies for ref in references(node.inputs)):
        return replace(node, inputs=exchanged(node.inputs, {name: copy.name for name, copy in copies.items()}))
    return None


class _Border:
    """The values passed from one stage to the next, and their names."""

    def __init__(self, graph: Graph, known: Mapping[str, Value], parts: Mapping[str, str]) -> None:
        self.graph, self.known, self.parts = graph, known, parts
        self.nodes = {node.name: node for node in graph.nodes}
        self.inputs = {spec.name: spec for spec in graph.inputs}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for ref in dict.fromkeys(references(node.inputs)):
                self.readers.setdefault(ref, []).append(node)
        self.names: dict[str, str] = {}
        self._taken = {*graph.outputs, *self.inputs, *self.nodes}
        self.outputs = {name: self._part_of_output(ref) for name, ref in graph.outputs.items()}
        self.crossing = {part: self._crossing(part) for part in ("encoder", "postprocess")}

    def part_of(self, ref: str) -> str:
        name = node_of(ref)
        return "preprocess" if name in self.inputs else self.parts.get(name, "")

    def _part_of_output(self, ref: str) -> str:
        """The stage that returns an output computed by preprocessing alone: the encoder for a tensor, else
        postprocessing."""
        part = self.part_of(ref)
        if part == "postprocess" or (self.known[ref].dtype in ("string", "variant") if ref in self.known else False):
            return "postprocess"
        if part == "" and self.nodes[node_of(ref)].op == "constant":
            return "postprocess" if ref in self.known and self.known[ref].dtype == "string" else "encoder"
        return "encoder"

    def _crossing(self, part: str) -> list[str]:
        """The references that `part` takes from earlier stages."""
        found: dict[str, None] = {}
        for node in self.graph.nodes:
            if self.parts.get(node.name) == part:
                found.update(dict.fromkeys(references(node.inputs)))
        found.update({ref: None for name, ref in self.graph.outputs.items() if self.outputs[name] == part})
        return [ref for ref in found if self.part_of(ref) not in (part, "")]

    def name(self, ref: str) -> str:
        """The name under which `ref` crosses: the input's own, or one derived from the node's."""
        if ref not in self.names:
            source = origin(ref, self.nodes)
            wanted = wanted_name(
                ref, source, self.graph, self.readers.get(ref, ()), is_id=self.known[ref].dtype in ("int32", "int64")
            )
            own = {ref, source} - {*self.names.values()}
            self.names[ref] = numbered(wanted, lambda name: name in self._taken and name not in own)
            self._taken.add(self.names[ref])
        return self.names[ref]

    def cut(self, part: str) -> Graph:
        """The graph of one stage."""
        inputs = self.graph.inputs if part == "preprocess" else tuple(self._spec(ref) for ref in self.crossing[part])
        renamed = {} if part == "preprocess" else {ref: self.name(ref) for ref in self.crossing[part]}
        own = [node for node in self.graph.nodes if self.parts.get(node.name) == part]
        outputs = self._outputs(part, renamed)
        nodes = [Node(node.name, node.op, exchanged(node.inputs, renamed), node.attrs) for node in own]
        needed = {node_of(ref) for node in nodes for ref in references(node.inputs)} | {
            node_of(ref) for ref in outputs.values()
        }
        sources = [node for node in self.graph.nodes if node.op in SOURCES and node.name in needed]
        nodes = _without_clashes([*sources, *nodes], {spec.name for spec in inputs})
        used = dict.fromkeys(str(node.attrs["module"]) for node in nodes if node.op == "module")  # in order of use
        return Graph(inputs, tuple(nodes), outputs, {name: self.graph.modules[name] for name in used})

    def cut_postprocess(self) -> Graph | None:
        graph = self.cut("postprocess")
        return graph if graph.nodes or graph.outputs else None

    def _outputs(self, part: str, renamed: Mapping[str, str]) -> dict[str, str]:
        outputs = {
            name: exchanged(ref, renamed) for name, ref in self.graph.outputs.items() if self.outputs[name] == part
        }
        later = ["encoder", "postprocess"] if part == "preprocess" else ["postprocess"] if part == "encoder" else []
        for ref in (ref for other in later for ref in self.crossing[other]):
            if self.part_of(ref) == part:
                outputs.setdefault(self.name(ref), ref)
        return outputs

    def _spec(self, ref: str) -> TensorSpec:
        value = self.known.get(ref)
        shape = (
            None
            if value is None or value.shape is None
            else tuple(s if isinstance(s, int) else None for s in value.shape)
        )
        return TensorSpec(self.name(ref), (value.dtype if value else None) or "float32", shape)


def _without_clashes(nodes: list[Node], inputs: set[str]) -> list[Node]:
    clash = next((node.name for node in nodes if node.name in inputs), None)
    if clash is not None:
        raise AssertionError(f"{clash!r} is both a node and an input of one part")
    return nodes
