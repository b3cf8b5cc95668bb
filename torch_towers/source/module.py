"""Writes the towers of a checkpoint as one Python file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_towers.checkpoint.checkpoint import CONFIG, MAX_CONFIG
from torch_towers.checkpoint.replacing import opened
from torch_towers.checkpoint.weights import parse_json
from torch_towers.graph.registry import MODULES
from torch_towers.source.blocks import Blocks, with_blocks
from torch_towers.source.classes import Unit, Written, write_class
from torch_towers.source.idioms import idiomatic
from torch_towers.source.names import plain
from torch_towers.source.simplify import simplified
from torch_towers.source.spelling import FUNCTIONS
from torch_towers.tower import Tower
from torch_towers.two_tower import TwoTower, load

LINE = 120
_SHORT = 88  # ruff's default line length


@dataclass(frozen=True, slots=True)
class Source:
    """The text of the file; `names` maps its weight names to the checkpoint's."""

    text: str
    names: Mapping[str, str]


def source_of(path: str | Path) -> Source:
    """The towers of the checkpoint at `path` as a Python file. Errors: `CheckpointError`."""
    folder = Path(path)
    towers = load(folder)
    config = parse_json(opened(folder, lambda one: one.read(CONFIG, MAX_CONFIG)), CONFIG)
    shared = {side: dict(config["towers"][side]["shared"]) for side in config["towers"]}
    return written(towers, shared, folder.name)


def written(towers: TwoTower, shared: Mapping[str, Mapping[str, str]], name: str) -> Source:
    """Towers as a Python file. `shared` lists per tower the tensors stored under another's name; `name` is the
    checkpoint's."""
    return _File(towers, shared, name).source()


class _File:
    def __init__(self, towers: TwoTower, shared: Mapping[str, Mapping[str, str]], name: str) -> None:
        self.towers, self.shared, self.name = towers, shared, plain(name, 60)
        self.sides = {side: tower for side in ("query", "candidate") if (tower := getattr(towers, side)) is not None}
        self.taken = {"TwoTower", "NAMES", "F", "SelfAttention", *MODULES}

    def source(self) -> Source:
        parts: list[str] = []
        helpers: dict[str, str] = {}
        imports: set[tuple[str, str]] = set()
        written: dict[str, Written] = {}
        entries: list[str] = []
        names: dict[str, str] = {}
        ops = False
        classes: dict[str, str] = {}
        for side, tower in self.sides.items():
            found = simplified(tower)
            known, aliases = found.known, found.aliases
            tensors = tower.encoder.tensors()
            tensors |= {name: tensors[theirs] for name, theirs in aliases.items()}
            graph = idiomatic(found.graph, known, tensors, tower)
            unit = Unit(tensors, tower.frozen, taken=self.taken, classes=classes, helpers=helpers)
            written[side] = write_class(
                unit, f"{side} tower", _doc(side, tower, known), with_blocks(graph, tensors), known
            )
            parts += unit.written
            imports |= unit.imports
            ops |= unit.ops
            renamed, lines = _names(side, written[side], aliases, self.shared[side])
            names |= renamed
            entries += lines
        body = [*helpers.values(), *parts, self._both(written)]
        body = [
            text for name, text in FUNCTIONS.items() if any(re.search(rf"(?<![.\w]){name}\(", part) for part in body)
        ] + body
        text = "\n\n".join([*body, _loading(entries)])
        text = f"{self._head(imports, ops, text)}\n\n{text}"
        return Source(formatted(text), names)

    def _head(self, imports: set[tuple[str, str]], ops: bool, body: str) -> str:
        side, tower = next(iter(self.sides.items()))
        example = ", ".join(f'"{plain(spec.name, 30)}": [...]' for spec in tower.inputs[:3]) + (
            ", ..." if len(tower.inputs) > 3 else ""
        )
        lines = [
            f'"""The towers of {self.name} as PyTorch modules, written by `torch-towers source`. This file is yours.',
            "",
            "The weights come from the checkpoint; torch_towers' preprocessing turns rows into tensors:",
            "",
            f'    towers = load("{self.name}")',
            f'    tensors = torch_towers.load("{self.name}").{side}.preprocess({{{example}}})',
            f"    embeddings = towers.{side}(**tensors)",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from pathlib import Path",
        ]
        by_module = {module: sorted(name for one, name in imports if one == module) for module, _ in sorted(imports)}
        said = [_import(module, names) for module, names in by_module.items()]
        lines += [line for line in said if not line.startswith("from torch_towers")]
        lines += ["", *(["import torch"] if re.search(r"\btorch\.", body) else [])]
        lines += ["import torch.nn.functional as F"] if re.search(r"\bF\.", body) else []
        lines += ["from safetensors.torch import load_file, save_file", "from torch import Tensor, nn"]
        lines += [line for line in said if line.startswith("from torch_towers")]
        lines += ["from torch_towers.ops import named as ops"] if ops else []
        return "\n".join(lines) + "\n"

    def _both(self, written: Mapping[str, Written]) -> str:
        cosine = self.towers.similarity_function == "cosine"
        doc = "Both towers, and the similarity of the model." if len(written) == 2 else "The tower of the checkpoint."
        lines = [
            "class TwoTower(nn.Module):",
            f'    """{doc}"""',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
        ]
        lines += [f"        self.{side} = {one.name}()" for side, one in written.items()]
        lines += _ties(written, self.shared)
        if len(written) < 2:
            return "\n".join(lines) + "\n"
        left, right = (
            ("F.normalize(queries, dim=-1)", "F.normalize(candidates, dim=-1)") if cosine else ("queries", "candidates")
        )
        lines += [
            "",
            "    def similarity(self, queries: Tensor, candidates: Tensor) -> Tensor:",
            f'        """The {"cosine" if cosine else "dot product"} of every query with every candidate: [n, dim], [m, dim] -> [n, m]."""',
            f"        return {left} @ {right}.T",
        ]
        return "\n".join(lines) + "\n"


