"""A tower as a readable listing, with the shape of every value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from torch_towers.graph.dtypes import dtype_name as name_of
from torch_towers.graph.graph import BATCH, Graph, Node, TensorSpec, node_of, references, rows_of
from torch_towers.graph.spec import TowerSpec
from torch_towers.program import sketch
from torch_towers.program.blocks import Repeat, in_order, repeats
from torch_towers.program.program import Program

_SIZES = (2, 3)  # batch sizes of two sketches: a dimension that is 2 in one and 3 in the other is the batch
WIDTH = 76
_SHOWN = 1000  # maximum numbers of an example input


class Parts(Protocol):
    """What a listing needs of a `Tower`: its signature, and its stages in execution order."""

    spec: TowerSpec

    @property
    def parts(self) -> Mapping[str, Program]: ...


def listing(tower: Parts) -> str:
    """The tower line by line: inputs, steps with operands and result shapes, outputs."""
    shapes = shapes_of(tower)
    spec = tower.spec
    lines = [f"inputs   {_specs(spec.inputs)}", f"outputs  {_specs(spec.outputs)}"]
    if len(spec.outputs) > 1 and spec.embedding:
        lines.append(f"embedding  {spec.embedding}")
    for title, program in tower.parts.items():
        if not program.graph.nodes and title != "encoder":
            continue
        lines += ["", f"{title}({', '.join(spec.name for spec in program.graph.inputs)})"]
        lines += _graph(program.graph, shapes.get(title, {}), "  ")
    return "\n".join(lines)


def model_card(towers: Mapping[str, Parts], similarity: str) -> str:
    """MODEL.md: what the checkpoint is, its inputs with an example, and the listing of its towers."""
    parts = ["# A two-tower model\n", f"Similarity: {similarity}. Read by `torch_towers.load`.\n"]
    for name, tower in towers.items():
        example = {spec.name: _example(spec) for spec in tower.spec.inputs}
        parts.append(
            f"## {name}\n\n```python\ntowers.encode_{name}({example!r})\n```\n\n```text\n{listing(tower)}\n```\n"
        )
    return "\n".join(parts)


def _graph(graph: Graph, shapes: Mapping[str, str], indent: str) -> list[str]:
    lines: list[str] = []
    found = repeats(graph)
    inside = {name: repeat for repeat in found for name in repeat.blocks[0]}
    around: Repeat | None = None
    for node, repeat in _in_blocks(graph, inside, found) if found else ((node, None) for node in graph.nodes):
        if repeat is not None and repeat is not around:
            lines += _head(repeat, indent)
        around = repeat
        lines += _line(node, graph, shapes, indent + "  " * (repeat is not None))
    lines.append(f"{indent}return {', '.join(_pair(name, ref) for name, ref in graph.outputs.items())}")
    return lines


def _in_blocks(
    graph: Graph, inside: Mapping[str, Repeat], found: tuple[Repeat, ...]
) -> Iterator[tuple[Node, Repeat | None]]:
    """The nodes, with only the first block of each repeat; parameters and constants come right before their first
    reader."""
    sources = {node.name: node for node in graph.nodes if node.op in ("parameter", "constant")}
    others = {name for repeat in found for block in repeat.blocks[1:] for name in block}
    for node in in_order(graph):
        if node.name not in others:
            repeat = inside.get(node.name)
            read = [source for ref in references(node.inputs) if (source := sources.pop(node_of(ref), None))]
            yield from ((each, repeat) for each in (*read, node))


def _head(repeat: Repeat, indent: str) -> list[str]:
    """The heading of a block that represents all its repeats."""
    taken, given = (", ".join(dict.fromkeys(pair[at] for pair in repeat.carries)) for at in (0, 1))
    last = dict(zip(repeat.blocks[0], repeat.blocks[-1], strict=True))
    end = ", ".join(dict.fromkeys(last[node_of(ref)] for _, ref in repeat.carries))
    behind = (
        f"each on {given} of the previous one, the first on {taken}; the last one gives {end}"
        if given
        else "side by side"
    )
    return [f"{indent}x {len(repeat.blocks)}, {behind}:"]


def _line(node: Node, graph: Graph, shapes: Mapping[str, str], indent: str) -> list[str]:
    """A node with its result shape, and the graphs in its attributes."""
    if node.op in ("parameter", "constant"):
        line = f"{indent}{node.name} = {node.op}"
        if node.attrs["tensor"] != node.name:
            line += f" {node.attrs['tensor']}"
    else:
        line = f"{indent}{node.name} = {call_of(node, graph)}"
    lines = [f"{line:<{WIDTH}}  {shapes.get(node.name, '')}".rstrip()]
    for key, value in node.attrs.items():
        if isinstance(value, Graph):
            lines.append(f"{indent}  {key}({', '.join(spec.name for spec in value.inputs)}):")
            lines += _graph(value, {}, indent + "    ")
    return lines


def _pair(name: str, reference: str) -> str:
    return name if name == reference else f"{name}={reference}"


def call_of(node: Node, graph: Graph) -> str:
    """A node as a call, with its operands."""
    operands = [_operand(operand) for operand in node.inputs]
    attrs = [f"{key}={_constant(value)}" for key, value in node.attrs.items() if not isinstance(value, Graph)]
    if node.op != "module":
        return f"{node.op}({', '.join(operands + attrs)})"
    spec = graph.modules[str(node.attrs["module"])]
    args = ", ".join(f"{key}={_constant(value)}" for key, value in spec.args.items())
    return f"{spec.type}({args})({', '.join(operands)})"


def _operand(operand: Any) -> str:
    if isinstance(operand, str):
        return operand
    if isinstance(operand, tuple):
        return f"({', '.join(map(_operand, operand))})"  # type: ignore[reportUnknownArgumentType]
    return repr(operand)


def _constant(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _specs(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {shown_sizes(spec.shape)}" for spec in specs)


def shown_sizes(shape: tuple[Any, ...] | None) -> str:
    """A readable shape; dynamic sizes are "?"."""
    return "[...]" if shape is None else "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


# -- shape inference
# ------------------------------------------------------------------------------------------------------


def shapes_of(tower: Parts) -> dict[str, dict[str, str]]:
    """The dtype and shape of each value of each stage, as far as they can be inferred."""
    first, second = (_sketched(tower, rows) for rows in _SIZES)
    return {
        part: {name: _shape(first[part][name], second[part].get(name)) for name in first[part]}
        for part in first
    }  # fmt: skip


def _sketched(tower: Parts, rows: int) -> dict[str, dict[str, Any]]:
    renamed = tower.spec.renamed()
    given = {renamed.get(spec.name, spec.name): sketch.made_up(spec, rows) for spec in tower.spec.inputs}
    sketched: dict[str, dict[str, Any]] = {}
    for title, program in tower.parts.items():
        inputs = {spec.name: given.get(spec.name, sketch.UNKNOWN) for spec in program.graph.inputs}
        sketched[title] = sketch.sketch(program, inputs)
        given |= sketch.outputs(program, sketched[title])
    return sketched


def _shape(first: Any, second: Any) -> str:
    if type(first) is tuple and type(second) is tuple:
        return ", ".join(map(_shape, first, second))  # type: ignore[reportUnknownArgumentType]
    if isinstance(first, int):
        return "size"
    if not isinstance(first, (Tensor, sketch.Told)) or not isinstance(second, (Tensor, sketch.Told)):
        return ""
    before, after = first.shape, second.shape
    if before is None or after is None:
        return ""
    sizes = ["?"] if len(before) != len(after) else map(_size, before, after)
    return f"{first.dtype if isinstance(first, sketch.Told) else name_of(first)} [{', '.join(sizes)}]"


def _size(first: int | None, second: int | None) -> str:
    if first is None or second is None:
        return "?"
    if first == second:
        return str(first)
    times, rest = divmod(first, _SIZES[0])
    if rest == 0 and second == times * _SIZES[1]:
        return BATCH if times == 1 else f"{times} {BATCH}"
    return "?"


def _example(spec: TensorSpec) -> Any:
    value: Any = "text" if spec.dtype == "string" else 0.5 if spec.dtype.startswith("float") else 1
    sizes = (spec.shape or ())[1 if rows_of(spec) else 0 :]
    if math.prod(size for size in sizes if isinstance(size, int)) > _SHOWN:
        return ...
    for size in reversed(sizes):
        value = [value] * (size if isinstance(size, int) else 2)
    return [value] if rows_of(spec) else value
