"""Recognizes loops over sequences: a `while_loop` that reads its operands step by step, in one graph with its
surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from porting.lifting.editable import renamed
from porting.lifting.patterns import Any_, Apply, Match, Refusal, Size, number
from porting.lifting.steps import turns_steps
from porting.lifting.view import View
from torch_towers.graph.graph import Graph, Node, node_of

_BOUNDED = Apply("size_min", Size("length"), Apply("size_max", 1, Size("length")))
"""A length that TensorFlow 1 keeps above 0."""

_LONGEST = Apply(
    "minimum",
    Apply("sizes_tensor", Size("length")) | Size("length"),
    Apply("maximum", 1, Apply("reduce_max", Any_("lengths"))),
)
"""The largest of some lengths, within a length."""


@dataclass(frozen=True)
class Loop:
    """A `while_loop` with the nodes of its bodies merged into those of the graph: `nodes` and `store` are for pattern
    matching.

    `before`: the carried values, as seen in the body -> their initial values; `after`: -> their new values.
    `list_of`: the carried list of outputs; `states`: the other carried values except counters.
    """

    view: View
    root: Node
    nodes: dict[str, Node]
    before: dict[str, Any]
    after: dict[str, Any]
    test: Any

    @property
    def store(self) -> dict[str, Any]:
        return self.view.store

    def dtype(self, ref: Any) -> str | None:
        return self.view.dtype(ref)

    def node(self, ref: Any, op: str) -> Node | None:
        """The producer of `ref`, if its op is `op`."""
        node = self.nodes.get(node_of(ref)) if isinstance(ref, str) else None
        return node if node is not None and node.op == op else None

    def place(self, carried: str) -> str:
        """The outer reference of a carried value's final value."""
        return f"{self.root.name}:{list(self.before).index(carried)}"

    # -- counting -----------------------------------------------------------------------------------------------------

    @property
    def counters(self) -> set[str]:
        """The carried values that start at 0 and grow by 1."""
        return {name for name, start in self.before.items() if self._grows(name) and self.is_zero(start)}

    def _grows(self, name: str) -> bool:
        step = self.node(self.after[name], "size_add") or self.node(self.after[name], "add")
        return step is not None and step.inputs in ((name, 1), (1, name))

    def check_length(self, x: str, lengths: str | None = None) -> None:
        """Refuses a loop whose number of steps differs from the length of `x [n, length, ...]`, or with `lengths [n]`
        from the largest of them."""
        limits = self.limits()
        if not limits or not all(self.is_length(size, x) or self._is_longest(size, x, lengths) for size in limits):
            raise Refusal("it is not known to take as many steps as its sequence has")

    def limits(self) -> list[Any]:
        """The sizes that the counters stay below. Errors: `Refusal` if the loop ends by something else."""
        pending, found = [self.test], list[Any]()
        while pending:
            ref = pending.pop()
            both = self.node(ref, "size_mul") or self.node(ref, "logical_and") or self.node(ref, "sizes_tensor")
            less = self.node(ref, "size_less") or self.node(ref, "less")
            if both is not None:
                pending += both.inputs
            elif less is not None and less.inputs[0] in self.counters:
                found.append(less.inputs[1])
            else:
                raise Refusal("it is not known to take as many steps as its sequence has")
        return found

    def _is_longest(self, size: Any, x: str, lengths: str | None) -> bool:
        """Whether `size` is the largest of `lengths`, at least 1 and at most the length of `x`."""
        found = _LONGEST.find(self, size, Match())
        return any(match["lengths"] == lengths and self.is_length(match["length"], x) for match in found)

    def is_length(self, size: Any, x: str) -> bool:
        """Whether `size` is the length of `x [n, length, ...]`."""
        bounded = next(_BOUNDED.find(self, size, Match()), None)
        if bounded is not None:
            return self.is_length(bounded["length"], x)
        fixed = number(self.view, size)
        if fixed is not None:
            size = fixed
        length = (self.view.shape(x) or (None, None))[1]
        node = self.view.node(size)
        if node is not None and node.op == "size":
            shape = self.view.shape(node.inputs[0])
            size = None if shape is None else shape[node.attrs["axis"]]
        return length is not None and size == length

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, item: Any) -> tuple[str, bool]:
        """The tensor `[n, length, ...]` of which `item` is one step, and whether it is read from the end."""
        node = self.node(item, "list_get")
        if node is None:
            raise Refusal("it does not read its sequence step by step")
        return self.sequence(*node.inputs)

    def sequence(self, items: Any, counter: Any) -> tuple[str, bool]:
        """The tensor `[n, length, ...]` that the loop reads as `items[counter]`, and whether it reads from the end."""
        rows = self.node(items, "list_from_tensor")
        if rows is None or counter not in self.counters:
            raise Refusal("it does not read its sequence step by step")
        ref = rows.inputs[0]
        flipped = self.node(ref, "flip")
        if flipped is not None and tuple(flipped.attrs["axes"]) == (0,):
            ref = flipped.inputs[0]
        turned = self.node(ref, "transpose")
        if turned is None or not turns_steps(turned):
            raise Refusal("its sequence has the steps in front of the rows")
        return turned.inputs[0], flipped is not None

    def is_mask(self, condition: Any) -> bool:
        """Whether `condition` says which steps of a row are taken, and not what a step computes."""
        return self._mask_read(condition) is not None or self.lengths(condition) is not None

    def _mask_read(self, condition: Any) -> Node | None:
        tiled = self.node(condition, "tile")
        return self.node(condition if tiled is None else tiled.inputs[0], "list_get")

    def mask(self, condition: Any) -> tuple[str, bool]:
        """The mask `[n, length]` of which `condition [n, 1]` or `[n, units]` is one step, and whether it is read from
        the end."""
        read = self._mask_read(condition)
        if read is None:
            raise Refusal("what it keeps of a state does not depend on a mask over the steps")
        column, backwards = self.sequence(*read.inputs)
        added = self.node(column, "unsqueeze")
        if added is None or added.attrs["axis"] not in (2, -1) or self.view.dtype(added.inputs[0]) != "bool":
            raise Refusal("its mask is not one bool for each step")
        return added.inputs[0], backwards

    def lengths(self, condition: Any) -> str | None:
        """The lengths `[n]` of the rows, if `condition [n, 1]` is where a row has ended: `step >= length`."""
        added = self.node(condition, "unsqueeze")
        ended = None if added is None else self.node(added.inputs[0], "greater_equal")
        if ended is None or ended.inputs[0] not in self.counters or self.view.rank(ended.inputs[1]) != 1:
            return None
        return str(ended.inputs[1])

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def list_of(self) -> str:
        """The list of outputs."""
        found = [name for name, ref in self.after.items() if self.node(ref, "list_set") is not None]
        if len(found) != 1 or self.written.inputs[0] != found[0]:
            raise Refusal("it does not write one output for each step")
        return found[0]

    @property
    def written(self) -> Node:
        """The node that writes the output of a step."""
        found = [node for ref in self.after.values() if (node := self.node(ref, "list_set")) is not None]
        if len(found) != 1:
            raise Refusal("it does not write one output for each step")
        return found[0]

    @property
    def states(self) -> list[str]:
        return [name for name in self.before if name not in self.counters and name != self.list_of]

    def keeps_all(self, x: str) -> bool:
        """Whether the outputs of all steps are kept; False if each overwrites the previous one."""
        reserved, index = self.node(self.before[self.list_of], "list_reserve"), self.written.inputs[1]
        if reserved is not None and index in self.counters and self.is_length(reserved.inputs[0], x):
            return True
        if reserved is not None and (index, reserved.inputs[0]) == (0, 1):
            return False
        raise Refusal("its outputs are not as many as its steps")

    def is_zero(self, ref: Any) -> bool:
        return number(self.view, ref) == 0


