"""Writes a graph as the source of an `nn.Module`: layers in the constructor, the formula in `forward`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torch_towers.errors import TorchTowersError
from torch_towers.graph.dtypes import FLOATS, dtype_name
from torch_towers.graph.graph import Graph, Node, TensorSpec, bodies, node_of, references
from torch_towers.graph.names import numbered
from torch_towers.graph.registry import MODULES, OPS
from torch_towers.program.binding import is_stored
from torch_towers.source.attributes import attribute_names
from torch_towers.source.blocks import BLOCKS, Blocks
from torch_towers.source.expression import ATOM, Expression, literal
from torch_towers.source.layers import layer_source, shortest
from torch_towers.source.layout import UNKNOWN, Known
from torch_towers.source.names import class_name, identifier, plain, variable
from torch_towers.source.spelling import SPELLINGS, Call

_INLINE = 56  # maximum length of an expression inlined into another
_NUMBERS = {
    **dict.fromkeys(
        ("add", "sub", "mul", "div", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal"), (0, 1)
    ),
    **dict.fromkeys(("maximum", "minimum"), (0, 1)),
    "where": (1, 2),
}
"""Operands of ops that may be numbers, at most one per call."""
_AFTER_LAYER = frozenset((
    "relu", "relu6", "gelu", "elu", "selu", "silu", "tanh", "sigmoid", "softplus", "softsign", "softmax", "leaky_relu", "hard_sigmoid",
    "hard_silu", "mish", "log_sigmoid", "scaled_elu", "log_softmax",
    "flatten", "join_last", "split_last", "expand", "squeeze", "unsqueeze", "reshape", "transpose", "broadcast_to",
))  # fmt: skip
"""Ops whose result has the name of the layer, or the weight, before them: activations and other shapes."""
_PLAIN = {
    "truediv": "average", "add": "total", "sub": "difference", "mul": "product", "concat": "features", "concatenate": "features", "cast": "weights", "stack": "stacked",
    "strided_slice": "part", "reshape": "flat", "expand_dims": "column", "squeeze": "flat", "transpose": "transposed", "pow": "power",
}  # fmt: skip
"""Names of values of which TensorFlow, or Keras by default, says only the op."""
_LINE = 84  # maximum length of an expression on one line
_WIDTH = 112  # maximum length of a line inside a method


@dataclass
class Unit:
    """State shared by the classes of one file: imports, helpers, classes by their text, and all tensors of the
    checkpoint."""

    tensors: Mapping[str, Tensor]
    frozen: frozenset[str]
    imports: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    ops: bool = False
    helpers: dict[str, str] = field(default_factory=dict[str, str])  # name -> source
    taken: set[str] = field(default_factory=set[str])
    classes: dict[str, str] = field(default_factory=dict[str, str])  # text without its name -> name
    written: list[str] = field(default_factory=list[str])

    def add(self, name: str, text: str) -> str:
        """The name of the class with this text (`{name}` in place of its name); the class is added if new."""
        if text not in self.classes:
            self.classes[text] = class_name(name, self.taken)
            self.written.append(text.replace("\0", self.classes[text]))
        return self.classes[text]


@dataclass
class Written:
    """A class: its name, and for each attribute with weights its name in the checkpoint, or its names in each block."""

    name: str
    attributes: dict[str, str]
    lists: dict[str, tuple[Blocks, dict[str, str]]]


def write_class(unit: Unit, name: str, doc: Sequence[str], graph: Graph, known: Mapping[str, Known]) -> Written:
    """Writes the class of a graph into the unit, after the classes of its blocks."""
    return _Class(unit, graph, known).write(name, doc)


class _Class:
    def __init__(
        self, unit: Unit, graph: Graph, known: Mapping[str, Known], names: Mapping[str, str] | None = None
    ) -> None:
        self.unit, self.graph, self.known = unit, graph, known
        self.short = names or {}  # short names of layers and weights inside a block
        self.numbered = _numbers(names or {})  # pattern of the block number in names
        self.layers = {str(n.attrs["module"]) for n in graph.nodes if n.op == "module"}
        self.wanted = attribute_names(graph, self.short)
        self.attributes: dict[str, str] = {}  # by the checkpoint's name
        self.lists: dict[str, tuple[Blocks, dict[str, str]]] = {}
        self.taken: set[str] = set()
        self.made: list[str] = []
        self.annotations: list[str] = []

    def write(self, name: str, doc: Sequence[str], *, block: bool = False) -> Written:
        scope = _Scope(self, self.graph, self.known, reuse_inputs=block)
        body = scope.statements()
        result = scope.returned()
        parameters = ", ".join(
            f"{scope.names[spec.name]}: {_type(self._known_input(spec))}" for spec in self.graph.inputs
        )
        returns = "Tensor" if len(self.graph.outputs) == 1 else "dict[str, Tensor]"
        lines = ["class \0(nn.Module):", *(f"    {line}".rstrip() for line in _docstring(doc)), ""]
        lines += [f"    {line}" for line in self.annotations] + ([""] if self.annotations else [])
        if self.made:
            lines += ["    def __init__(self) -> None:", "        super().__init__()"]  # fmt: skip
            lines += [*(f"        {line}" for line in self.made), ""]
        lines += [
            f"    def forward(self, {parameters}) -> {returns}:"
            if parameters
            else f"    def forward(self) -> {returns}:"
        ]
        lines += [f"        {line}" for line in (*body, f"return {result}")]
        made = self.unit.add(name, "\n".join(lines) + "\n")
        return Written(made, {ours: theirs for theirs, ours in self.attributes.items()}, self.lists)

    def _known_input(self, spec: TensorSpec) -> Known:
        return self.known.get(spec.name, Known(spec.dtype or None))

    # -- attributes ---------------------------------------------------------------------------------------------------

    def attribute(self, name: str, line: str, *, comment: str = "") -> str:
        """The attribute of a layer or weight, created on first use."""
        if name not in self.attributes:
            made = identifier(self.wanted[name], self.taken, attribute=True)
            self.attributes[name] = made
            self.made.append(line.replace("\0", made) + (f"  # {comment}" if comment else ""))
        return self.attributes[name]

    def layer(self, graph: Graph, name: str, args: list[Expression], known: list[Known], result: Known) -> Expression:
        """A call of a layer; `known` and `result` say what is known of its operands and its result."""
        spec = graph.modules[name]
        entry = MODULES[spec.type]
        if any(is_stored(entry, key, value) for key, value in spec.args.items()):
            raise TorchTowersError(
                f"{name!r} is a table inside the encoder, which cannot be exported as source: {spec.type}"
            )
        weights = [t for n, t in self.unit.tensors.items() if n.rpartition(".")[0] == name]
        floats = {dtype_name(t) for t in weights if t.is_floating_point()} or {result.dtype}
        source = layer_source(
            spec.type, spec.args, floats.pop() if len(floats) == 1 else None, args, [one.dtype for one in known]
        )
        self.unit.imports |= {*source.imports}
        if source.helper and self.unit.helpers.setdefault(*source.helper) != source.helper[1]:
            source = layer_source(spec.type, spec.args)  # not by operands: two attentions with masks of two kinds
            self.unit.helpers.update([source.helper] if source.helper else [])
        if source.made is None:
            return source.call("", args)
        held = [
            n for n in self.unit.tensors if n.startswith(f"{name}.") and isinstance(self.unit.tensors[n], nn.Parameter)
        ]
        still = ".requires_grad_(False)" if held and all(n in self.unit.frozen for n in held) else ""
        return source.call(self.attribute(name, f"self.\0 = {source.made}{still}"), args)

    def tensor(self, name: str, constant: bool) -> tuple[Expression, Known]:
        """A weight or a constant: a number, or a buffer that is loaded like weights."""
        value = self.unit.tensors[name]
        dtype = dtype_name(value)
        known = Known(dtype, tuple(value.shape))
        if constant and value.ndim == 0 and dtype in ("float32", "float64", "int32", "int64", "bool"):
            number = value.item()
            return (shortest(number, dtype) if isinstance(number, float) else literal(number)), Known("number")
        shape = ", ".join(map(str, value.shape)) or "()"
        other = "" if dtype == "float32" else f", dtype=torch.{dtype}"
        if isinstance(value, nn.Parameter) and not constant:
            still = "" if name not in self.unit.frozen else ", requires_grad=False"
            made = self.attribute(name, f"self.\0 = nn.Parameter(torch.empty({shape}{other}){still})")
            return Expression(f"self.{made}"), known
        if name not in self.attributes:
            comment = f"a constant of the graph: {plain(name, 60)}" if constant else ""
            made = self.attribute(name, f'self.register_buffer("\0", torch.empty({shape}{other}))', comment=comment)
            self.annotations.append(f"{made}: Tensor")
        return Expression(f"self.{self.attributes[name]}"), known

    def blocks(self, name: str, blocks: Blocks) -> str:
        """The attribute of a list of blocks; writes their class first."""
        short = _short_names(blocks)
        inner = _Class(self.unit, blocks.graph, self.known, short)
        shape = str(self.known.get(node_of(blocks.graph.outputs["x"]), UNKNOWN))
        kind, one = ("TransformerLayer", "layer") if _attends(blocks.graph) else ("Block", "block")
        said = f"A {one} that runs {blocks.times} times" if blocks.shared else f"One of {blocks.times} equal {one}s"
        written = inner.write(kind, [said + (f": {shape} -> {shape}." if shape else ".")], block=True)
        attribute = identifier(one if blocks.shared else f"{one}s", self.taken, attribute=True)
        all_ = (
            f"{written.name}()" if blocks.shared else f"nn.ModuleList({written.name}() for _ in range({blocks.times}))"
        )
        self.made.append(f"self.{attribute} = {all_}")
        self.lists[attribute] = (blocks, written.attributes)
        return attribute


def _attends(graph: Graph) -> bool:
    return any("Attention" in spec.type for spec in graph.modules.values()) or any(
        n.op == "attention" for n in graph.nodes
    )


def _short_names(blocks: Blocks) -> dict[str, str]:
    """The names of a block's layers without the block number."""
    found: dict[str, str] = {}
    if blocks.shared:
        first, *others = blocks.slots
        scope = first.split(".")[:-1]
        while scope and not all(name.startswith(f"{'.'.join(scope)}.") for name in others):
            scope.pop()
        return {name: name.removeprefix(f"{'.'.join(scope)}.") for name in blocks.slots}
    for name, (first, second, *_) in blocks.slots.items():
        start = next(
            (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
        )
        rest = first[start:].lstrip("0123456789_.")
        found[name] = rest or first[:start].rstrip("0123456789_.").rpartition(".")[2]
    return found


def _numbers(names: Mapping[str, str]) -> re.Pattern[str] | None:
    """A pattern of the prefix before the short names: "layer_0_" of "layer_0_attention"."""
    starts = {name.removesuffix(short) for name, short in names.items() if name.endswith(short) and name != short}
    heads = {re.sub(r"\d+[._]*$", "", start).rpartition(".")[2] for start in starts if re.search(r"\d[._]*$", start)}
    return (
        re.compile("|".join(rf"^{re.escape(head)}\d+(_|$)" for head in sorted(heads)))
        if heads and "" not in heads
        else None
    )


def _type(known: Known) -> str:
    return "int" if known.dtype == "size" else "Tensor"


def _docstring(lines: Sequence[str]) -> list[str]:
    if len(lines) == 1:
        return [f'"""{lines[0]}"""']
    return [f'"""{lines[0]}', *lines[1:], '"""']


class _Scope:
    """The statements of `forward`, or of a nested function."""

    def __init__(self, owner: _Class, graph: Graph, known: Mapping[str, Known], *, reuse_inputs: bool = False) -> None:
        self.owner, self.graph, self.known = owner, graph, known
        self.names: dict[str, str] = {}
        self.carried = graph.inputs[0].name if reuse_inputs else None  # what each block makes a new one of
        self.taken = {"self", "torch", "nn", "F", "ops", "Tensor"}
        for i, spec in enumerate(graph.inputs):
            wanted = spec.name
            if reuse_inputs:
                wanted = "x" if i == 0 else _value_name(spec.name, graph) or variable(spec.name, owner.layers)
            self.names[spec.name] = identifier(wanted, self.taken)
        self.fixed = {self.names[spec.name] for spec in graph.inputs[1 if reuse_inputs else 0 :]}
        self.left = Counter(node_of(ref) for node in graph.nodes for ref in references(node.inputs))
        self.left.update(map(node_of, graph.outputs.values()))
        self.uses = Counter(self.left)
        self.readers = {node_of(ref): node for node in graph.nodes for ref in references(node.inputs)}
        self.owners = {name: spec for spec, name in self.names.items()}
        self.inlined: dict[str, tuple[Expression, Counter[str], Known]] = {}
        self.nodes = {node.name: node for node in graph.nodes}
        self.lines: list[str] = []

    def statements(self) -> list[str]:
        for node in self.graph.nodes:
            if node.op == BLOCKS:
                self._loop(node)
            elif node.op in ("parameter", "constant"):
                text, known = self.owner.tensor(str(node.attrs["tensor"]), node.op == "constant")
                self.inlined[node.name] = (text, Counter(), known)
            else:
                self._statement(node)
        return self.lines

    def returned(self) -> str:
        found = {name: self._as_tensor(ref, *self._operand(ref)[:2])[0] for name, ref in self.graph.outputs.items()}
        if len(found) == 1:
            return str(next(iter(found.values())))
        return "{" + ", ".join(f"{literal(name)}: {text}" for name, text in found.items()) + "}"

    def tuple_returned(self) -> str:
        """The return value of a nested function: a tuple of results."""
        found = [str(self._operand(ref)[0]) for ref in self.graph.outputs.values()]
        return f"({', '.join(found)},)"

    def _operand(self, operand: Any) -> tuple[Expression, Known, Counter[str]]:
        """An operand as source, what is known of it, and the variables that it reads."""
        if isinstance(operand, tuple):
            parts = [self._operand(item) for item in operand]  # type: ignore[reportUnknownVariableType]
            reads: Counter[str] = Counter()
            for part in parts:
                reads.update(part[2])
            return literal_tuple([part[0] for part in parts]), UNKNOWN, reads
        if not isinstance(operand, str):
            return literal(operand), Known("number"), Counter()
        name, _, index = operand.partition(":")
        known = self.known.get(operand, UNKNOWN)
        if name in self.inlined:
            text, reads, told = self.inlined[name]
            return (Expression(f"{text:.}[{index}]") if index else text), (told if told.dtype else known), reads
        if name in self.names and name in {spec.name for spec in self.graph.inputs} and not known.dtype:
            spec = next(spec for spec in self.graph.inputs if spec.name == name)
            known = Known(spec.dtype if spec.dtype and spec.dtype != "variant" else None)
        return Expression(self.names[name] + (f"[{index}]" if index else "")), known, Counter([name])

    def _statement(self, node: Node) -> None:
        parts = [self._operand(operand) for operand in node.inputs]
        reads: Counter[str] = Counter()
        for _, _, read in parts:
            reads.update(read)
        known = self.known.get(node.name, UNKNOWN)
        text = self._called(node, [part[0] for part in parts], [part[1] for part in parts], known)
        if len(text.text) > _LINE and len(parts) <= 4 and (longest := self._longest(node)) is not None:
            self._assign(self.nodes[longest], *self.inlined.pop(longest))
            self._statement(node)
            return
        reader = self.readers.get(node.name)
        if (
            self.uses[node.name] == 1
            and len(text.text) <= (_INLINE if reader is not None else _LINE)
            and (reader is None or (reader.op != BLOCKS and not _has_bodies(reader)))
            and (reader is not None or len(self.graph.outputs) == 1)
        ):
            self.inlined[node.name] = (text, reads, known)
            return
        self._assign(node, text, reads, known)

    def _longest(self, node: Node) -> str | None:
        """The longest inlined sub-expression of a node that is more than a name."""
        inside = [name for ref in references(node.inputs) if (name := node_of(ref)) in self.inlined]
        inside = [name for name in inside if self.nodes[name].op not in ("parameter", "constant")]
        return max(inside, key=lambda name: len(self.inlined[name][0].text), default=None)

    def _assign(self, node: Node, text: Expression, reads: Counter[str], known: Known) -> None:
        self.left.subtract(reads)
        name = self._variable(node)
        self.names[node.name] = name
        self.owners[name] = node.name
        line, shape = f"{name} = {text}", f"  # {known}" if str(known) else ""
        self.lines.append(
            line + (shape if len(line) + len(shape) <= _WIDTH else "")
        )  # or the formula has two lines more

    def _variable(self, node: Node) -> str:
        return self._free(identifier(self._wanted(node), set()))

    def _wanted(self, node: Node) -> str:
        """What a value is called: by its use where that says more than its layer, else by its layer, else by its op."""
        if self._is_next(node):
            return "x"
        reader = self.readers.get(node.name)
        if reader is not None and reader.op == BLOCKS and self.uses[node.name] == 1 and reader.inputs[0] == node.name:
            return "x"
        if (name := _value_name(node.name, self.graph)) or node.op == "size":
            return name or node.name
        if self.known.get(node.name, UNKNOWN).dtype == "bool":
            return "mask"
        layer: Node | None = node
        while layer is not None and layer.op in _AFTER_LAYER:
            layer = self.nodes.get(node_of(str(layer.inputs[0])))
        if layer is not None and layer.op in ("module", "parameter", "constant"):
            name = str(layer.attrs["module" if layer.op == "module" else "tensor"])
            plainly = re.sub(r"_\d+$", "", name.rpartition(".")[2]) if layer.op == "module" else "x"
            return self.owner.attributes.get(name) or plainly  # the number of a layer without weights says nothing
        wanted = variable(node.name, self.owner.layers)
        if self.owner.numbered and (wanted := self.owner.numbered.sub("", wanted)) == "":
            return "hidden"  # what a block of no other name gives: the sum after its attention
        return _PLAIN.get(wanted, wanted)

    def _is_next(self, node: Node) -> bool:
        """Whether a value takes the place of the one that a block carries: of its shape, where nothing reads that any more."""
        if self.carried is None or self._is_needed("x"):
            return False
        known, before = self.known.get(node.name, UNKNOWN), self.known.get(self.carried, UNKNOWN)
        return known == before and known.dtype in FLOATS and known.dims is not None

    def _free(self, clean: str) -> str:
        """A variable of this name that nothing needs any more, or a new one."""
        name = numbered(clean, self._is_needed)
        self.taken.add(name)
        return name

    def _is_needed(self, name: str) -> bool:
        """Whether a variable of this name holds a value that is still to be read."""
        owner = self.owners.get(name)
        return name in self.taken and (owner is None or name in self.fixed or self.left[owner] > 0)

    def _called(self, node: Node, args: list[Expression], known: list[Known], result: Known) -> Expression:
        if node.op == "module":
            return self.owner.layer(self.graph, str(node.attrs["module"]), args, known, result)
        takes = _NUMBERS.get(node.op, ())
        made = [
            (arg, one)
            if i in takes and "number" not in (known[j].dtype for j in takes if j < i)
            else self._as_tensor(operand, arg, one)
            for i, (operand, arg, one) in enumerate(zip(node.inputs, args, known, strict=True))
        ]
        args, known = [arg for arg, _ in made], [one for _, one in made]
        floats = {one.dtype for one in (*known, result) if one.dtype in FLOATS}
        args = [
            shortest(ref, next(iter(floats))) if isinstance(ref, float) and len(floats) == 1 else arg
            for ref, arg in zip(node.inputs, args, strict=True)
        ]
        spelling = SPELLINGS.get(node.op)
        if spelling is not None:
            found = spelling(Call(tuple(args), tuple(known), node.attrs, result))
            if found is not None:
                return found
        entry = OPS[node.op]
        given = list(map(str, args))
        for key, value in node.attrs.items():
            given.append(f"{key}={self._function(key, value) if isinstance(value, Graph) else literal(value)}")
        if entry.takes_device:
            given.append(f"device={self._device()}")
        self.owner.unit.ops = True
        return Expression(f"ops.{node.op}({', '.join(given)})", ATOM)

    def _as_tensor(self, operand: Any, arg: Expression, known: Known) -> tuple[Expression, Known]:
        """Turns a constant that became a number back into a tensor if the op takes no number."""
        if not isinstance(operand, str) or known.dtype != "number":
            return arg, known
        dtype = dtype_name(self.owner.unit.tensors[self._constant(operand)])
        return Expression(f"torch.tensor({arg}, dtype=torch.{dtype})"), Known(dtype, ())

    def _constant(self, ref: str) -> str:
        return next(str(node.attrs["tensor"]) for node in self.graph.nodes if node.name == node_of(ref))

    def _device(self) -> str:
        for spec in self.owner.graph.inputs:
            if self.owner._known_input(spec).dtype not in ("size", None, "variant"):
                return f"{identifier(spec.name, set())}.device"
        return "next(self.parameters()).device"

    def _function(self, key: str, graph: Graph) -> str:
        """The name of a nested function in `forward` that computes a graph."""
        scope = _Scope(self.owner, graph, {})
        name = self._free(identifier(key, set()))
        body = scope.statements()
        parameters = ", ".join(f"{scope.names[spec.name]}: Any" for spec in graph.inputs)
        self.owner.unit.imports.add(("typing", "Any"))
        self.lines += ["", f"def {name}({parameters}) -> tuple[Any, ...]:"]
        self.lines += [f"    {line}" for line in (*body, f"return {scope.tuple_returned()}")]
        self.lines.append("")
        return name

    def _loop(self, node: Node) -> None:
        blocks: Blocks = node.attrs["blocks"]
        attribute = self.owner.blocks(node.name, blocks)
        (first, _, reads), *others = [self._operand(operand) for operand in node.inputs]
        rest = "".join(f", {other[0]}" for other in others)
        self.left.subtract(reads)
        name = self._free("x") if str(first) != "x" else "x"
        if str(first) != name:
            self.lines.append(f"{name} = {first}")
        for other in others:
            self.left.subtract(other[2])
        shape = str(self.known.get(node.name, UNKNOWN))
        comment = f"  # {shape}" if shape else ""
        if blocks.shared:
            self.lines += [f"for _ in range({blocks.times}):", f"    {name} = self.{attribute}({name}{rest}){comment}"]
        else:
            one = self._free("layer" if attribute.startswith("layers") else "block")
            self.lines += [f"for {one} in self.{attribute}:", f"    {name} = {one}({name}{rest}){comment}"]
        self.names[node.name] = name
        self.owners[name] = node.name


def _value_name(name: str, graph: Graph) -> str:
    """What a value is called by what it is for, where that says more than its layer: what attention may take."""
    readers = [node for node in graph.nodes if name in node.inputs]
    return "attention_mask" if readers and all(_masks(name, node, graph) for node in readers) else ""


def _masks(name: str, node: Node, graph: Graph) -> bool:
    """Whether a node has a value for the mask of its attention alone."""
    if node.op == BLOCKS:
        return bool(_value_name(name, node.attrs["blocks"].graph)) and name != node.inputs[0]
    kind = graph.modules[str(node.attrs["module"])].type if node.op == "module" else node.op
    return kind in ("MultiHeadAttention", "attention") and node.inputs.index(name) == 3


def _has_bodies(node: Node) -> bool:
    return bool(bodies(node))


def literal_tuple(items: Sequence[Expression]) -> Expression:
    return Expression(f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})")
