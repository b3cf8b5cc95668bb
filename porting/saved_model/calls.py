"""Follows values through the graph and its function calls without executing anything: what the restore op assigns, what
fills the tables.

A `Scope` is the main graph or one call of a function; a `Site` is an output of a node in a scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from porting.errors import CorruptModelError, PortingError

CALL_OPS = ("PartitionedCall", "StatefulPartitionedCall")
_MAX_SCOPES = 10_000
_MAX_NODES = 2_000_000  # executed by the restore and init ops together
_MAX_STEPS = 10_000  # along one chain of identities and calls


@dataclass(slots=True)
class Body:
    """The nodes of the main graph or of a function, by name, as messages."""

    name: str
    nodes: Mapping[str, Any]
    args: Mapping[str, int] = field(default_factory=dict[str, int])
    returns: tuple[str, ...] = ()

    @property
    def is_function(self) -> bool:
        return bool(self.name)


@dataclass(slots=True, eq=False)
class Scope:
    """One activation of a body; call and parent scope are None for the main graph."""

    body: Body
    call: Any = None
    caller: Scope | None = None
    calls: dict[str, Scope] = field(default_factory=dict[str, "Scope"])


@dataclass(frozen=True, slots=True)
class Site:
    """Output `output` ("" for the first) of node `node`; `node` is None if `reference` is the argument of a function
    without a caller."""

    scope: Scope
    node: Any
    output: str
    reference: str


class Bodies:
    """Bodies of a library's functions, created lazily."""

    def __init__(self, functions: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._functions = functions
        self._bodies: dict[str, Body] = {}
        self._scopes = 0

    def body(self, name: str) -> Body:
        if name not in self._functions:
            raise CorruptModelError(f"{self.where}: function '{name}' is called but not in the library")
        if name not in self._bodies:
            proto = self._functions[name]
            args = {arg.name: i for i, arg in enumerate(proto.signature.input_arg)}
            returns = tuple(proto.ret.get(arg.name, "") for arg in proto.signature.output_arg)
            self._bodies[name] = Body(name, {node.name: node for node in proto.node_def}, args, returns)
        return self._bodies[name]

    def scope_of_call(self, scope: Scope, node: Any) -> Scope:
        """The scope of the function called by the node `call` in `scope`."""
        if node.name not in scope.calls:
            self._scopes += 1
            name = node.attr["f"].func.name if node.op in CALL_OPS else node.op
            ancestor: Scope | None = scope
            while ancestor is not None:
                if ancestor.body.name == name:
                    raise CorruptModelError(f"{self.where}: function '{name}' calls itself (by node '{node.name}')")
                ancestor = ancestor.caller
            if self._scopes > _MAX_SCOPES:
                raise PortingError(
                    f"{self.where}: over {_MAX_SCOPES} function calls while variables and tables are initialised"
                )
            scope.calls[node.name] = Scope(self.body(name), node, scope)
        return scope.calls[node.name]

    def is_call(self, node: Any) -> bool:
        return node.op in CALL_OPS or node.op in self._functions

    def reachable(self, root: Scope, starts: Sequence[str]) -> list[tuple[Scope, Any]]:
        """Every node that running `starts` in `root` executes, including called functions, dependencies first."""
        found: list[tuple[Scope, Any]] = []
        stack: list[tuple[Scope, str, bool]] = [(root, node_name(start), False) for start in starts]
        seen: set[tuple[int, str]] = set()
        while stack:
            scope, name, done = stack.pop()
            node = scope.body.nodes.get(name)
            if node is None:
                if scope.body.is_function and name in scope.body.args:
                    continue
                raise CorruptModelError(
                    f"{self.where}: node '{name}' is referred to but not in {'function ' + scope.body.name if scope.body.name else 'the graph'}"
                )
            if done:
                found.append((scope, node))
                continue
            if (id(scope), name) in seen:
                continue
            seen.add((id(scope), name))
            if len(seen) > _MAX_NODES:
                raise PortingError(f"{self.where}: over {_MAX_NODES} nodes initialise variables and tables")
            stack.append((scope, name, True))
            if self.is_call(node):
                callee = self.scope_of_call(scope, node)
                stack.extend((callee, inner, False) for inner in callee.body.nodes)
            stack.extend((scope, node_name(reference), False) for reference in node.input)
        return found

    def origin(self, scope: Scope, reference: str) -> Site:
        """The node that produces `reference` in `scope`: skips identities, follows arguments to the caller and results
        into the callee."""
        for _ in range(_MAX_STEPS):
            name, _, output = reference.partition(":")
            if scope.body.is_function and name in scope.body.args:
                if scope.caller is None:
                    return Site(scope, None, "", name)
                operands = data_inputs(scope.call)
                index = scope.body.args[name]
                if index >= len(operands):
                    raise CorruptModelError(
                        f"{self.where}: call '{scope.call.name}' gives {len(operands)} operands, function '{scope.body.name}' takes {len(scope.body.args)}"
                    )
                scope, reference = scope.caller, operands[index]
                continue
            node = scope.body.nodes.get(name)
            if node is None:
                raise CorruptModelError(
                    f"{self.where}: node '{name}' is referred to but not in {'function ' + scope.body.name if scope.body.name else 'the graph'}"
                )
            if node.op in ("Identity", "Snapshot", "StopGradient") and data_inputs(node):
                reference = data_inputs(node)[0]
            elif self.is_call(node):
                callee = self.scope_of_call(scope, node)
                index = output_index(output)
                if index >= len(callee.body.returns):
                    raise CorruptModelError(
                        f"{self.where}: output {index} of call '{node.name}', function '{callee.body.name}' has {len(callee.body.returns)}"
                    )
                scope, reference = callee, callee.body.returns[index]
            else:
                return Site(scope, node, output, reference)
        raise CorruptModelError(f"{self.where}: following '{reference}' leads in a circle")


def node_name(reference: str) -> str:
    """The node of an input: "a" of "a", "a:1", "a:out:0" and "^a"."""
    return reference.removeprefix("^").partition(":")[0]


def data_inputs(node: Any) -> list[str]:
    return [reference for reference in node.input if not reference.startswith("^")]


def output_index(output: str) -> int:
    """The number in "1" (main graph) and in "output:1" (function body); 0 where there is none."""
    last = output.rpartition(":")[2]
    return int(last) if last.isascii() and last.isdigit() else 0
