"""Binding: turns each node of a graph into a call, with its function, operands and attributes looked up once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from torch import Tensor, nn

from torch_towers.graph.graph import Graph, ModuleSpec, Node, Operand
from torch_towers.graph.registry import MODULES, OPS, Op, Strings

Store = Mapping[str, "Tensor | Strings"]
"""Weights, constants and vocabularies by name."""

Env = dict[str, Any]
"""The values of a run so far, by node name."""

Run = Callable[[nn.Module, Env], Any]
"""Computes one value, given the module that holds the weights and the values so far."""

Step = tuple[str, Run]


class Host(dict[str, Any]):
    """State of the steps: vocabularies by name, and host modules by "module:" plus name.

    It is immutable: a copy is the same object, and a pickle holds only the constructor's arguments.
    """

    def __init__(self, modules: Mapping[str, ModuleSpec], texts: Mapping[str, Strings], store: Store) -> None:
        super().__init__(texts)
        self._made_from = (modules, texts, store)
        for name, spec in modules.items():
            entry = MODULES[spec.type]
            self[f"module:{name}"] = entry.function(**resolve(entry, spec.args, store))

    @classmethod
    def of(cls, nodes: list[Node], modules: Mapping[str, ModuleSpec], store: Store) -> Host:
        """Builds it for `nodes`: the vocabularies that they read, and those of `modules` that have no weights."""
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


Planner = Callable[[Graph, Host, tuple[Step, ...]], tuple[Step, ...]]
"""Maps the steps of a graph, one per node, to those of its runs."""


def steps_of(graph: Graph, host: Host, plan: Planner | None = None) -> tuple[Step, ...]:
    """One step per node, in order. `plan`: makes the plans of nested graphs from their steps."""
    return tuple((node.name, _step(node, host, plan or _as_they_are)) for node in graph.nodes)


def _as_they_are(graph: Graph, host: Host, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return steps


def getter(operand: Operand) -> Callable[[Env], Any]:
    """A function that looks up an operand: a reference, a literal, or a tuple of operands."""
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
    """True for modules with weights; the others are tables and tokenizers and stay on the host."""
    return isinstance(entry.function, type) and issubclass(entry.function, nn.Module)


def is_stored(entry: Op, key: str, value: Any) -> bool:
    """Whether a module's argument is the name of a tensor or vocabulary, by the annotations of `entry`."""
    return isinstance(value, str) and not _is_text(entry.hints.get(key))


def _is_text(hint: Any) -> bool:
    """Whether an annotation, or one alternative of a union, is a text: `str` or a `Literal`."""
    return hint is str or get_origin(hint) is Literal or any(map(_is_text, get_args(hint)))


def resolve(entry: Op, args: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """`args` with names of tensors and vocabularies replaced by the values."""
    return {key: store[value] if is_stored(entry, key, value) else value for key, value in args.items()}


_TAKEN = frozenset((*dir(nn.Module()), "device", "dtype", "graph", "run", "tensors"))
_TAKEN_AT_ROOT = _TAKEN | {"narrowed", "runs", "steps", "values", "outputs_of", "_anchor", "_bind", "_host", "_named", "_narrowed", "_outputs",
                           "_own", "_plan", "_rewrite", "_view", "_written"}  # fmt: skip
"""Attributes of every module, and of a `Program`, the root module (compared by
`tests/torch_towers/program/test_binding.py`)."""


def path(name: str) -> list[str]:
    """The path of `name` in the module tree: `"query.type.weight"` -> `["query", "type_", "weight"]`.

    Parts that clash with an attribute of the module get an underscore.
    """
    first, *rest = name.split(".")
    return [
        f"{first}_" if first in _TAKEN_AT_ROOT else first,
        *(f"{part}_" if part in _TAKEN else part for part in rest),
    ]


def descend(root: nn.Module, parts: list[str]) -> nn.Module:
    """The current submodule at `parts`: a user may have swapped it."""
    for part in parts:
        root = root._modules[part]  # type: ignore[assignment]
    return root


def _step(node: Node, host: Host, plan: Planner) -> Run:
    if node.op in ("parameter", "constant"):
        return _tensor_step(str(node.attrs["tensor"]), host)
    if node.op == "module":
        return _module_step(str(node.attrs["module"]), host, node.inputs)
    entry = OPS[node.op]
    attrs = dict(node.attrs)
    bodies = {key: _body(value, host, plan) for key, value in attrs.items() if isinstance(value, Graph)}
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
    """Calls a function on operands. The common cases, one or two whole values, are inlined."""
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


def _body(graph: Graph, host: Host, plan: Planner) -> Callable[[nn.Module], Callable[..., tuple[Any, ...]]]:
    """A graph in a node's attributes, as a function from positional operands to a tuple of results."""
    steps = plan(graph, host, steps_of(graph, host, plan))
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
