"""Converts a flat graph of TF ops to a graph of torch ops, with one small converter per TF op.

Converters are registered in `porting.registry`. A converter's signature is the op's schema: after the emitter `t`,
positional parameters are the op's operands, keyword-only ones its attributes with TensorFlow's defaults. An operand
annotated `int`, `bool`, `float`, `bytes`, `tuple` or `np.ndarray` must be constant; one annotated `Dimensions` is a
list of integers, some of which may be known only at run time. An attribute that no parameter reads is an error, unless
it only repeats a dtype or affects only TensorFlow's execution.
"""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from porting import budget
from porting.conversion import folding, shape_arithmetic
from porting.conversion.emitter import Emitter
from porting.conversion.refusals import refusal_of
from porting.conversion.values import LISTED, Constant, Dimensions, Sizes, Value, constant
from porting.errors import CorruptModelError, PortingError
from porting.flat_graph import effects
from porting.flat_graph.flatten import as_graph, flatten
from porting.names import outermost
from porting.registry import CONVERTERS, DRAWS, Entry, converter
from porting.saved_model import Function, FunctionRef, SavedModel
from porting.served import AS_WRITTEN, Served, as_served
from torch_towers.checkpoint.graph_json import MAX_DEPTH
from torch_towers.errors import InputError, TorchTowersError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.registry import OPS

EXECUTION_ATTRS = frozenset(
    [
        "container",
        "shared_name",
        "N",
        "use_inter_op_parallelism",
        "parallel_iterations",
        "config",
        "config_proto",
        "executor_type",
        "swap_memory",
        "use_cudnn_on_gpu",
        "use_locking",
        "validate_shape",
        "validate_indices",
        "is_constant",
        "stop_on_exception",
        "sloppy",
    ]
)
"""Attributes that affect how TensorFlow runs an op, not its result."""


WITHOUT_KERNEL = ("BoostedTreesBucketize", "BucketizeWithInputBoundaries")
"""Ported ops that TensorFlow 2.21 cannot run, so that there is nothing to compare with."""


def without_kernel(graph: Graph, functions: Mapping[str, Function]) -> list[str]:
    """The ops of an entry that current TensorFlow versions cannot run."""
    found = {node.op for node in all_nodes(graph, functions)}
    return [op for op in WITHOUT_KERNEL if op in found]


class Context:
    """State shared by one port: the SavedModel, the store of weights and constants, and which of them are used.

    `served` says how TensorFlow runs the graph; `captured` names constants that its optimizer does not see.
    """

    def __init__(self, model: SavedModel, served: Served = AS_WRITTEN, captured: frozenset[str] = frozenset()) -> None:
        self.model = model
        self.served = served
        self.captured = captured
        self.functions: Mapping[str, Function] = model.functions
        self._looks = budget.current().fresh(times=32)  # for the constants that the optimizer reads repeatedly
        self.store: dict[str, Any] = {}
        self.weights: dict[str, str] = {}  # variable key -> name of the weight
        self.tables: dict[str, str] = {}  # table key -> name of the module

    def as_served(self, graph: Graph) -> Graph:
        """A flat TF graph as TensorFlow runs it."""
        return graph if self.served == AS_WRITTEN else as_served(graph, self.served, self._evaluate, self.captured)

    def _evaluate(self, graph: Graph) -> torch.Tensor | None:
        """The value of a constant TF graph, if it is known at port time."""
        if any(node.op not in CONVERTERS for node in graph.nodes):
            return None
        looked = budget.current().fresh()
        try:
            with budget.within(looked):  # the value is temporary
                value = ConvertingEmitter(graph, Context(self.model)).run(graph, {})["value"]
        except TorchTowersError:
            return None  # conversion of the node itself reports the error
        finally:
            self._looks.spend("fold_bytes", looked.spent.get("fold_bytes", 0), graph.nodes[-1].name)
        if not isinstance(value, Constant) or not isinstance(value.array, torch.Tensor):
            return None
        return None if folding.is_large_splat(value.array) else value.array


