"""Graphs of a few nodes: every op that has a converter, with operands and attributes of any size, through the port and a call."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from porting import tower as _tower  # noqa: F401  (fills CONVERTERS)
from porting.errors import PortingError
from porting.registry import CONVERTERS, DRAWS
from porting.saved_model import protos, read
from porting.saved_model.op_definitions import Argument, Attribute, definition
from porting.tower import port_tower
from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_message
from tests.porting.graphs import Call, const, function, node, save
from torch_towers import InputError, at_most_steps

INTEGERS = (0, 1, 2, 3, 5, -1, -2, -3, 100, 1 << 16, 1 << 28, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63), -(1 << 31))  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e-12, 1e30, float("inf"), float("nan"))
STRINGS = (b"", b"a", b"ab c", b"%s", b"(" * 50 + b")" * 50, b"[a-z]+", b"\\0", b"\xff", b"UTF-8", b"x" * 300, b"1e9", b".{1000}")  # fmt: skip
SHAPES = ((), (), (), (1,), (1,), (2,), (2,), (3,), (0,), (2, 3), (2, 2), (1, 2, 3), (1, 4, 4, 3))
DTYPES = ("float32", "float32", "int32", "int32", "int64", "int64", "string", "string", "bool", "float64", "float16", "uint8", "int8", "bfloat16")  # fmt: skip
INPUTS = {"x": ("float32", (-1,)), "ids": ("int64", (-1, -1)), "n": ("int32", ()), "words": ("string", (-1,))}
ROWS: dict[str, Any] = {
    "x": np.float32([1.5, -2]), "ids": np.int64([[1, 0], [2, 3]]), "n": np.int32(2), "words": np.array([b"red", b"a b"], object),
}  # fmt: skip


def ops() -> list[str]:
    """Those that are ported, and whose definition is known."""
    return sorted(
        op
        for op, entry in CONVERTERS.items()
        if entry.refuses != DRAWS and definition(op) is not None and op != "Const"
    )


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where the SavedModel lies, as long as the process lives."""
    return tempfile.TemporaryDirectory()


