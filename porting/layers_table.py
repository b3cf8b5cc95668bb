"""`python -m porting.layers_table`: prints docs/layers.md, the formulas lifted to each layer, from the registry of
rewrites."""

from __future__ import annotations

import ast
import importlib
import inspect

from porting.lifting.registry import REWRITES, Rewrite
from porting.rewrites import ORDER
from torch_towers.graph.registry import OPS

HEAD = """# Layers

`make docs` prints this page from the registry. The files of `porting/rewrites/` run in this order. Each recognizes its
layer in the formulas listed here, whichever framework wrote them. Otherwise it leaves the ops as they are, with a
reason in the report; they run with the same numbers. Rows without a layer normalize the graph for later patterns.
"""


def table() -> str:
    """The Markdown of docs/layers.md: for each file of rewrites its layers, their formulas, and the reasons for
    refusals."""
    parts = [HEAD]
    for name in ORDER:
        module = importlib.import_module(f"porting.rewrites.{name}")
        parts.append(f"## {name}\n\n{_paragraph(module.__doc__)}\n\n| layer | formula |\n| --- | --- |")
        rows = dict.fromkeys(f"| {item.layer} | {_cell(_spelling(item))} |" for item in REWRITES[name])
        parts += [*rows, ""]
        reasons = _reasons(inspect.getsource(module)) if any(item.layer for item in REWRITES[name]) else []
        if reasons:
            parts += ["Not lifted if:\n", *(f"- {_cell(reason)}" for reason in reasons), ""]
    return "\n".join(parts)


def _spelling(item: Rewrite) -> str:
    """The docstring of a rewrite, or that of the op that it becomes."""
    said = inspect.getdoc(item.apply) or (inspect.getdoc(OPS[item.layer].function) if item.layer in OPS else "")
    return _paragraph(said)


def _paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _reasons(source: str) -> list[str]:
    """The refusal messages of a file's rewrites, with `...` for placeholders."""
    calls = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    said = [
        _text(call.args[0])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Refusal" and call.args
    ]
    return list(dict.fromkeys(text for text in said if len(text.split()) > _TERSE))


_TERSE = 4  # words: shorter messages belong to rows without a layer, and are not reported


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "..."


if __name__ == "__main__":
    print(table(), end="")
