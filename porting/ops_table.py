"""`python -m porting.ops_table`: prints docs/ops.md, the list of supported TensorFlow ops, from the registry of converters."""

from __future__ import annotations

import inspect
from collections import defaultdict

from porting.convert import CONVERTERS, Entry, load_converters

HEAD = """# Supported TensorFlow ops

Printed from the registry by `make docs`; a test keeps it current. An op that is not listed stops the porter before any work, with
its name, count and place. Attributes that only repeat a dtype or steer TensorFlow's execution are not listed.
"""


def table() -> str:
    """The Markdown of docs/ops.md: a table for each file of `porting/converters/`."""
    load_converters()
    groups: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for op, entry in sorted(CONVERTERS.items()):
        groups[entry.function.__module__.rpartition(".")[2]].append((op, entry))
    parts = [HEAD, f"{len(CONVERTERS)} ops.\n"]
    for group, entries in sorted(groups.items()):
        parts.append(f"## {group}\n")
        parts.append("| op | attributes | refused |\n| --- | --- | --- |")
        parts += [f"| {op} | {_attributes(entry)} | {entry.refuses} |" for op, entry in entries]
        parts.append("")
    return "\n".join(parts)


def _attributes(entry: Entry) -> str:
    parameters = entry.signature.parameters.values()
    return ", ".join(f"`{p.name}`" for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


if __name__ == "__main__":
    print(table(), end="")
