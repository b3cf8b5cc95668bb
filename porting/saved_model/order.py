"""Order: the nodes that some tensors need, each behind what it needs itself. A cycle is an error, as TensorFlow has it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from porting.errors import CorruptModelError
from porting.saved_model.calls import node_name

_LOOP_END = ("NextIteration", "RefNextIteration")


def topological(nodes: Mapping[str, Any], outputs: Iterable[str], fed: Collection[str], where: str) -> dict[str, None]:
    """Names of the nodes that `outputs` need by data or control, operands first; nothing is needed for the references `fed`.

    Only the end of a TF1 loop may close a cycle. Errors: `CorruptModelError`.
    """
    order: dict[str, None] = {}
    finished: dict[str, bool] = {}  # False while what a node needs is being visited
    stack: list[tuple[str, bool]] = []
    loop_ends: list[str] = []

    def push(reference: str) -> None:
        if reference.removeprefix("^") not in fed and reference.removesuffix(":0") not in fed:
            stack.append((node_name(reference), False))

    for output in reversed(list(outputs)):
        push(output)
    while stack or loop_ends:
        if not stack:
            push(loop_ends.pop())
            continue
        name, done = stack.pop()
        if done:
            finished[name] = True
            order[name] = None
            continue
        if name in finished:
            if not finished[name]:
                raise CorruptModelError(f"{where}: node '{name}' needs its own result, the graph has a cycle")
            continue
        if name not in nodes:
            raise CorruptModelError(f"{where}: node '{name}' is referred to but not in the graph")
        finished[name] = False
        stack.append((name, True))
        for reference in reversed(nodes[name].input):
            source = nodes.get(node_name(reference))
            if source is not None and source.op in _LOOP_END:
                loop_ends.append(reference)
            else:
                push(reference)
    return order