def convert(graph: Graph, context: Context) -> tuple[Graph, ConvertingEmitter]:
    """A flat graph of TF ops as a graph of torch ops. Errors: lists all unsupported ops at once, before any work."""
    emitter = ConvertingEmitter(graph, context)
    changing = effects.changing(graph, context.functions)
    refused = changes(changing), unsupported(graph, context.functions, changing)
    if any(refused):
        emitter.refuse_draws(graph)  # more informative than the error about the changed seed
        raise PortingError("\n".join(filter(None, refused)))
    graph = context.as_served(graph)
    emitter = ConvertingEmitter(graph, context)
    return emitter.graph(emitter.run(graph, {})), emitter


def changes(found: Sequence[Node]) -> str:
    """One sentence that names the ops that change state which the outputs read; empty if there are none."""
    if not found:
        return ""
    listed = ", ".join(f"{node.op} {node.name!r}" for node in found[:3]) + (", ..." if len(found) > 3 else "")
    return (
        f"this entry changes what the model holds ({listed}) and reads it: only entries without side "
        "effects can be ported; choose another"
    )


def unsupported(graph: Graph, functions: Mapping[str, Function], changing: Sequence[Node] = ()) -> str:
    """One sentence that lists every unsupported op, with counts and first uses; empty if there are none.

    `changing` are the ops that change state: they are refused for that.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    known = CONVERTERS.keys() | {node.op for node in changing}
    for node in all_nodes(graph, functions):
        if node.op not in known:
            counts[node.op] += 1
            first.setdefault(node.op, node.name)
    if not counts:
        return ""
    listed = ", ".join(f"{op} (x{count})" for op, count in sorted(counts.items()))
    uses = "".join(f"\n  first use: {first[op]}  ({op}){_reason(op)}" for op in sorted(counts))
    verb = "op has" if len(counts) == 1 else "ops have"
    return f"{len(counts)} {verb} no converter: {listed}{uses}"


def _reason(op: str) -> str:
    refusal = refusal_of(op)
    return f": {refusal.reason}" if refusal else ""


def all_nodes(graph: Graph, functions: Mapping[str, Function]) -> list[Node]:
    """The nodes of a flat graph and of all its branch and loop bodies, flattened."""
    found: list[Node] = []
    pending, seen = list(graph.nodes), set[str]()
    while pending:
        node = pending.pop(0) if len(pending) < 64 else pending.pop()
        found.append(node)
        pending += [inner for value in node.attrs.values() if isinstance(value, Graph) for inner in value.nodes]
        for reference in effects.references_of(node):
            if reference.name in functions and reference.name not in seen:
                seen.add(reference.name)
                function = functions[reference.name]
                pending += flatten(
                    as_graph(function), functions, controls=function.control_outputs, stack=(reference.name,)
                ).nodes
    return found


_BODY = 8
"""The overhead of a branch or body, in nodes."""


class ConvertingEmitter(Emitter):
    """An emitter that walks a TF graph. Converters of branches and loops use it to convert bodies."""

    def __init__(self, graph: Graph, context: Context, **shared: Any) -> None:
        super().__init__(graph.inputs, store=context.store, **shared)
        self.context = context
        self.functions = context.functions
        self.stack: tuple[str, ...] = ()
        self.depth = 0  # nesting of branches and loops
        self.counting = False  # whether comparisons of sizes are sizes too, as in the condition of a loop

    def run(self, graph: Graph, given: Mapping[str, Any], stack: tuple[str, ...] = ()) -> dict[str, Any]:
        """Converts every node of `graph`; `given` holds known inputs. Returns its outputs."""
        self.stack = stack
        self.outer = outermost(
            node.name for node in graph.nodes if node.op not in ("Const", "ReadVariableOp", "VarHandleOp")
        )
        env: dict[str, Any] = {}
        for spec in graph.inputs:
            env[spec.name] = [given[spec.name] if spec.name in given else self.value(spec.name, spec.dtype, spec.shape)]
        for node in graph.nodes:
            self.scope = node.name
            try:
                env[node.name] = self._convert(node, [_look_up(ref, env) for ref in node.inputs])
            except InputError as error:  # from a folded op
                raise PortingError(f"{node.op} {node.name!r}: {error}") from error
            except TorchTowersError:
                raise
            except Exception as error:
                raise PortingError(
                    f"{node.op} {node.name!r} could not be converted: {type(error).__name__}: {error}"
                ) from error
        self.results = {node.name: _first(env[node.name]) for node in graph.nodes}
        self.others = {
            f"{node.name}:{i}": value for node in graph.nodes for i, value in enumerate(_in_a_row(env[node.name])) if i
        }
        return {name: _look_up(ref, env) for name, ref in graph.outputs.items()}

    def refuse_draws(self, graph: Graph) -> None:
        """Refuses the last op of `graph` that draws random numbers, with its own advice."""
        for node in reversed(graph.nodes):
            if node.op in CONVERTERS and CONVERTERS[node.op].refuses == DRAWS:
                self.scope = node.name
                CONVERTERS[node.op].function(self)

    def _convert(self, node: Node, operands: list[Any]) -> Any:
        folded = shape_arithmetic.fold(self, node, operands)
        if folded is not None:
            return [folded]
        entry = CONVERTERS[node.op]
        result = entry.function(self, *_operands(node, entry, operands), **_attributes(node, entry))
        return _results(result, entry)

    # -- bodies of branches and loops -------------------------------------------------------------------------------------

    def flat(self, body: FunctionRef | Graph) -> Graph:
        """The body of a branch or loop as a flat graph of TF ops."""
        graph = body if isinstance(body, Graph) else self._flattened(body)
        self.budget.spend("nodes", _BODY + len(graph.nodes), self.scope)
        return self.context.as_served(graph)

    def _flattened(self, body: FunctionRef) -> Graph:
        if body.name not in self.functions:
            raise CorruptModelError(
                f"{self.scope!r} calls the function {body.name!r}, which the SavedModel does not hold"
            )
        if body.name in self.stack:
            raise PortingError(f"function {body.name!r} calls itself: recursion cannot be ported")
        function = self.functions[body.name]
        stack = (*self.stack, body.name)
        return flatten(as_graph(function), self.functions, controls=function.control_outputs, stack=stack)

    def inline(self, body: FunctionRef | Graph, operands: Sequence[Any]) -> list[Any]:
        """Converts the nodes of a body inline, on `operands`. Returns its results."""
        flat = self.flat(body)
        stack, scope = self.stack, self.scope
        given = {spec.name: operand for spec, operand in zip(flat.inputs, operands, strict=True)}
        results = self.run(flat, given, (*stack, body.name) if isinstance(body, FunctionRef) else stack)
        self.stack, self.scope = stack, scope
        return list(results.values())

    def nested(self, inputs: Sequence[TensorSpec]) -> ConvertingEmitter:
        """An emitter for a nested graph: names, modules and stored constants are shared."""
        if self.depth == MAX_DEPTH:
            raise PortingError(f"{self.scope!r}: branches and loops are nested more than {MAX_DEPTH} deep")
        inner = ConvertingEmitter(Graph(tuple(inputs), (), {}), self.context, namer=self.names)
        inner.depth = self.depth + 1
        inner.modules, inner._held = self.modules, self._held
        inner.stack, inner.scope = self.stack, self.scope
        inner._symbols = self._symbols
        inner.equal_rows = self.equal_rows
        return inner

    def write_call(self, name: str, operands: Sequence[Any], specs: Sequence[Any], **attrs: Any) -> Any:
        """Writes an op whose result specs the caller knows."""
        return self._write(name, self._arguments(OPS[name], operands), attrs, list(specs), self.place or name)

    def fresh_symbol(self) -> str:
        """A new symbol for an unknown size."""
        return self._symbol()

    def snapshot(self) -> Callable[[], None]:
        """Saves the state of the port; the returned function rolls back everything added since."""
        context = self.context
        written: list[Any] = [
            context.store,
            context.weights,
            context.tables,
            self.modules,
            self._held,
            *self.names.given(),
        ]
        saved = [(live, live.copy()) for live in written]

        def undo() -> None:
            for live, old in saved:
                live.clear()
                live.update(old)

        return undo


def _first(results: Any) -> Any:
    """The first result of a node, None if it has none."""
    found = next(iter(results.values()), None) if isinstance(results, dict) else next(iter(results), None)
    return next(iter(found), None) if isinstance(found, list) else found


def _in_a_row(results: Any) -> list[Any]:
    """All results of a node, with list results flattened."""
    values = results.values() if isinstance(results, dict) else results
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _look_up(reference: str, env: Mapping[str, Any]) -> Any:
    name, _, rest = reference.partition(":")
    results = env[name]
    if isinstance(results, dict):  # by output name
        argument, _, index = rest.rpartition(":")
        if argument:
            found = results[argument]
            return found[int(index)] if isinstance(found, list) else found
        return _in_a_row(results)[int(rest or 0)]
    return results[int(rest.rpartition(":")[2] or 0)]


def _results(result: Any, entry: Entry) -> Any:
    if entry.outputs:
        values = result if isinstance(result, tuple) else (result,)
        return dict(zip(entry.outputs, values, strict=True))
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _operands(node: Node, entry: Entry, operands: list[Any]) -> list[Any]:
    named = entry.operands
    if len(operands) < len(named) or (len(operands) > len(named) and not entry.is_variadic):
        raise PortingError(f"{node.op} {node.name!r} has {len(operands)} operands; its converter takes {len(named)}")
    taken = [_as_annotated(node, name, hint, operand) for (name, hint), operand in zip(named, operands, strict=False)]
    return taken + operands[len(named) :]


def _as_annotated(node: Node, name: str, hint: Any, operand: Any) -> Any:
    if hint is Dimensions:
        return shape_arithmetic.as_dimensions(operand)
    if hint not in (int, float, bool, bytes, np.ndarray) and typing.get_origin(hint) is not tuple:
        return operand
    array = _constant_array(operand)
    if array is None:
        where = getattr(operand, "ref", "an earlier node")
        raise PortingError(f"{node.op} {node.name!r}: operand `{name}` must be a constant, but {where!r} computes it")
    if hint is np.ndarray:
        return array
    if isinstance(operand, Constant):
        operand.require_at_most(LISTED)
    if typing.get_origin(hint) is tuple:
        return tuple(array.reshape(-1).tolist())
    return array.reshape(()).item() if array.size == 1 else array.tolist()


def _constant_array(operand: Any) -> np.ndarray[Any, Any] | None:
    if isinstance(operand, Sizes):
        items = operand.items
        return items.astype(np.int64) if all(isinstance(item, int) for item in items.reshape(-1).tolist()) else None
    if isinstance(operand, Constant):
        operand.require_at_most(folding.READ_LIMIT)
        return operand.array.numpy() if isinstance(operand.array, torch.Tensor) else operand.array
    return None


def _attributes(node: Node, entry: Entry) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if entry.takes_all_attributes or name in entry.attributes:
            taken[name] = value.decode() if isinstance(value, bytes) and entry.hints.get(name) is str else value
        elif not (name.startswith(("_", "T")) or name in EXECUTION_ATTRS or name in entry.ignores):
            raise PortingError(
                f"{node.op} {node.name!r}: the attribute `{name}` = {value!r} is not read by its converter"
            )
    return taken


__all__ = [
    "CONVERTERS",
    "Constant",
    "Context",
    "ConvertingEmitter",
    "Sizes",
    "Value",
    "constant",
    "convert",
    "converter",
    "without_kernel",
]
