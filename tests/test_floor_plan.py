"""The floor plan of docs/architecture.md: what may import what, in both packages. Imports inside functions and for types count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER = {
    "torch_towers": (
        "errors", "extras", "machine", "memory", "graph", "formats", "kernels", "ops", "layers", "program", "inputs", "checkpoint", "search", "tower",
        "two_tower", "", "info", "parity", "source", "testing", "bulk", "commands", "cli",
    ),
    "porting": (
        "errors", "names", "budget", "registry", "saved_model", "flat_graph", "served", "conversion", "converters",
        "lifting", "rewrites", "padding", "frontends", "crossing_names", "split", "samples", "tower", "parity", "report", "inspection", "ops_table",
        "layers_table", "command",
        "port", "",
    ),
}  # fmt: skip
"""The folders and top-level files of a package in import order: each imports only earlier ones; "" is the package itself."""

FOREIGN = {"_C", "_replace", "_asdict", "_schema", "_constants", "_parser", "_apply_op_helper", "_call_flat"}
"""Names of torch, TensorFlow and Python that are private to them; each use has a comment with the reason."""

Import = tuple[str, int, str]
"""The importing module, the line, the imported module."""


def files(package: str) -> dict[str, Path]:
    """The files of a package by the names of their modules."""
    found = {path.relative_to(ROOT).with_suffix(""): path for path in (ROOT / package).rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in found.items()}


def imports(package: str) -> Iterator[Import]:
    """Every import of a module of this package, wherever it stands."""
    known = files(package)
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                full = [f"{node.module}.{item.name}" for item in node.names]
                named = [name if name in known else node.module for name in full]
            elif isinstance(node, ast.Import):
                named = [item.name for item in node.names]
            else:
                continue
            yield from ((module, node.lineno, name) for name in named if name in known and name != module)


def place_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("package", ORDER)
def test_every_place_has_its_turn(package: str) -> None:
    assert {place_of(module) for module in files(package)} == set(ORDER[package])


@pytest.mark.parametrize("package", ORDER)
def test_each_place_imports_only_those_before_it(package: str) -> None:
    turn = {place: i for i, place in enumerate(ORDER[package])}
    wrong = [
        f"{module}:{line} imports {imported}"
        for module, line, imported in imports(package)
        if turn[place_of(module)] < turn[place_of(imported)]
    ]
    assert not wrong


@pytest.mark.parametrize("package", ORDER)
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    needed: dict[str, set[str]] = {module: set() for module in files(package)}
    for module, _, imported in imports(package):
        needed[module].add(imported)
    while free := [module for module, needs in needed.items() if not needs & needed.keys()]:
        for module in free:
            del needed[module]
    assert not needed, "these import each other in a circle, or import what does"


def test_the_runtime_imports_no_porter() -> None:
    for path in files("torch_towers").values():
        assert not re.search(r"^\s*(from|import) (porting|tensorflow)\b", path.read_text(encoding="utf-8"), re.M), path


def test_private_names_stay_in_their_file() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for package in ORDER for path in files(package).values()}
    wrong: list[str] = []
    for path, tree in trees.items():
        own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        own |= {node.attr for node in ast.walk(tree) if _is_of_self(node)}
        for node in ast.walk(tree):
            read = [node.attr] if isinstance(node, ast.Attribute) and not _is_of_self(node) else []
            read += [item.name for item in node.names] if isinstance(node, ast.ImportFrom) else []
            private = [name for name in read if re.match(r"_[^_]", name) and name not in own | FOREIGN | TORCH]
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in private]  # type: ignore[attr-defined]
    assert not wrong


def _is_of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


TORCH = {"_parameters", "_buffers", "_modules", "_apply", "_get_name", "_non_persistent_buffers_set"}
"""torch's hooks for module authors, which have no public names."""


@pytest.mark.parametrize("package, title", [("torch_towers", "## The runtime"), ("porting", "## The porter")])
def test_the_document_shows_the_same_order(package: str, title: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition(title)[2].partition("\n## ")[0]
    shown = re.findall(r"`(\w+)/`", "\n".join(re.findall(r"^\| (\S.*?) \|", section, re.M)))
    assert shown == [place for place in ORDER[package] if (ROOT / package / place).is_dir() and place]
