"""`python -m porting.layers_table`: prints docs/layers.md, what is lifted to which layer, from the registry of rewrites."""

from __future__ import annotations

import ast
import importlib
import inspect

from porting.lifting.registry import REWRITES, Rewrite
from porting.rewrites import ORDER
from torch_towers.graph.registry import OPS

HEAD = """# Layers

Printed from the registry by `make docs`. A graph of ops is read by the files of `porting/rewrites/`, in this order: each finds its
layer in the spellings named here, whoever wrote them, and otherwise leaves the ops as they are, with a sentence in the report. They
run all the same, with the same numbers. Rows without a layer bring a graph nearer to the form in which layers are found.
"""


def table() -> str:
    """The Markdown of docs/layers.md: for each file of rewrites its layers, their spellings, and what is not lifted and why."""
    parts = [HEAD]
    for name in ORDER:
        module = importlib.import_module(f"porting.rewrites.{name}")
        parts.append(f"## {name}\n\n{_paragraph(module.__doc__)}\n\n| layer | spelled as |\n| --- | --- |")
        rows = dict.fromkeys(f"| {item.layer} | {_cell(_spelling(item))} |" for item in REWRITES[name])
        parts += [*rows, ""]
        reasons = _reasons(inspect.getsource(module)) if any(item.layer for item in REWRITES[name]) else []
        if reasons:
            parts += ["Stays as it is where:\n", *(f"- {_cell(reason)}" for reason in reasons), ""]
    return "\n".join(parts)


def _spelling(item: Rewrite) -> str:
    """What the rewrite says it finds; one that becomes an op is what the op says."""
    said = inspect.getdoc(item.apply) or (inspect.getdoc(OPS[item.layer].function) if item.layer in OPS else "")
    return _paragraph(said)


def _paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _reasons(source: str) -> list[str]:
    """The sentences with which the rewrites of a file refuse; what is filled in shows as `...`."""
    calls = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    said = [
        _text(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Refusal" and call.args
    ]
    return list(dict.fromkeys(text for text in said if len(text.split()) > _TERSE))


_TERSE = 4  # words: a shorter one is of a row without a layer, and is not reported


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "..."


if __name__ == "__main__":
    print(table(), end="")
