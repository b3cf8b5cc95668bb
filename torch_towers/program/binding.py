"""Binding: the nodes of a graph as calls, each bound once to its function, its operands and its attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from torch import Tensor, nn

from torch_towers.graph.graph import Graph, ModuleSpec, Node, Operand
from torch_towers.graph.registry import MODULES, OPS, Op, Strings

Store = Mapping[str, "Tensor | Strings"]
"""What a graph names: weights, constants and vocabularies, by their names in the checkpoint."""

Env = dict[str, Any]
"""The values of a run so far, by the names of their nodes."""

Run = Callable[[nn.Module, Env], Any]
"""Computes one value from the module that holds the weights and the values so far."""

Step = tuple[str, Run]


class Host(dict[str, Any]):
    """What steps hold themselves: vocabularies by their names, and host modules by theirs (after "module:").

    Nothing in it changes: a copy is the same object, and a pickle holds only what it was made from.
    """

    def __init__(self, modules: Mapping[str, ModuleSpec], texts: Mapping[str, Strings], store: Store) -> None:
        super().__init__(texts)
        self._made_from = (modules, texts, store)
        for name, spec in modules.items():
            entry = MODULES[spec.type]
            self[f"module:{name}"] = entry.function(**resolve(entry, spec.args, store))

    @classmethod
    def of(cls, nodes: list[Node], modules: Mapping[str, ModuleSpec], store: Store) -> Host:
        """The vocabularies that `nodes` read and those of `modules` that have no weights, built."""
        names = [str(node.attrs["tensor"]) for node in nodes if node.op in ("parameter", "constant")]
        texts = {name: value for name in names if not isinstance(value := store[name], Tensor)}
        hosted = {name: spec for name, spec in modules.items() if not is_layer(MODULES[spec.type])}
        named = [
            value
            for spec in hosted.values()
            for key, value in spec.args.items()
            if is_stored(MODULES[spec.type], key, value)
        ]
        return cls(hosted, texts, {name: store[name] for name in named})

    def __deepcopy__(self, memo: Any) -> Host:
        return self

    def __reduce__(self) -> Any:
        return Host, self._made_from


def steps_of(graph: Graph, host: Host) -> tuple[Step, ...]:
    """One step for each node, in order."""
    return tuple((node.name, _step(node, host)) for node in graph.nodes)


def getter(operand: Operand) -> Callable[[Env], Any]:
    """The function that finds an operand among the values: a reference, a literal, or a tuple of operands."""
    if isinstance(operand, str):
        name, _, index = operand.partition(":")
        if index:
            position = int(index)
            return lambda env: env[name][position]
        return lambda env: env[name]
    if isinstance(operand, tuple):
        parts = _operands(operand)  # type: ignore[reportUnknownArgumentType]
        return lambda env: parts(env)
    return lambda env: operand


def is_layer(entry: Op) -> bool:
    """True for modules with weights; the others are tables and tokenizers, which stay on the host."""
    return isinstance(entry.function, type) and issubclass(entry.function, nn.Module)


def is_stored(entry: Op, key: str, value: Any) -> bool:
    """Whether an argument of a module is the name of a tensor or vocabulary, as the annotations of `entry` tell."""
    hint = entry.hints.get(key)
    is_text = hint is str or str in get_args(hint) or get_origin(hint) is Literal
    return isinstance(value, str) and not is_text


def resolve(entry: Op, args: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """`args` with the names of tensors and vocabularies replaced by themselves."""
    return {key: store[value] if is_stored(entry, key, value) else value for key, value in args.items()}


_TAKEN = frozenset((*dir(nn.Module()), "device", "dtype", "graph", "run", "tensors"))
_TAKEN_AT_ROOT = _TAKEN | {"steps", "values", "outputs_of", "_anchor", "_bind", "_host", "_named", "_outputs", "_own", "_plan",
                           "_rewrite", "_written"}  # fmt: skip
"""Attributes of every module, and those of a `Program`, which is the root (`tests/torch_towers/program/test_binding.py` compares)."""


def path(name: str) -> list[str]:
    """Where `name` lies in the tree of modules: `"query.type.weight"` -> `["query", "type_", "weight"]`.

    A part that the module itself uses as an attribute gets an underscore.
    """
    first, *rest = name.split(".")
    return [
        f"{first}_" if first in _TAKEN_AT_ROOT else first,
        *(f"{part}_" if part in _TAKEN else part for part in rest),
    ]


def descend(root: nn.Module, parts: list[str]) -> nn.Module:
    """The submodule at `parts`, as it is now: a user may have swapped it."""
    for part in parts:
        root = root._modules[part]  # type: ignore[assignment]
    return root


def _step(node: Node, host: Host) -> Run:
    if node.op in ("parameter", "constant"):
        return _tensor_step(str(node.attrs["tensor"]), host)
    if node.op == "module":
        return _module_step(str(node.attrs["module"]), host, node.inputs)
    entry = OPS[node.op]
    attrs = dict(node.attrs)
    bodies = {key: _body(value, host) for key, value in attrs.items() if isinstance(value, Graph)}
    function, operands = entry.function, _operands(node.inputs)
    if bodies:

        def run_with_bodies(root: nn.Module, env: Env) -> Any:
            bound = {key: body(root) for key, body in bodies.items()}
            return function(*operands(env), **{**attrs, **bound})

        return run_with_bodies
    if entry.takes_device:
        return lambda root, env: function(*operands(env), **attrs, device=root._buffers["_anchor"].device)  # type: ignore[union-attr]
    return call(partial(function, **attrs) if attrs else function, node.inputs)


def call(function: Callable[..., Any], inputs: tuple[Operand, ...]) -> Run:
    """The call of a function on operands; the usual ones, one or two whole values, without a call to find them."""
    if all(isinstance(operand, str) and ":" not in operand for operand in inputs):
        if len(inputs) == 1:
            (only,) = inputs
            return lambda root, env: function(env[only])
        if len(inputs) == 2:
            first, second = inputs
            return lambda root, env: function(env[first], env[second])
    operands = _operands(inputs)
    return lambda root, env: function(*operands(env))


def _tensor_step(name: str, host: Host) -> Run:
    if name in host:
        value = host[name]
        return lambda root, env: value
    *owners, last = path(name)
    return lambda root, env: getattr(descend(root, owners), last)


def _module_step(name: str, host: Host, inputs: tuple[Operand, ...]) -> Run:
    hosted = host.get(f"module:{name}")
    if hosted is not None:
        return call(hosted, inputs)
    parts, operands = path(name), _operands(inputs)
    return lambda root, env: descend(root, parts)(*operands(env))


def _body(graph: Graph, host: Host) -> Callable[[nn.Module], Callable[..., tuple[Any, ...]]]:
    """A graph among the attributes of a node: a function from positional operands to a tuple of results."""
    steps = steps_of(graph, host)
    outputs = tuple(getter(reference) for reference in graph.outputs.values())
    names = tuple(spec.name for spec in graph.inputs)

    def bind(root: nn.Module) -> Callable[..., tuple[Any, ...]]:
        def call(*operands: Any) -> tuple[Any, ...]:
            env: Env = dict(zip(names, operands, strict=True))
            for name, run in steps:
                env[name] = run(root, env)
            return tuple(get(env) for get in outputs)

        return call

    return bind


def _operands(inputs: tuple[Operand, ...]) -> Callable[[Env], tuple[Any, ...]]:
    getters = tuple(getter(operand) for operand in inputs)
    if len(getters) == 1:
        (only,) = getters
        return lambda env: (only(env),)
    return lambda env: tuple([get(env) for get in getters])