def _import(module: str, names: list[str]) -> str:
    """An import as ruff sorts and formats it, at its default line length and at ours."""
    line = f"from {module} import {', '.join(names)}"
    return line if len(line) <= _SHORT else "\n".join([f"from {module} import (", *(f"    {n}," for n in names), ")"])


def _ties(written: Mapping[str, Written], shared: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Assignments that make weights of both towers one object."""
    if len(written) < 2:
        return []
    first = {theirs: ours for ours, theirs in written["query"].attributes.items()}
    lines: list[str] = []
    for ours, theirs in written["candidate"].attributes.items():
        keys = [key for name, key in shared["candidate"].items() if name == theirs or name.rpartition(".")[0] == theirs]
        homes = {key.removeprefix("query.").removesuffix(f".{name.rpartition('.')[2]}") if "." in name else key.removeprefix("query.")
                 for name, key in shared["candidate"].items() if name == theirs or name.rpartition(".")[0] == theirs}  # fmt: skip
        if keys and len(homes) == 1 and (home := homes.pop()) in first:
            lines.append(f"        self.candidate.{ours} = self.query.{first[home]}  # one for both")
    return lines


def _doc(side: str, tower: Tower, known: Mapping[str, Any]) -> list[str]:
    """The docstring of a tower's class."""
    entry = f"The {side} tower, after its preprocessing."
    lines = [entry, ""]
    for spec in tower.encoder.graph.inputs:
        said = known.get(spec.name)
        lines.append(f"    {plain(spec.name, 60)}: {plain(spec.dtype, 20)} {said if said else ''}".rstrip())
    outputs = tower.encoder.graph.outputs
    for name, ref in outputs.items():
        lines.append(f"    -> {plain(name, 60)}: {known.get(ref, '')}".rstrip(": "))
    return lines


def _names(
    side: str, written: Written, aliases: Mapping[str, str], shared: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Names of weights that differ in the checkpoint: by prefix, and as lines of a dict."""
    found: dict[str, str] = {}
    lines: list[str] = []

    def add(ours: str, theirs: str) -> None:
        """Adds one attribute of the file: a layer or weight."""
        for layer, tensor in aliases.items():
            if layer.rpartition(".")[0] == theirs:
                name = f"{ours}.{layer.rpartition('.')[2]}"
                if (key := shared.get(tensor, f"{side}.{tensor}")) != name:
                    found[name] = key
        if all(layer.rpartition(".")[0] != theirs for layer in aliases) and ours != f"{side}.{theirs}":
            found[ours] = f"{side}.{theirs}"
        for name, key in shared.items():
            if name == theirs or name.startswith(f"{theirs}."):
                found[ours + name.removeprefix(theirs)] = key

    for ours, theirs in written.attributes.items():
        add(f"{side}.{ours}", theirs)
    lines += [f'"{ours}": "{theirs}",' for ours, theirs in found.items()]
    for attribute, (blocks, attributes) in written.lists.items():
        moved = blocks.shared or [
            name for slot in blocks.slots.values() for name in slot if _is_moved(name, (*aliases, *shared))
        ]
        if not moved and (scopes := _scopes(blocks, attributes)):
            pairs = [(f"{side}.{attribute}.{i}", f"{side}.{scope}") for i, scope in enumerate(scopes)]
            found |= {ours: theirs for ours, theirs in pairs if ours != theirs}
            lines += _numbered(pairs, f"{side}.{attribute}.", blocks.times) if found.keys() & dict(pairs).keys() else []
            continue
        if blocks.shared:
            before = dict(found)
            for ours, theirs in attributes.items():
                add(f"{side}.{attribute}.{ours}", theirs)
            lines += [f'"{key}": "{value}",' for key, value in found.items() if key not in before]
            continue
        for ours, theirs in attributes.items():
            before = dict(found)
            for i, name in enumerate(blocks.slots[theirs]):
                add(f"{side}.{attribute}.{i}.{ours}", name)
            new = [(key, value) for key, value in found.items() if key not in before]
            lines += _numbered(new, f"{side}.{attribute}.", blocks.times)
    return found, lines


def _is_moved(name: str, elsewhere: Collection[str]) -> bool:
    """Whether a weight, or one of a layer, is among those that the checkpoint has under another name."""
    return any(other == name or other.startswith(f"{name}.") for other in elsewhere)


def _scopes(blocks: Blocks, attributes: Mapping[str, str]) -> list[str]:
    """The name of each block if the rest of its weights' names agree with the file's; else empty."""
    found: list[set[str]] = [set() for _ in range(blocks.times)]
    for ours, theirs in attributes.items():
        for scope, name in zip(found, blocks.slots[theirs], strict=True):
            scope.add(name.removesuffix(f".{ours}") if name.endswith(f".{ours}") else "")
    return [scope.pop() for scope in found] if all(len(scope) == 1 and "" not in scope for scope in found) else []


def _numbered(pairs: list[tuple[str, str]], prefix: str, times: int) -> list[str]:
    """Lines of a dict for the names of blocks: a single one if their numbers are consecutive."""
    by_end: dict[str, list[str]] = {}
    for ours, theirs in pairs:
        end = ours.removeprefix(prefix).lstrip("0123456789")
        by_end.setdefault(end, []).append(theirs)
    lines: list[str] = []
    for end, names in by_end.items():
        pattern = _pattern(names) if len(names) == times else None
        if pattern is None:
            lines += [f'"{prefix}{i}{end}": "{name}",' for i, name in enumerate(names)]
            continue
        text, start = pattern
        lines += [f'"{prefix}{i}{end}": "{names[i]}",' for i in range(start)]
        first = f"{start}, " if start else ""
        lines.append(f'**{{f"{prefix}{{i}}{end}": f"{text}" for i in range({first}{times})}},')
    return lines


def _pattern(names: list[str]) -> tuple[str, int] | None:
    """The names with `{i}` for the block number, and the first number."""
    for start in (0, 1):
        if len(names) - start < 2:
            return None
        first, second = names[start], names[start + 1]
        for head in range(len(first)):
            if not first[head].isdigit() or (head and first[head - 1].isdigit()):
                continue
            tail = head
            while tail < len(first) and first[tail].isdigit():
                tail += 1
            number, before, after = int(first[head:tail]), first[:head], first[tail:]
            middle = second[len(before) : len(second) - len(after)]
            if not middle.isdigit():
                continue
            step = int(middle) - number
            offset = number - step * start
            if all(name == f"{before}{step * (i + start) + offset}{after}" for i, name in enumerate(names[start:])):
                formula = "i" if step == 1 else f"{step} * i"
                formula += f" + {offset}" if offset > 0 else f" - {-offset}" if offset < 0 else ""
                return f"{before}{{{formula}}}{after}", start
    return None


def _loading(entries: list[str]) -> str:
    """The functions that load and save the weights."""
    lines: list[str] = []
    key = "name"
    if entries:
        whole = entries[0].startswith("**") and len(entries) == 1
        lines += [
            *(
                [f"NAMES = {entries[0].removeprefix('**').removesuffix(',')}"]
                if whole
                else ["NAMES = {", *(f"    {entry}" for entry in entries), "}"]
            ),
            '"""Layers and weights whose names differ in the checkpoint."""',
            "",
            "",
        ]
        lines += [
            "def stored(name: str) -> str:",
            '    """The name in the checkpoint of a weight of this file."""',
            "    for ours, theirs in NAMES.items():",
            '        if name == ours or name.startswith(f"{ours}."):',
            "            return theirs + name.removeprefix(ours)",
            "    return name",
            "",
            "",
        ]
        key = "stored(name)"
    lines += [
        "def load(checkpoint: str | Path) -> TwoTower:",
        '    """The towers with the weights of a checkpoint folder."""',
        "    towers = TwoTower()",
        '    weights = load_file(Path(checkpoint) / "model.safetensors")',
        f"    towers.load_state_dict({{name: weights[{key}] for name in towers.state_dict()}})",
        "    return towers.eval()",
        "",
        "",
        "def save(towers: TwoTower, path: str | Path) -> None:",
        '    """Writes the weights for `torch-towers import CHECKPOINT path`."""',
        f"    save_file({{{key}: weight.contiguous() for name, weight in towers.state_dict().items()}}, path)",
    ]
    return "\n".join(lines) + "\n"


def formatted(text: str) -> str:
    """`text` formatted by `ruff format` if ruff is installed, else unchanged."""
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(LINE), "-"]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return text
    return done.stdout.decode() if done.returncode == 0 else text
