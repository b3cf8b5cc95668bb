"""Blocks: parts of a graph that come again and again, one behind the other, with other weights: the layers of a transformer.

A graph is cut where one value alone, of those that depend on weights, goes from what is before to what is behind. Parts between cuts
that are equal but for the names of their weights have one description; a run of equal ones is a loop over blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of, references
from torch_towers.source.simplify import ordered

BLOCKS = "blocks"
"""The op of a node that stands for a loop over blocks: `Node(name, BLOCKS, (first, *others), {"blocks": Blocks(...)})`."""

_WORTH = 8  # nodes that a loop must save


@dataclass(frozen=True, slots=True)
class Blocks:
    """`times` equal blocks. `graph` is the first of them: its first input is what goes through, the others are the same for all.

    `slots` are the weights and layers that `graph` names, each with the names that it has in block after block.
    """

    graph: Graph
    times: int
    slots: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Part:
    """What lies between two cuts: the value that comes in, the nodes, and the one that goes out, the last."""

    given: str
    nodes: tuple[Node, ...]


def with_blocks(graph: Graph) -> Graph:
    """The graph with a node for each run of equal blocks."""
    while (found := _longest(graph)) is not None:
        graph = _folded(graph, found)
    return graph


def _weighted(graph: Graph) -> list[Node]:
    """The nodes that depend on weights, weights themselves apart."""
    held: set[str] = set()
    found: list[Node] = []
    for node in graph.nodes:
        if node.op == "parameter":
            held.add(node.name)
        elif node.op in ("module", BLOCKS) or any(node_of(ref) in held for ref in references(node.inputs)):
            if node.op != "size":
                held.add(node.name)
                found.append(node)
    return found


def _parts(graph: Graph) -> list[_Part]:
    """The parts of the graph between cuts, in order; what stands before the first cut is none."""
    main = _weighted(graph)
    place = {node.name: i for i, node in enumerate(main)}
    last = dict.fromkeys(place, -1)
    for node in graph.nodes:
        for ref in references(node.inputs):
            name = node_of(ref)
            if name in last:
                last[name] = max(last[name], place.get(node.name, len(main) if node.op == "size" else -1))
    aside = _read_aside(graph, place)
    for name in (*map(node_of, graph.outputs.values()), *aside):
        if name in last:
            last[name] = len(main)
    parts: list[_Part] = []
    start, given = 0, ""
    live: set[str] = set()
    for i, node in enumerate(main):
        live.add(node.name)
        live = {name for name in live if last[name] > i}
        if live == {node.name}:
            if given:
                parts.append(_Part(given, tuple(main[start : i + 1])))
            start, given = i + 1, node.name
        elif not live or len(main) - 1 == i:
            break
    return parts


def _read_aside(graph: Graph, place: dict[str, int]) -> set[str]:
    """Values that depend on weights and that something reads which does not count as depending on them: sizes."""
    return {
        node_of(ref)
        for node in graph.nodes
        if node.name not in place and node.op != "parameter"
        for ref in references(node.inputs)
        if node_of(ref) in place
    }


def _whole(graph: Graph, part: Sequence[_Part]) -> list[Node]:
    """The nodes of parts, with what they alone read: weights, constants, and what is made of these."""
    mine = {node.name for one in part for node in one.nodes}
    readers: dict[str, set[str]] = {}
    for node in graph.nodes:
        for ref in references(node.inputs):
            readers.setdefault(node_of(ref), set()).add(node.name)
    given = {part[0].given, *map(node_of, graph.outputs.values())}
    for node in reversed(graph.nodes):
        if node.name not in given and readers.get(node.name) and readers[node.name] <= mine:
            mine.add(node.name)
    return [node for node in graph.nodes if node.name in mine]


def _described(graph: Graph, parts: Sequence[_Part]) -> tuple[Any, list[str], list[str]]:
    """What parts compute without the names of their weights; those names; and the values from outside, in order."""
    nodes = _whole(graph, parts)
    local = {node.name: i for i, node in enumerate(nodes)}
    slots: list[str] = []
    outside: list[str] = []

    def operand(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(operand, value))  # type: ignore[reportUnknownArgumentType]
        if not isinstance(value, str):
            return ("literal", repr(value))
        name, _, index = value.partition(":")
        if name == parts[0].given:
            return ("given", index)
        if name in local:
            return (local[name], index)
        if value not in outside:
            outside.append(value)
        return ("outside", value)

    lines: list[Any] = []
    for node in nodes:
        said: Any = tuple(sorted((key, repr(value)) for key, value in node.attrs.items()))
        if node.op == "module":
            name = str(node.attrs["module"])
            spec = graph.modules[name]
            slots.append(name)
            said = (spec.type, tuple(sorted((key, repr(value)) for key, value in spec.args.items())), slots.index(name))
        elif node.op in ("parameter", "constant"):
            name = str(node.attrs["tensor"])
            slots.append(name)
            said = slots.index(name)
        elif node.op == BLOCKS:
            said = node.name
        lines.append((node.op, said, tuple(map(operand, node.inputs))))
    return tuple(lines), list(dict.fromkeys(slots)), outside


def _longest(graph: Graph) -> list[list[_Part]] | None:
    """The run of equal blocks that saves the most, each block a list of parts."""
    parts = _parts(graph)
    said = [_described(graph, [part]) for part in parts]
    lines = [one[0] for one in said]
    best: tuple[int, int, int, int] = (_WORTH - 1, 0, 0, 0)
    for period in range(1, len(parts) // 2 + 1):
        start = 0
        while start + 2 * period <= len(parts):
            times = 1
            while lines[start + times * period : start + (times + 1) * period] == lines[start : start + period]:
                times += 1
            size = sum(len(one) for one in lines[start : start + period])
            saved = (times - 1) * size
            if times > 1 and saved > best[0] and any(one[1] for one in said[start : start + period]):
                best = (saved, start, period, times)
            start += 1
    _, start, period, times = best
    blocks = [parts[start + i * period : start + (i + 1) * period] for i in range(times)]
    whole = [_described(graph, block) for block in blocks]
    if not blocks or any(one[0] != whole[0][0] or one[2] != whole[0][2] for one in whole):
        return None
    names = [one[1] for one in whole]
    if any(len(set(slot)) < times for slot in zip(*names, strict=True)):
        return None  # blocks that share a weight
    return blocks


def _folded(graph: Graph, blocks: list[list[_Part]]) -> Graph:
    """The graph with one node in the place of the blocks."""
    described = [_described(graph, block) for block in blocks]
    _, names, outside = described[0]
    nodes = _whole(graph, blocks[0])
    specs = {spec.name: spec for spec in graph.inputs}
    inputs = tuple(specs.get(ref, TensorSpec(ref, "", None)) for ref in (blocks[0][0].given, *outside))
    last = blocks[-1][-1].nodes[-1].name
    inner = Graph(inputs, tuple(nodes), {"x": blocks[0][-1].nodes[-1].name}, _modules(graph, names))
    slots = {name: tuple(one[1][i] for one in described) for i, name in enumerate(names)}
    held = tuple(name for instances in slots.values() for name in instances if name in graph.modules)
    node = Node(last, BLOCKS, (blocks[0][0].given, *outside), {"blocks": Blocks(inner, len(blocks), slots), "holds": held})
    gone = {one.name for block in blocks for one in _whole(graph, block)}
    kept = [one for one in graph.nodes if one.name not in gone]
    return ordered(replace(graph, nodes=(*kept, node)))


def _modules(graph: Graph, names: list[str]) -> dict[str, Any]:
    return {name: graph.modules[name] for name in names if name in graph.modules}
