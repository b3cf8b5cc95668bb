"""Safe identifiers and comments for a generated file, from untrusted names."""

from __future__ import annotations

import builtins
import keyword
import re

from torch import nn

from torch_towers.graph.names import numbered

_RESERVED = frozenset((
    *dir(builtins), *keyword.kwlist, *keyword.softkwlist, "self", "torch", "nn", "F", "Tensor", "ops", "Path", "load_file", "save_file",
    "load", "save", "device", "relu", "relu6", "masked_mean",
))  # fmt: skip
_ATTRIBUTES = frozenset(dir(nn.Module()))


def identifier(text: str, taken: set[str], *, attribute: bool = False) -> str:
    """A Python identifier like `text` that is not in `taken`, and adds it there."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "x"
    if name[0].isdigit():
        name = f"x{name}"
    if keyword.iskeyword(name) or (name in _ATTRIBUTES if attribute else name in _RESERVED):
        name += "_"
    made = numbered(name, taken.__contains__)
    taken.add(made)
    return made


def class_name(text: str, taken: set[str]) -> str:
    """`QueryTower` for "query tower"."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    return identifier("".join(word[0].upper() + word[1:] for word in words), taken)


_OP = re.compile(
    r"[A-Z][A-Za-z0-9]*(_\d+)?|(truediv|concat|add|sub|mul|and|or|constant|floordiv|mod|pow|embedding_lookup)(_\d+)?"
)


def variable(node: str, layers: set[str]) -> str:
    """The name of a value in `forward`: that of the layer whose formula it belongs to, else of its op."""
    *scopes, last = node.split(".")
    while scopes and _OP.fullmatch(last):
        last = scopes.pop()
    if last not in layers:
        last = re.sub(r"(_\d+)+$", "", last)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()


def plain(text: str, limit: int = 120) -> str:
    """`text` for a comment or docstring, without characters that could end it."""
    shown = re.sub(r"[^ -~]|[\\\"]", "?", text)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
