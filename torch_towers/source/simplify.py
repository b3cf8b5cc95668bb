"""Simplifies an encoder's graph to the form that one would write by hand: no duplicates, no dead code, no shape
arithmetic.

Every rewrite preserves the numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_towers.graph.graph import Graph, ModuleSpec, Node, bodies, node_of, references
from torch_towers.graph.names import numbered
from torch_towers.source.layout import FreeSize, Known, Layout, layout
from torch_towers.tower import Tower

_IDEMPOTENT = frozenset(("logical_or", "logical_and", "maximum", "minimum", "bitwise_and", "bitwise_or"))
_SHAPED = frozenset(("reshape", "slice", "broadcast_to"))  # what gives its operand where it gives its shape
_SIZES = frozenset(("size_add", "size_sub", "size_mul", "size_floordiv", "size_mod", "size_max", "size_min"))


@dataclass(frozen=True, slots=True)
class Simplified:
    """The graph, the layout including new nodes, and weights that the checkpoint has under other names."""

    graph: Graph
    known: dict[str, Known]
    aliases: dict[str, str]


def simplified(tower: Tower) -> Simplified:
    """The simplified encoder, in topological order."""
    known, free = layout(tower)
    graph = _with_sizes_of_inputs(tower.encoder.graph, known, free)
    graph = _without_flattening(graph, known)
    graph = ordered(_without_repetition(graph))
    graph, aliases = _with_biases(graph, known)
    return Simplified(ordered(graph), known, aliases)


def ordered(graph: Graph) -> Graph:
    """The live nodes, each as late as possible, in a walk backwards from the outputs."""
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, Node] = {}
    stack = [(name, False) for name in reversed([node_of(ref) for ref in graph.outputs.values()])]
    while stack:
        name, visited = stack.pop()
        if name in found or name not in nodes:
            continue
        if visited:
            found[name] = nodes[name]
            continue
        stack.append((name, True))
        stack += [(node_of(ref), False) for ref in reversed([*references(nodes[name].inputs)])]
    used = {str(node.attrs["module"]) for node in found.values() if node.op == "module"}
    used |= {str(n) for node in found.values() for n in node.attrs.get("holds", ())}
    modules = {name: spec for name, spec in graph.modules.items() if name in used}
    return Graph(graph.inputs, tuple(found.values()), graph.outputs, modules)


def renamed(operands: tuple[Any, ...], names: Mapping[str, Any]) -> tuple[Any, ...]:
    """Operands with replaced values: `names` maps a reference, or a node, to its replacement."""
    return tuple(_renamed(operand, names) for operand in operands)


def _renamed(operand: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(operand, tuple):
        return renamed(operand, names)  # type: ignore[reportUnknownArgumentType]
    if not isinstance(operand, str):
        return operand
    if operand in names:
        return names[operand]
    name, _, index = operand.partition(":")
    return f"{names[name]}:{index}" if index and isinstance(names.get(name), str) else operand


def _rewritten(graph: Graph, nodes: list[Node], names: Mapping[str, Any]) -> Graph:
    outputs = {name: str(_renamed(ref, names)) for name, ref in graph.outputs.items()}
    return Graph(graph.inputs, tuple(nodes), outputs, graph.modules)


def _with_sizes_of_inputs(graph: Graph, layout: dict[str, Known], free: Sequence[FreeSize]) -> Graph:
    """Replaces sizes that equal an input's size by that, and fixed sizes by their number."""
    taken = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs}
    names: dict[str, Any] = {}
    nodes: list[Node] = []
    symbols: dict[str, str] = {}
    for size in free:
        if size.axis is None:
            symbols[size.name] = size.input
            continue
        name = numbered(size.name, taken.__contains__)
        symbols[size.name] = name
        nodes.append(Node(name, "size", (size.input,), {"axis": size.axis}))
        layout[name] = Known("size", (size.name,))
    held = set(graph.outputs.values())
    for node in graph.nodes:
        node = replace(node, inputs=renamed(node.inputs, names))
        dims = layout[node.name].dims if layout.get(node.name, Known()).dtype == "size" else None
        if dims and (node.op == "size" or node.op in _SIZES) and node.name not in held:
            (dim,) = dims
            if isinstance(dim, int):
                names[node.name] = dim
                continue
            if dim in symbols:
                names[node.name] = symbols[dim]
                continue
        nodes.append(node)
    return _rewritten(graph, nodes, names)


