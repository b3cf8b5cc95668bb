"""Program: runs a graph of torch ops as an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torch_towers.graph import Graph, Node, Operand
from torch_towers.registry import MODULES, OPS, Op, Strings

Store = Mapping[str, "Tensor | Strings"]
"""What a graph names: weights, constants and vocabularies, by their names in the checkpoint."""

Env = dict[str, Any]
Step = tuple[str, Callable[[nn.Module, Env], Any]]


class Program(nn.Module):
    """A graph that runs: `program(**inputs) -> {output: value}`.

    Weights are parameters under their TensorFlow-derived names and lifted layers are submodules, so `state_dict()` reads
    like the model's own source. Constants are buffers that `state_dict()` leaves out. `frozen` names the weights that are
    buffers rather than parameters (integers always are).
    """

    def __init__(self, graph: Graph, store: Store, *, frozen: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.graph = graph
        self.register_buffer("_anchor", torch.empty(0), persistent=False)  # knows the device of a tower without weights
        for name, spec in graph.modules.items():
            _add_module(self, name, MODULES[spec.type], spec.args, store)
        _add_tensors(self, graph, store, frozen)
        self._steps = _steps(graph, store)
        self._outputs = tuple((name, _getter(reference)) for name, reference in graph.outputs.items())

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Every output of the graph by its name. Operands are keyed by the graph's input names."""
        env: Env = dict(inputs)
        for name, run in self._steps:
            env[name] = run(self, env)
        return {name: get(env) for name, get in self._outputs}


def _add_module(root: nn.Module, name: str, entry: Op, args: Mapping[str, Any], store: Store) -> None:
    """Lifted layers with weights become submodules, their weights mapped in without a copy."""
    if not (isinstance(entry.function, type) and issubclass(entry.function, nn.Module)):
        return  # a host module: it has no weights, its step holds it
    with torch.device("meta"):
        built = entry.function(**args)
    weights = {key: store[f"{name}.{key}"] for key in built.state_dict()}
    built.load_state_dict(weights, strict=True, assign=True)
    owner, last = _owner(root, name)
    owner.add_module(last, built.eval())


def _add_tensors(root: nn.Module, graph: Graph, store: Store, frozen: frozenset[str]) -> None:
    for node in walk(graph):
        if node.op not in ("parameter", "constant"):
            continue
        name = str(node.attrs["tensor"])
        value = store[name]
        owner, last = _owner(root, name)
        if not isinstance(value, Tensor) or last in owner._parameters or last in owner._buffers:
            continue
        if node.op == "parameter" and name not in frozen and value.is_floating_point():
            owner.register_parameter(last, nn.Parameter(value))
        else:
            owner.register_buffer(last, value, persistent=node.op == "parameter")


def walk(graph: Graph) -> list[Node]:
    """The nodes of `graph` and of every graph among their attributes (the bodies of loops and branches)."""
    nodes: list[Node] = []
    pending = [graph]
    while pending:
        for node in pending.pop().nodes:
            nodes.append(node)
            pending += [value for value in node.attrs.values() if isinstance(value, Graph)]
    return nodes


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The (sub)module that holds `name`, made where it is missing: ("query.dense", "weight") for "query.dense.weight"."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root, last


def _steps(graph: Graph, store: Store) -> tuple[Step, ...]:
    return tuple((node.name, _step(node, graph, store)) for node in graph.nodes)


def _step(node: Node, graph: Graph, store: Store) -> Callable[[nn.Module, Env], Any]:
    if node.op in ("parameter", "constant"):
        return _tensor_step(str(node.attrs["tensor"]), store)
    operands = _operands(node.inputs)
    if node.op == "module":
        return _module_step(str(node.attrs["module"]), graph, store, operands)
    entry = OPS[node.op]
    attrs = dict(node.attrs)
    bodies = {key: _body(value, store) for key, value in attrs.items() if isinstance(value, Graph)}
    function = entry.function
    if bodies:

        def run_with_bodies(root: nn.Module, env: Env) -> Any:
            bound = {key: body(root) for key, body in bodies.items()}
            return function(*operands(env), **{**attrs, **bound})

        return run_with_bodies
    if entry.takes_device:
        return lambda root, env: function(*operands(env), **attrs, device=root._buffers["_anchor"].device)  # type: ignore[union-attr]
    if attrs:
        return lambda root, env: function(*operands(env), **attrs)
    return lambda root, env: function(*operands(env))


def _tensor_step(name: str, store: Store) -> Callable[[nn.Module, Env], Any]:
    value = store[name]
    if not isinstance(value, Tensor):
        return lambda root, env: value
    *path, last = name.split(".")

    def get(root: nn.Module, env: Env) -> Any:
        owner = _descend(root, path)
        return owner._parameters[last] if last in owner._parameters else owner._buffers[last]

    return get


def _module_step(
    name: str, graph: Graph, store: Store, operands: Callable[[Env], tuple[Any, ...]]
) -> Callable[[nn.Module, Env], Any]:
    spec = graph.modules[name]
    entry = MODULES[spec.type]
    if isinstance(entry.function, type) and issubclass(entry.function, nn.Module):
        path = name.split(".")
        return lambda root, env: _descend(root, path)(
            *operands(env)
        )  # looked up at each call: a user may swap the layer
    hosted = entry.function(**resolve(entry, spec.args, store))
    return lambda root, env: hosted(*operands(env))


def resolve(entry: Op, args: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """`args` with the names of tensors and vocabularies replaced by themselves, as the annotations of `entry` ask."""
    return {
        key: store[value] if isinstance(value, str) and entry.hints.get(key) is not str else value
        for key, value in args.items()
    }


def _descend(root: nn.Module, path: list[str]) -> nn.Module:
    for part in path:
        root = root._modules[part]  # type: ignore[assignment]
    return root


def _body(graph: Graph, store: Store) -> Callable[[nn.Module], Callable[..., tuple[Any, ...]]]:
    """A graph among the attributes of a node: a function from positional operands to a tuple of results."""
    steps = _steps(graph, store)
    outputs = tuple(_getter(reference) for reference in graph.outputs.values())
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
    getters = tuple(_getter(operand) for operand in inputs)
    if len(getters) == 1:
        (only,) = getters
        return lambda env: (only(env),)
    return lambda env: tuple([get(env) for get in getters])


def _getter(operand: Operand) -> Callable[[Env], Any]:
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
