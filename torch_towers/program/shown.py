"""`print` of a program: like `nn.Module`'s, with repeated blocks shown once, with their count."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent

from torch import nn

from torch_towers.graph.graph import Graph
from torch_towers.program.binding import path
from torch_towers.program.blocks import repeats


def shown(root: nn.Module, graph: Graph) -> str:
    """The layers of `root`, which runs `graph`; repeated blocks as `(block_0 ... block_11): 12 x ...`."""
    labels: dict[str, tuple[str, int]] = {}
    hidden: set[str] = set()
    for repeat in repeats(graph):
        for names in zip(*repeat.layers(graph), strict=True):
            places = [path(name) for name in names]
            equal = len({_text(root, place) for place in places}) == 1  # a user may have swapped one
            if not equal or len(set(names)) != len(names) or len({len(place) for place in places}) != 1:
                continue
            depth = next(at for at in range(len(places[0])) if len({place[at] for place in places}) > 1)
            label = f"{places[0][depth]} ... {places[-1][depth]}"
            if labels.setdefault(".".join(places[0][: depth + 1]), (label, len(places))) == (label, len(places)):
                hidden |= {".".join(place) for place in places[1:]}
    return _tree(root, "", labels, hidden)


def _text(root: nn.Module, place: list[str]) -> str:
    return repr(root.get_submodule(".".join(place)))


def _tree(module: nn.Module, prefix: str, labels: Mapping[str, tuple[str, int]], hidden: set[str]) -> str:
    lines = [line for line in module.extra_repr().splitlines() if line]
    children: list[str] = []
    for name, child in module._modules.items():
        place = f"{prefix}{name}"
        if child is None or _is_hidden(child, place, hidden):
            continue
        label, count = labels.get(place, (name, 1))
        inner = _tree(child, f"{place}.", labels, hidden)
        children.append(f"({label}): " + (f"{count} x " if count > 1 else "") + inner)
    if not children:
        return f"{module._get_name()}({', '.join(lines)})"
    return "\n".join([f"{module._get_name()}(", *(indent(line, "  ") for line in lines + children), ")"])


def _is_hidden(module: nn.Module, place: str, hidden: set[str]) -> bool:
    """Whether a module is not printed: another block represents it, or it is a scope with constants only."""
    if place in hidden:
        return True
    if type(module) is not nn.Module or module._parameters or set(module._buffers) - module._non_persistent_buffers_set:
        return False
    return all(child is None or _is_hidden(child, f"{place}.{name}", hidden) for name, child in module._modules.items())
