"""What the layers and weights of a class are called: as in the checkpoint, without the scopes around them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from torch_towers.graph.graph import Graph, ModuleSpec, Node, node_of, references
from torch_towers.program.program import modules, walk

_NAMELESS = re.compile(r"(weight|constant|value)(_\d+)?")
_OP = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?|(truediv|concat|add|sub|mul|pow)(_\d+)?")
_MOVES = frozenset(("split_last", "join_last", "transpose", "unsqueeze", "squeeze", "reshape", "identity", "flatten"))


def attribute_names(graph: Graph, short: Mapping[str, str]) -> dict[str, str]:
    """The wanted attribute of each layer, weight and constant of a graph. `short` has the names inside a block.

    `linear_model.company` is `company`, if no other is. A layer whose weights have no name has that of its use (`query`,
    `title_embedding`), or of its kind; a constant has that of the scope that it is in.
    """
    held = {str(node.attrs.get("module", node.attrs.get("tensor"))): node for node in walk(graph)
            if node.op in ("module", "parameter", "constant")}  # fmt: skip
    uses, specs = dict(_uses(graph)), modules(graph)
    wanted = {name: _plain(name, node, specs, short.get(name, name), uses) for name, node in held.items()}
    ends = Counter(name.rpartition(".")[2] for name in wanted.values())
    return {
        name: last if ends[last := full.rpartition(".")[2]] == 1 and not _is_number(last) else full
        for name, full in wanted.items()
    }


def _plain(name: str, node: Node, specs: Mapping[str, ModuleSpec], short: str, uses: Mapping[str, str]) -> str:
    if node.op == "constant":
        scopes = [part for part in short.split(".") if not _OP.fullmatch(part) and not _NAMELESS.fullmatch(part)]
        return (
            f"{'.'.join(scopes)}_constant" if scopes and scopes != short.split(".") else short if scopes else "constant"
        )
    if _NAMELESS.fullmatch(short.rpartition(".")[2]):
        if node.op == "parameter":
            return uses.get(name, short)
        kind = specs[name].type
        return uses.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    return short


def _is_number(name: str) -> bool:
    return re.fullmatch(r"_?\d+", name) is not None


def _uses(graph: Graph) -> Iterator[tuple[str, str]]:
    """What layers are used for: the projections of attention, and the embedding of an input of ids."""
    nodes = {node.name: node for node in graph.nodes}
    inputs = {spec.name for spec in graph.inputs}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for ref in references(node.inputs):
            readers.setdefault(node_of(ref), []).append(node)
        if node.op == "module" and graph.modules[str(node.attrs["module"])].type in ("Embedding", "EmbeddingBag"):
            ids = str(node.inputs[0])
            if ids in inputs and ids.endswith("_ids"):
                yield str(node.attrs["module"]), f"{ids.removesuffix('_ids')}_embedding"
    for node in graph.nodes:
        if node.op != "attention":
            continue
        for part, ref in zip(("query", "key", "value"), node.inputs, strict=False):
            before = nodes.get(node_of(str(ref)))
            while before is not None and before.op in _MOVES:
                before = nodes.get(node_of(str(before.inputs[0])))
            if before is not None and before.op == "module":
                yield str(before.attrs["module"]), part
        after = readers.get(node.name, [])
        while len(after) == 1 and after[0].op in _MOVES:
            after = readers.get(after[0].name, [])
        if len(after) == 1 and after[0].op == "module":
            yield str(after[0].attrs["module"]), "attention_output"