def _without_flattening(graph: Graph, layout: Layout) -> Graph:
    """Removes the reshapes around Keras's products of higher rank: torch's Linear takes leading axes."""
    nodes = {node.name: node for node in graph.nodes}
    names: dict[str, Any] = {}
    made: list[Node] = []

    def dims(ref: Any) -> tuple[Any, ...] | None:
        known = layout.get(ref) if isinstance(ref, str) else None
        return None if known is None or known.dims is None or None in known.dims else known.dims

    for node in graph.nodes:
        node = replace(node, inputs=renamed(node.inputs, names))
        after = dims(node.name)
        if (
            node.op in _SHAPED
            and after is not None
            and after == dims(node.inputs[0])
            and node.attrs.get("step", 1) == 1
        ):
            names[node.name] = node.inputs[0]
            continue
        if node.op == "reshape" and isinstance(node.inputs[0], str):
            linear = nodes.get(node.inputs[0])
            flat = nodes.get(str(linear.inputs[0])) if linear is not None and _is_linear(graph, linear) else None
            if linear is not None and flat is not None and flat.op == "reshape" and after is not None:
                source = _renamed(flat.inputs[0], names)
                before = dims(source)
                flattened = dims(flat.name) or ()
                if (
                    before is not None
                    and before[:-1] == after[:-1]
                    and len(flattened) == 2
                    and flattened[1] == before[-1]
                ):
                    made.append(replace(node, op="module", inputs=(source,), attrs=linear.attrs))
                    continue
        made.append(node)
    return _rewritten(graph, made, names)


def _is_linear(graph: Graph, node: Node) -> bool:
    spec: ModuleSpec | None = graph.modules.get(str(node.attrs["module"])) if node.op == "module" else None
    return spec is not None and spec.type == "Linear"


def _without_repetition(graph: Graph) -> Graph:
    """Merges equal nodes; `x or x` becomes `x`."""
    names: dict[str, Any] = {}
    seen: dict[Any, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=renamed(node.inputs, names))
        if node.op in _IDEMPOTENT and len(node.inputs) == 2 and node.inputs[0] == node.inputs[1]:
            names[node.name] = node.inputs[0]
            continue
        if node.op == "identity":
            names[node.name] = node.inputs[0]
            continue
        key = (node.op, repr(node.inputs), tuple(sorted((k, repr(v)) for k, v in node.attrs.items())))
        if bodies(node):
            key = (node.name,)
        known = seen.setdefault(key, node.name)
        if known != node.name:
            names[node.name] = known
            continue
        nodes.append(node)
    return _rewritten(graph, nodes, names)


def _with_biases(graph: Graph, layout: Layout) -> tuple[Graph, dict[str, str]]:
    """Merges a product and its bias into one Linear, whose weights keep their names in the checkpoint."""
    nodes = {node.name: node for node in graph.nodes}
    uses = Counter(node_of(ref) for node in graph.nodes for ref in references(node.inputs))
    calls = Counter(str(node.attrs["module"]) for node in graph.nodes if node.op == "module")
    modules = dict(graph.modules)
    aliases: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "add" or not all(isinstance(ref, str) for ref in node.inputs):
            continue
        linear, bias = (nodes.get(str(ref)) for ref in node.inputs)
        if linear is None or bias is None or bias.op != "parameter" or not _is_linear(graph, linear):
            continue
        name = str(linear.attrs["module"])
        args = graph.modules[name].args
        known = layout.get(bias.name)
        if uses[linear.name] != 1 or calls[name] != 1 or args.get("bias", True) or known is None:
            continue
        if known.dims != (args["out_features"],) or linear.name in graph.outputs.values():
            continue
        tensor = str(bias.attrs["tensor"])
        new = tensor.rpartition(".")[0] or name
        if new != name and (new in modules or any(other.startswith(f"{new}.") and other != name for other in modules)):
            new = name
        modules[new] = ModuleSpec("Linear", {**args, "bias": True})
        aliases |= {f"{new}.weight": f"{name}.weight", f"{new}.bias": tensor}
        made[node.name] = replace(linear, name=node.name, attrs={"module": new})
    changed = replace(graph, nodes=tuple(made.get(node.name, node) for node in graph.nodes), modules=modules)
    return changed, aliases
