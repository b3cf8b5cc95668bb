"""`python -m porting.ops_table`: prints docs/ops.md, the list of supported TensorFlow ops, from the registry of
converters."""

from __future__ import annotations

import inspect
from collections import defaultdict

from porting import converters as _converters  # noqa: F401  (fills CONVERTERS)
from porting.conversion.refusals import BEFORE, REFUSALS
from porting.registry import CONVERTERS, Entry

HEAD = """# TensorFlow's ops

`make docs` prints this page from the registry; tests check that it is current, and complete for TensorFlow 2.21 and
tensorflow_text: each op is ported, or refused with a reason (at the end). For a refused op, the porter stops before any
work and names its count and place. Attributes that only repeat a dtype or affect only TensorFlow's execution are not
listed.
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
    """The ops that are not ported, with reasons: first those possible in an inference graph, then the others."""
    parts = [
        "## Ported without a converter\n",
        "Calls are inlined, control flow becomes functional, placeholders become inputs: ",
    ]
    parts[-1] += f"{', '.join(BEFORE)}.\n"
    for held, title in ((True, "Refused"), (False, "Never in an inference graph")):
        parts.append(f"## {title}\n\n`*` is a wildcard; ops in a table above are ported even if they match.\n")
        parts.append("| ops | names | reason |\n| --- | --- | --- |")
        rows = [refusal for refusal in REFUSALS if refusal.held is held]
        parts += [f"| {row.title} | {' '.join(f'`{name}`' for name in row.names)} | {row.reason} |" for row in rows]
        parts.append("")
    return parts


def _attributes(entry: Entry) -> str:
    parameters = entry.signature.parameters.values()
    return ", ".join(f"`{p.name}`" for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


if __name__ == "__main__":
    print(table(), end="")
