"""Loops that compute each element of their lists on its own, as `tf.map_fn` writes them: the steps need no order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from porting.lifting.editable import renamed
from porting.lifting.loops import Loop, loop_of
from porting.lifting.patterns import Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of, references
from torch_towers.graph.names import numbered

_SLOW = frozenset({"decode_image"})
"""Ops that take long for one element and release Python's lock: their steps run on several threads."""


@rewrite("", Apply("while_loop"))
def map_steps(view: View, root: Node, match: Match) -> None:
    """`while i < n: items[i] = f(i); i += 1` -> `map_steps(n, body=f)`."""
    loop, body, carried = loop_of(view, root), root.attrs["body"], int(root.attrs["carried"])
    counting = {name for name in loop.counters if loop.node(loop.after[name], "size_add") is not None}
    counters = {body.inputs[i].name for i, name in enumerate(loop.before) if name in counting}
    written = {i: _written(loop, name, counting) for i, name in enumerate(loop.before) if name not in counting}
    _check_other_uses(view, root, written)
    sizes = {view.nodes[node_of(root.inputs[i])].inputs[0] for i in written}  # type: ignore[index,arg-type]
    if len(sizes) != 1 or sizes != {*loop.limits()}:
        raise Refusal("it does not take as many steps as its lists have elements")
    elements = {node.name: node.inputs[2] for node in body.nodes if node.op == "list_set"}
    values = {f"output_{k}": elements[list(body.outputs.values())[i]] for k, i in enumerate(written)}
    step = numbered("step", lambda name: name in {*_names(body), *(node.name for node in body.nodes)})
    new = _pruned(body, dict.fromkeys(counters, step), values, _names(body)[:carried], step)
    operands = dict(zip(_names(body), root.inputs, strict=True))
    given = [operands[name] for name in _names(new)[1:]]
    slow = any(node.op in _SLOW for node in new.nodes)
    view.rewrite(root, "map_steps", sizes.pop(), *given, body=new, results=len(written), threads=slow)
    places = {f"{root.name}:{i}": f"{root.name}:{k}" for k, i in enumerate(written)}
    view.redirect(root, places)
    view.learn(root, dict.fromkeys(places.values(), ("variant", ())))


# -- reading ------------------------------------------------------------------------------------------------------------


def _names(graph: Graph) -> list[str]:
    return [spec.name for spec in graph.inputs]


def _written(loop: Loop, name: str, counters: set[str]) -> Node:
    """The node that writes the element of a step into a carried list, which nothing else reads."""
    node, start = loop.node(loop.after[name], "list_set"), loop.node(loop.before[name], "list_reserve")
    if node is None or node.inputs[0] != name or node.inputs[1] not in counters:
        raise Refusal("it carries more than lists, to which each step adds its element")
    if start is None or node.attrs.get("grow"):
        raise Refusal("a list has elements before the first step, or grows")
    if any(name in references(other.inputs) for other in loop.nodes.values() if other.name != node.name):
        raise Refusal("a step reads the elements of other steps")
    return node


def _check_other_uses(view: View, root: Node, written: dict[int, Node]) -> None:
    """Nothing reads the counters after the loop, or a list while it is written."""
    used = {ref for node in view.consumers(root.name) for ref in references(node.inputs)} | {*view.outputs.values()}
    lists = {f"{root.name}:{i}" for i in written}
    if not written or any(node_of(ref) == root.name and ref not in lists for ref in used):
        raise Refusal("the number of its steps is used")


# -- writing ------------------------------------------------------------------------------------------------------------


def _pruned(body: Graph, counters: dict[str, str], values: dict[str, Any], carried: list[str], step: str) -> Graph:
    """The body as a function of the step and of those constant operands that it reads, without what only the loop needed."""
    nodes = [replace(node, inputs=renamed(node.inputs, counters)) for node in body.nodes]
    outputs = {name: renamed((ref,), counters)[0] for name, ref in values.items()}
    needed = {node_of(ref) for ref in outputs.values()}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in needed or has_effect(node):
            kept.insert(0, node)
            needed |= set(map(node_of, references(node.inputs)))
    constant = [spec for spec in body.inputs if spec.name in needed and spec.name not in carried]
    inputs = (TensorSpec(step, "size", ()), *constant)
    return Graph(inputs, tuple(kept), outputs, body.modules)