class Maker:
    """Makes the nodes of one graph."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.nodes: list[Any] = []
        self.given = {f"{name}:0": dtype for name, (dtype, _) in INPUTS.items()}
        self.results: dict[str, str] = {}

    def add(self, op: str) -> None:
        """One node of `op`, and the constants that it takes."""
        known = definition(op)
        assert known is not None
        attrs = {name: self.attribute(attribute) for name, attribute in known.attributes.items()}
        kept = {name: value for name, value in attrs.items() if value is not None}
        for name, attribute in known.attributes.items():
            kept.setdefault(name, attribute.default)
        inputs = [self.operand(dtype) for dtype in tensors(known.inputs, kept)]
        name = f"n{len(self.nodes)}"
        said = {key: value for key, value in attrs.items() if value is not None}
        made = node(name, op, *inputs, **said)
        for key, value in said.items():
            if isinstance(value, list) and not value:
                made.attr[key].list.SetInParent()
        self.nodes.append(made)
        for i, dtype in enumerate(tensors(known.outputs, kept)):
            self.given[f"{name}:{i}"] = self.results[f"{name}:{i}"] = dtype

    def attribute(self, attribute: Attribute) -> Any:
        """A value of its kind; None for the default."""
        if not attribute.required and self.random.random() < 0.5:
            return None
        if attribute.many:
            least = attribute.minimum or 0
            return [self.item(attribute) for _ in range(self.random.choice((least, least + 1, least + 2, least + 3)))]
        return self.item(attribute)

    def item(self, attribute: Attribute) -> Any:
        choose = self.random.choice
        if attribute.item == "type":
            allowed = [dtype for dtype in DTYPES if attribute.allowed is None or dtype in attribute.allowed]
            return choose(allowed or sorted(attribute.allowed or ()))
        if attribute.allowed:
            value = choose(sorted(attribute.allowed, key=str))
            return value.encode("latin-1") if isinstance(value, str) else value
        if attribute.item == "int":
            low = attribute.minimum if attribute.minimum is not None and not attribute.many else -(1 << 63)
            small = self.random.random() < 0.6
            return choose([n for n in (INTEGERS[:6] if small else INTEGERS) if n >= low] or [low])
        kinds: dict[str, Any] = {
            "float": lambda: choose(FLOATS), "bool": lambda: choose((True, False)), "string": lambda: choose(STRINGS),
            "func": lambda: Call(choose(("negative", "positive", "same"))), "tensor": lambda: self.array("float32"),
            "shape": lambda: choose(SHAPES),
        }  # fmt: skip
        return kinds[attribute.item]()

    def operand(self, dtype: str) -> str:
        """A tensor of this dtype: an input, what another node gives, or a new constant."""
        found = [reference for reference, kind in self.given.items() if kind == dtype]
        if found and (self.random.random() < 0.4 or dtype in ("variant", "resource")):
            return self.random.choice(found)
        name = f"c{len(self.nodes)}"
        splat = (1 << 28,) if self.random.random() < 0.03 else None
        try:
            self.nodes.append(const(name, self.array(dtype) if splat is None else self.array(dtype, ()), splat))
        except (KeyError, TypeError):  # no constant is of this dtype
            return "x:0"
        return f"{name}:0"

    def array(self, dtype: str, shape: Any = None) -> Any:
        shape = self.random.choice(SHAPES) if shape is None else shape
        count = int(np.prod(shape))
        if dtype == "string":
            made = np.empty(count, object)
            made[:] = [self.random.choice(STRINGS) for _ in range(count)]
            return made.reshape(shape)
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            small = self.random.random() < 0.6
            numbers = [
                n for n in (INTEGERS[:6] if small else INTEGERS) if np.iinfo(kind).min <= n <= np.iinfo(kind).max
            ]
        else:
            numbers = [True, False] if kind.kind == "b" else list(FLOATS)
        with np.errstate(all="ignore"):
            return np.array([self.random.choice(numbers) for _ in range(count)]).astype(kind).reshape(shape)


def tensors(arguments: tuple[Argument, ...], attrs: dict[str, Any]) -> Iterator[str]:
    """The dtype of each tensor of the arguments."""
    for argument in arguments:
        if argument.types:
            yield from attrs[argument.types] or ()
            continue
        dtype = attrs[argument.attribute] if argument.attribute else argument.dtype
        yield from [dtype] * (min(attrs[argument.number], 50) if argument.number else 1)


def made(random: Random, op: str | None = None) -> bytes:
    """A SavedModel of one to three ops."""
    maker = Maker(random)
    for _ in range(random.choice((1, 1, 2, 3)) if op is None else 0):
        maker.add(random.choice(ops()))
    if op is not None:
        maker.add(op)
    outputs = {f"y{i}": (dtype, reference) for i, (reference, dtype) in enumerate(maker.results.items())}
    kept = {name: pair for name, pair in outputs.items() if pair[0] not in ("resource", "variant")}
    functions = [
        function("negative", [node("neg", "Neg", "x", T="float32")], "neg:y:0"),
        function("same", [], "x"),
        function("positive", [const("zero", np.float32(0)), node("more", "Greater", "x", "zero:output:0", T="float32")], "more:z:0"),
    ]  # fmt: skip
    functions[2].signature.output_arg[0].type = 10
    path = Path(folder().name)
    save(path, maker.nodes, kept or {"y": ("float32", "x:0")}, functions, INPUTS)
    return (path / "saved_model.pb").read_bytes()


def seeds() -> list[bytes]:
    save(Path(folder().name), [node("y", "Neg", "x", T="float32")], {"y": ("float32", "y:0")}, (), INPUTS)
    return [(Path(folder().name) / "saved_model.pb").read_bytes()]


def mutated(data: bytes, random: Random) -> bytes:
    if random.random() < 0.6:
        return made(random)
    try:
        message = protos.parse("SavedModel", data, "")
    except PortingError:
        return of_bytes(data, random)
    of_message(message, random)
    return message.SerializeToString(deterministic=True)


def attempt(data: bytes) -> None:
    path = Path(folder().name)
    (path / "saved_model.pb").write_bytes(data)
    tower = port_tower(read(path)).tower()
    repr(tower)
    try:
        with at_most_steps(100):
            tower({spec.name: ROWS[spec.name] for spec in tower.inputs if spec.name in ROWS})
    except InputError as error:
        if "not enough memory" not in str(error):  # a tower may want more of its rows than this process has
            raise


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
