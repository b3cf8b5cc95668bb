"""Finds repeated blocks of a graph, such as the layers of a transformer, each applied to the result of the previous
one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch_towers.graph.graph import Graph, Node, bodies, node_of, references
from torch_towers.graph.registry import MODULES
from torch_towers.program.binding import is_layer

_SOURCES = ("parameter", "constant")
_MAX_NODES = 500  # maximum nodes per block
_NUMBER = re.compile(r"_?\d+")


@dataclass(frozen=True, slots=True)
class Repeat:
    """A sequence of equal blocks.

    `blocks[k][i]` is the name of the i-th node of the k-th block, in an executable order, without parameters and
    constants. `carries` are pairs (input of the first block, result that a block passes to the next); `shared` are the
    other values that every block takes.
    """

    blocks: tuple[tuple[str, ...], ...]
    carries: tuple[tuple[str, str], ...]
    shared: tuple[str, ...]

    def layers(self, graph: Graph) -> tuple[tuple[str, ...], ...]:
        """The layers of each block in call order; `layers[k][i]` are equal for every k."""
        nodes = {node.name: node for node in graph.nodes}
        return tuple(
            tuple(dict.fromkeys(_called(nodes[name]) for name in block if _called(nodes[name])))
            for block in self.blocks
        )


def repeats(graph: Graph) -> tuple[Repeat, ...]:
    """The repeated blocks of `graph` with two or more layers, largest first."""
    order = in_order(graph)
    if sum(_is_call_of_layer(node, graph) for node in order) < 4:
        return ()
    tokens = np.array(_tokens(order, graph), np.int64)
    line = _Line(order, {node.name: node for node in graph.nodes})
    found: list[Repeat] = []
    while best := _largest(line, tokens, graph):
        repeat, start, stop = best
        found.append(repeat)
        tokens[start:stop] = -1 - np.arange(start, stop)  # unique: matches nothing from now on
    return tuple(found)


def in_order(graph: Graph) -> list[Node]:
    """The nodes except parameters and constants in a topological order: weight-independent ones first, then those that
    make the masks of attention, then depth-first.

    So the nodes of one block are adjacent, in whatever order the graph lists them, and a mask that all layers share (with
    T5's numbers for each distance) is not among the nodes of the first.
    """
    nodes = {node.name: node for node in graph.nodes}
    weighted: set[str] = set()
    for node in graph.nodes:
        weight = node.op == "parameter" or _is_call_of_layer(node, graph)
        if weight or any(node_of(ref) in weighted for ref in references(node.inputs)):
            weighted.add(node.name)
    early = [node for node in graph.nodes if node.name not in weighted and node.op not in _SOURCES]
    done = {node.name for node in early}
    late: list[Node] = []
    masks = [str(node.inputs[3]) for node in graph.nodes if _attends(node, graph) and len(node.inputs) > 3]
    shared = [mask for mask, times in Counter(masks).items() if times > 1]
    stack = [(node_of(ref), False) for ref in reversed([*shared, *graph.outputs.values()])]
    while stack:
        name, ready = stack.pop()
        node = nodes.get(name)
        if node is None or name in done or node.op in _SOURCES:
            continue
        if ready:
            done.add(name)
            late.append(node)
        else:
            stack.append((name, True))
            stack += [(node_of(ref), False) for ref in reversed(list(references(node.inputs)))]
    return early + late


def _attends(node: Node, graph: Graph) -> bool:
    kind = graph.modules[_called(node)].type if node.op == "module" else node.op
    return kind in ("attention", "MultiHeadAttention")


def _called(node: Node) -> str:
    return str(node.attrs["module"]) if node.op == "module" else ""


def _is_call_of_layer(node: Node, graph: Graph) -> bool:
    return node.op == "module" and is_layer(MODULES[graph.modules[_called(node)].type])


def _tokens(order: Sequence[Node], graph: Graph) -> list[int]:
    """A number per node, equal for nodes that do the same with their operands."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(_law(node, graph), len(numbers)) for node in order]


def _law(node: Node, graph: Graph) -> Any:
    if bodies(node):
        return node.name
    attrs: Any = graph.modules[_called(node)] if node.op == "module" else sorted(node.attrs.items())
    return node.op, repr(attrs), repr(_without_names(node.inputs))


def _without_names(operands: Any) -> Any:
    """Operands with each reference replaced by its result index."""
    if isinstance(operands, tuple):
        return tuple(map(_without_names, operands))  # type: ignore[reportUnknownArgumentType]
    return "@" + operands.partition(":")[2] if isinstance(operands, str) else operands


class _Line:
    """A sequence of nodes, with the position of each operand; -1 for an input, weight or constant."""

    def __init__(self, order: Sequence[Node], nodes: dict[str, Node]) -> None:
        self.order = order
        at = {node.name: place for place, node in enumerate(order)}
        self.sources = {name for name, node in nodes.items() if node.op in _SOURCES}
        self.operands = [[(ref, at.get(node_of(ref), -1)) for ref in references(node.inputs)] for node in order]

    def joined(self, start: int, period: int, most: int) -> Repeat | None:
        """Up to `most` consecutive blocks of `period` nodes from `start` on, each wired to the previous one in the same
        way."""
        carries: dict[str, str] = {}
        shared: dict[str, None] = {}
        count = 1
        while count < most and self._follows(start, period, count, carries, shared):
            count += 1
        if count < 2:
            return None
        names = [node.name for node in self.order[start : start + count * period]]
        blocks = tuple(tuple(names[k * period : (k + 1) * period]) for k in range(count))
        return Repeat(blocks, tuple((first, given) for given, first in carries.items()), tuple(shared))

    def _follows(self, start: int, period: int, k: int, carries: dict[str, str], shared: dict[str, None]) -> bool:
        """Whether the k-th block equals the previous one, including what it takes from it."""
        for i in range(start + k * period, start + (k + 1) * period):
            for (before, a), (ref, b) in zip(self.operands[i - period], self.operands[i], strict=True):
                if node_of(before) in self.sources and node_of(ref) in self.sources:
                    continue
                if before == ref:
                    shared.setdefault(ref)
                elif a < start:
                    if k > 1 or not start <= b < start + period or carries.setdefault(ref, before) != before:
                        return False
                elif b - a != period:
                    return False
        return True


def _largest(line: _Line, tokens: np.ndarray[Any, Any], graph: Graph) -> tuple[Repeat, int, int] | None:
    """The blocks that cover most nodes, with their start and end; ties go to the start that carries fewest values."""
    calls = np.cumsum([0, *(_is_call_of_layer(node, graph) for node in line.order)])
    for _, period, start, length in sorted(_runs(tokens)):
        best: tuple[tuple[int, int, int, int], Repeat] | None = None
        for at in range(start, start + min(period, length - period + 1)):
            repeat = (
                line.joined(at, period, (start + length - at) // period + 1)
                if calls[at + period] - calls[at] > 1
                else None
            )
            if repeat is None:
                continue
            rank = len(repeat.carries), -len(repeat.blocks), _irregular(repeat, graph), at
            best = min(best, (rank, repeat), key=lambda item: item[0]) if best else (rank, repeat)
            if rank[0] < 2 and -rank[1] == length // period + 1 and not rank[2]:
                break
        if best is not None:
            (*_, at), repeat = best
            return repeat, at, at + period * len(repeat.blocks)
    return None


def _irregular(repeat: Repeat, graph: Graph) -> int:
    """0 if layers have the same names in every block and one block number each; else the number of surplus names."""
    alike = numbers = 0
    first: set[str] = set()
    for names in zip(*repeat.layers(graph), strict=True):
        alike += len({_NUMBER.sub("", name) for name in names}) == 1
        parts = zip(*(name.split(".") for name in names[:2]), strict=False)
        first |= {"".join(_NUMBER.findall(a)) for a, b in parts if a != b}
        numbers += 1
    return numbers - alike + max(len(first) - 1, 0)


def _runs(tokens: np.ndarray[Any, Any]) -> Iterator[tuple[int, int, int, int]]:
    """Ranges in which the sequence repeats with a period: (negative coverage, period, start, length)."""
    for period in range(2, min(len(tokens) // 2, _MAX_NODES) + 1):
        same = np.concatenate([[False], tokens[:-period] == tokens[period:], [False]])
        edges = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2)
        for start, stop in edges.tolist():
            if stop - start >= period:
                count = (stop - start) // period + 1
                yield -count * period, period, start, stop - start
