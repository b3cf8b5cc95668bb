"""Program: runs a graph of torch ops as an `nn.Module`."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torch_towers import layers as _layers  # noqa: F401  # pyright: ignore[reportUnusedImport]  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  # pyright: ignore[reportUnusedImport]  (fills OPS)
from torch_towers.fusion import plan_of
from torch_towers.graph import Graph, ModuleSpec, Node
from torch_towers.registry import MODULES, Op
from torch_towers.steps import Env, Step, Store, descend, getter, host_of, is_layer, is_stored, path, steps_of


class Program(nn.Module):
    """A graph that runs: `program(**inputs) -> {output: value}`.

    Weights are parameters under their TensorFlow-derived names and lifted layers are submodules, so `state_dict()` reads
    like the model's own source. Constants are buffers that `state_dict()` leaves out. `frozen` names the weights that are
    buffers rather than parameters (integers always are).
    """

    def __init__(self, graph: Graph, store: Store, *, frozen: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.register_buffer("_anchor", torch.empty(0), persistent=False)  # knows the device of a tower without weights
        for name, spec in sorted(modules(graph).items()):  # "block" before "block.dense", which goes into it
            _add_module(self, name, MODULES[spec.type], spec.args, store, frozen)
        _add_tensors(self, graph, store, frozen)
        host = host_of(walk(graph), modules(graph), store)

        def bind(graph: Graph) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
            steps = steps_of(graph, host)
            return steps, plan_of(graph, host, steps)

        self._bind = bind  # a closure: `copy.deepcopy` shares the tables in it
        self.rewrite(graph)

    def rewrite(self, graph: Graph) -> None:
        """Puts the same graph at another precision over the weights and constants that are here."""
        before = modules(self.graph) if hasattr(self, "graph") else {}
        for name, spec in modules(graph).items():
            if is_layer(MODULES[spec.type]) and before.get(name, spec) != spec:  # a layer that knows its dtype
                weights = descend(self, path(name)).state_dict(prefix=f"{name}.", keep_vars=True)
                _add_module(self, name, MODULES[spec.type], spec.args, weights, frozenset(weights))
        self.graph = graph
        self._steps, self._plan = self._bind(graph)
        self._outputs = tuple((name, getter(reference)) for name, reference in graph.outputs.items())
        self.__class__ = _with_signature(tuple(spec.name for spec in graph.inputs))  # type: ignore[reportAttributeAccessIssue]

    @property
    def device(self) -> torch.device:
        """Where the weights are and the graph runs."""
        return self._buffers["_anchor"].device  # type: ignore[union-attr]

    def tensors(self, *, lenient: bool = False) -> dict[str, Tensor]:
        """The weights and constants as they are now, by the names that the graph and the checkpoint give them.

        Raises `LookupError`, naming it, where a layer was replaced by one with other weights; `lenient` leaves its weights out.
        """
        found: dict[str, Tensor] = {}
        for name, spec in modules(self.graph).items():
            if not is_layer(MODULES[spec.type]):
                continue
            now = descend(self, path(name)).state_dict(keep_vars=True)
            if now.keys() == layer_weights(spec):
                found |= {f"{name}.{key}": value for key, value in now.items()}
            elif not lenient:
                raise LookupError(
                    f"the layer {name!r} was replaced by one with the weights {', '.join(now) or 'of none'}"
                )
        for node in walk(self.graph):
            if node.op in ("parameter", "constant"):
                name = str(node.attrs["tensor"])
                *owners, last = path(name)
                value = getattr(descend(self, owners), last, None)
                if isinstance(value, Tensor):
                    found[name] = value
        return found

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Every output of the graph by its name. Operands are keyed by the graph's input names."""
        env: Env = dict(inputs)
        for name, run in self._plan:
            env[name] = run(self, env)
        return {name: get(env) for name, get in self._outputs}