def loop_of(view: View, root: Node) -> Loop:
    """Reads the `while_loop` `root`."""
    body, cond, carried = root.attrs["body"], root.attrs["cond"], int(root.attrs["carried"])
    nodes = dict(view.nodes)
    results = {key: _beside(nodes, f"{root.name}/{key}/", graph, root, carried) for key, graph in
               (("body", body), ("cond", cond))}  # fmt: skip
    names = [_carried(root, spec.name) for spec in body.inputs[:carried]]
    before = dict(zip(names, root.inputs[:carried], strict=True))
    return Loop(view, root, nodes, before, dict(zip(names, results["body"], strict=True)), results["cond"][0])


def _beside(nodes: dict[str, Node], prefix: str, graph: Graph, root: Node, carried: int) -> list[Any]:
    """Adds the nodes of a body to `nodes`; returns the references of its results."""
    new: dict[str, Any] = {node.name: prefix + node.name for node in graph.nodes}
    for i, (spec, operand) in enumerate(zip(graph.inputs, root.inputs, strict=True)):
        new[spec.name] = _carried(root, spec.name) if i < carried else operand
    for node in graph.nodes:
        nodes[prefix + node.name] = Node(prefix + node.name, node.op, renamed(node.inputs, new), node.attrs)
    return [renamed((ref,), new)[0] for ref in graph.outputs.values()]


def _carried(root: Node, name: str) -> str:
    return f"{root.name}/{name}"
