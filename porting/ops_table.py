"""`python -m porting.ops_table`: prints docs/ops.md, the list of supported TensorFlow ops, from the registry of converters."""

from __future__ import annotations

import inspect
from collections import defaultdict

from porting import converters as _converters  # noqa: F401  (fills CONVERTERS)
from porting.conversion.refusals import BEFORE, REFUSALS
from porting.registry import CONVERTERS, Entry

HEAD = """# TensorFlow's ops

Printed from the registry by `make docs`; tests keep it current, and complete against the ops of TensorFlow 2.21 and tensorflow_text:
each is ported, or refused with the reason at the end. A refused op stops the porter before any work, with its name, count and place.
Attributes that only repeat a dtype or steer TensorFlow's execution are not listed.
"""


def table() -> str:
    """The Markdown of docs/ops.md: a table for each file of `porting/converters/`."""
    groups: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for op, entry in sorted(CONVERTERS.items()):
        groups[entry.function.__module__.rpartition(".")[2]].append((op, entry))
    parts = [HEAD, f"{len(CONVERTERS)} ops have a converter.\n"]
    for group, entries in sorted(groups.items()):
        parts.append(f"## {group}\n")
        parts.append("| op | attributes | refused |\n| --- | --- | --- |")
        parts += [f"| {op} | {_attributes(entry)} | {entry.refuses} |" for op, entry in entries]
        parts.append("")
    return "\n".join([*parts, *_refusals()])


def _refusals() -> list[str]:
    """What is not ported and why: first what a graph that only computes could hold, then what it could not."""
    parts = [
        "## Ported without a converter\n",
        "Calls are inlined, control flow is made functional, inputs are inputs: ",
    ]
    parts[-1] += f"{', '.join(BEFORE)}.\n"
    for held, title in ((True, "Refused"), (False, "In no graph that only computes")):
        parts.append(f"## {title}\n\n`*` stands for anything; what is in a table above is ported all the same.\n")
        parts.append("| ops | names | why not |\n| --- | --- | --- |")
        rows = [refusal for refusal in REFUSALS if refusal.held is held]
        parts += [f"| {row.title} | {' '.join(f'`{name}`' for name in row.names)} | {row.reason} |" for row in rows]
        parts.append("")
    return parts


def _attributes(entry: Entry) -> str:
    parameters = entry.signature.parameters.values()
    return ", ".join(f"`{p.name}`" for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


if __name__ == "__main__":
    print(table(), end="")
