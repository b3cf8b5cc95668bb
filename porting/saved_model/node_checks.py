"""Checks every node against TensorFlow's definition of its op, as TensorFlow does when it loads the graph.

Source: ValidateNodeDef and InOutTypesForNode, tensorflow/core/framework/node_def_util.cc; AttrValueHasType,
attr_value_util.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from porting.errors import CorruptModelError
from porting.saved_model.calls import CALL_OPS
from porting.saved_model.dtypes import DTYPES, dtype_of
from porting.saved_model.op_definitions import Argument, Attribute, Definition, definition

_FIELDS = {
    "type": "type",
    "int": "i",
    "float": "f",
    "bool": "b",
    "string": "s",
    "shape": "shape",
    "tensor": "tensor",
    "func": "func",
}
_MAX_TENSORS = 100_000  # per argument


class Result(NamedTuple):
    """A result of a node: the name of its output argument, and its dtype, None if only a call's attributes tell it."""

    argument: str
    dtype: str | None


class NodeChecks:
    """Checks the nodes of one body: the main graph, or a function with its arguments."""

    def __init__(
        self, nodes: Mapping[str, Any], functions: Mapping[str, Any], where: str, args: Mapping[str, str] | None = None
    ) -> None:
        self._nodes, self._functions, self._where = nodes, functions, where
        self._args = args or {}
        self._names_results = args is not None  # as bodies of functions do: "neg:y:0"
        self._results: dict[str, Sequence[Result] | None] = {}

    def check(self, node: Any) -> None:
        """Checks that the attributes and inputs of the message `node` match its op. Raises CorruptModelError."""
        operands = [(reference, self._operand(node, reference)) for reference in node.input]
        given = [operand for operand in operands if not operand[0].startswith("^")]
        if node.op in CALL_OPS and node.attr["f"].WhichOneof("value") != "func":
            raise self._wrong(node, "does not say which function it calls")
        known = None if node.op in self._functions else definition(node.op)
        if known is None:
            return
        for name, attribute in known.attributes.items():
            self._check_attribute(node, name, attribute)
        self._results_of(node.name)
        wanted = [result.dtype for result in self._tensors(node, known.inputs, known)]
        if len(given) != len(wanted):
            raise self._wrong(node, f"has {len(given)} operands, expected {len(wanted)}")
        for (reference, is_), expected in zip(given, wanted, strict=True):
            if is_ != expected and None not in (is_, expected):
                raise self._wrong(node, f"takes '{reference}', which is {is_}, expected {expected}")

    def check_result(self, reference: str, whose: str) -> None:
        """`reference`, which is what `whose` gives, is of the body and there. Raises CorruptModelError."""
        _, why = self._found(reference)
        if why:
            raise CorruptModelError(f"{whose} is '{reference}', {why}")

    def _operand(self, node: Any, reference: str) -> str | None:
        """The dtype of `reference`, None if unknown."""
        dtype, why = self._found(reference)
        if why:
            raise self._wrong(node, f"takes '{reference}', {why}")
        return dtype

    def _found(self, reference: str) -> tuple[str | None, str]:
        """The dtype of what `reference` names, None where it is not known here; and why there is no such thing."""
        if reference.startswith("^"):
            there = reference[1:] in self._nodes or reference[1:] in self._args
            return None, "" if there else "which is not in the graph"
        name, _, output = reference.partition(":")
        if name in self._args:
            return self._args[name], "" if output in ("", "0") else f"but '{name}' is one tensor"
        if name not in self._nodes:
            return None, "which is not in the graph"
        argument, _, index = output.rpartition(":")
        if output and not (index.isascii() and index.isdigit() and len(index) < 10):
            return None, "expected a number after the last colon"
        if argument and not self._names_results:
            return None, "expected one colon"
        results = self._results_of(name)
        if results is None:
            return None, ""
        part = [result for result in results if result.argument == argument] if argument else results
        if int(index or 0) >= len(part):
            return None, f"but '{name}' ({self._nodes[name].op}) has {len(part)} such outputs"
        return part[int(index or 0)].dtype, ""

    def _results_of(self, name: str) -> Sequence[Result] | None:
        """The results of a node; None if its op is unknown."""
        if name not in self._results:
            node = self._nodes[name]
            self._results[name] = self._called(node) or self._defined(node)
        return self._results[name]

    def _called(self, node: Any) -> list[Result] | None:
        direct = node.op in self._functions
        function = self._functions.get(node.op if direct else node.attr["f"].func.name if node.op in CALL_OPS else "")
        if function is None:
            return None
        return [
            Result(arg.name if direct else "output", DTYPES[arg.type].name if arg.type in DTYPES and arg.type else None)
            for arg in function.signature.output_arg
        ]

    def _defined(self, node: Any) -> list[Result] | None:
        known = definition(node.op)
        return None if known is None else self._tensors(node, known.outputs, known)

    def _tensors(self, node: Any, arguments: tuple[Argument, ...], known: Definition) -> list[Result]:
        """The tensors of the arguments, expanded by the node's attributes."""
        found: list[Result] = []
        for argument in arguments:
            if argument.types:
                dtypes = self._value(node, argument.types, known)
                found += [Result(argument.name, dtype) for dtype in dtypes or ()]
                continue
            dtype = self._value(node, argument.attribute, known) if argument.attribute else argument.dtype
            number = (self._value(node, argument.number, known) or 0) if argument.number else 1
            if not 0 <= number <= _MAX_TENSORS:
                raise self._wrong(node, f"{argument.number} = {number}, expected 0 to {_MAX_TENSORS} tensors")
            found += [Result(argument.name, dtype)] * number
        return found

    def _value(self, node: Any, name: str, known: Definition) -> Any:
        """The value of a type or integer attribute; None if it comes from the caller."""
        if name not in node.attr:
            attribute = known.attributes[name]
            if attribute.required:
                raise self._wrong(node, f"lacks its attribute '{name}'")
            return attribute.default
        value = node.attr[name]
        kind = value.WhichOneof("value")
        if kind == "type":
            return dtype_of(value.type, self._where).name
        if kind == "list":
            return [dtype_of(number, self._where).name for number in value.list.type]
        return value.i if kind == "i" else None

    def _check_attribute(self, node: Any, name: str, attribute: Attribute) -> None:
        if name not in node.attr:
            if attribute.required:
                raise self._wrong(node, f"lacks its attribute '{name}'")
            return
        value = node.attr[name]
        kind = value.WhichOneof("value")
        if kind == "placeholder":  # set by the caller
            return
        many, field = attribute.many, _FIELDS.get(attribute.item, "")
        if kind == field and not many and attribute.minimum is None and attribute.allowed is None:
            return
        others = (
            [other for other in _FIELDS.values() if other != field and len(getattr(value.list, other))] if many else []
        )
        if kind != ("list" if many else field) or others:
            raise self._wrong(node, f"has an attribute '{name}' of another kind, expected {attribute.kind}")
        items = list(getattr(value.list, field)) if many else [getattr(value, field)]
        if attribute.minimum is not None and (len(items) if many else items[0]) < attribute.minimum:
            what = f"{len(items)} values" if many else items[0]
            raise self._wrong(node, f"has {what} as '{name}', expected at least {attribute.minimum}")
        if field == "type":
            items = [dtype_of(number, self._where).name for number in items]
        if attribute.allowed is None:
            return
        for item in items:
            item = item.decode("latin-1") if isinstance(item, bytes) else item
            if item not in attribute.allowed:
                allowed = ", ".join(sorted(map(str, attribute.allowed)))
                raise self._wrong(node, f"has {item!r} as '{name}', expected one of {allowed}")

    def _wrong(self, node: Any, what: str) -> CorruptModelError:
        return CorruptModelError(f"{self._where}: node '{node.name}' ({node.op}) {what}")