@functools.cache
def _with_signature(names: tuple[str, ...]) -> type[Program]:
    """Program with a `forward` that names its operands: `torch.export` ties free sizes to them, `help` shows them."""
    if not all(name.isidentifier() and not iskeyword(name) and name != "self" for name in names):
        return Program

    forward: Any = types.FunctionType(Program.forward.__code__, Program.forward.__globals__)  # without one more call
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = inspect.Signature([this, *keywords])
    forward.__doc__ = Program.forward.__doc__
    return type("Program", (Program,), {"forward": forward})


def layer_weights(spec: ModuleSpec) -> set[str]:
    """The names of a layer's weights, found by building it without memory."""
    return set(empty_layer(MODULES[spec.type], spec.args).state_dict())


class _Unfilled(TorchFunctionMode):
    """Leaves new weights as they are. To fill a meta tensor with random numbers would import torch's compiler: seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_FILLERS = frozenset(name for name in dir(nn.init) if name.endswith("_"))


def empty_layer(entry: Op, args: Mapping[str, Any]) -> nn.Module:
    """A layer whose weights have shapes and no memory."""
    with torch.device("meta"), _Unfilled():
        return entry.function(**args)


def used_names(graph: Graph) -> set[str]:
    """Every weight, constant and vocabulary that `graph` names."""
    used = {str(node.attrs["tensor"]) for node in walk(graph) if node.op in ("parameter", "constant")}
    for name, spec in modules(graph).items():
        entry = MODULES[spec.type]
        if is_layer(entry):
            used |= {f"{name}.{key}" for key in layer_weights(spec)}
        else:
            used |= {value for key, value in spec.args.items() if is_stored(entry, key, value)}
    return used


def _add_module(
    root: nn.Module, name: str, entry: Op, args: Mapping[str, Any], store: Store, frozen: frozenset[str]
) -> None:
    """Layers with weights become submodules, their weights mapped in without a copy."""
    if not is_layer(entry):
        return  # a host module: its step holds it
    built = empty_layer(entry, args)
    parameters = dict(built.named_parameters())
    for key, slot in built.state_dict().items():
        value = store[f"{name}.{key}"]
        if not isinstance(value, Tensor) or value.shape != slot.shape:
            found = list(value.shape)
            raise ValueError(f"'{name}.{key}' is {found}, but the layer {entry.name} wants {list(slot.shape)}")
        owner, last = built.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2]
        if key not in parameters:
            owner._buffers[last] = value.detach()
        elif isinstance(value, nn.Parameter):  # the other tower has it too: one parameter, trained from both
            owner._parameters[last] = value
        else:
            trainable = f"{name}.{key}" not in frozen and value.is_floating_point()
            owner._parameters[last] = nn.Parameter(value, requires_grad=trainable)
    owner, last = _owner(root, path(name))
    owner.add_module(last, built.eval())


def _add_tensors(root: nn.Module, graph: Graph, store: Store, frozen: frozenset[str]) -> None:
    for node in walk(graph):
        if node.op not in ("parameter", "constant"):
            continue
        name = str(node.attrs["tensor"])
        value = store[name]
        owner, last = _owner(root, path(name))
        if not isinstance(value, Tensor) or last in owner._parameters or last in owner._buffers:
            continue
        if node.op == "parameter" and name not in frozen and value.is_floating_point():
            owner.register_parameter(last, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
        else:
            owner.register_buffer(last, value.detach(), persistent=node.op == "parameter")


def graphs(graph: Graph) -> list[Graph]:
    """`graph` and every graph among the attributes of its nodes (the bodies of loops and branches)."""
    found = [graph]
    for one in found:
        found += [value for node in one.nodes for value in node.attrs.values() if isinstance(value, Graph)]
    return found


def walk(graph: Graph) -> list[Node]:
    """The nodes of `graph` and of the graphs inside it."""
    return [node for one in graphs(graph) for node in one.nodes]


def modules(graph: Graph) -> dict[str, ModuleSpec]:
    """The modules of `graph` and of the graphs inside it."""
    return {name: spec for one in graphs(graph) for name, spec in one.modules.items()}


def _owner(root: nn.Module, parts: list[str]) -> tuple[nn.Module, str]:
    """The (sub)module that holds the last of `parts`, made where it is missing, and the name that it has there."""
    for part in parts[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root, parts[-1]
