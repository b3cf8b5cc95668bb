"""Program: runs a graph of torch ops as an `nn.Module`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from keyword import iskeyword
from types import FunctionType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torch_towers import layers as _layers  # noqa: F401  # pyright: ignore[reportUnusedImport]  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  # pyright: ignore[reportUnusedImport]  (fills OPS)
from torch_towers.graph.dtypes import DTYPE_NAMES, FLOATS
from torch_towers.graph.graph import Graph, ModuleSpec, Node, bodies
from torch_towers.graph.narrow import narrowed as narrow
from torch_towers.graph.registry import MODULES, Op
from torch_towers.program.binding import Env, Host, Store, descend, getter, is_layer, is_stored, path, steps_of
from torch_towers.program.fusion import plan_of
from torch_towers.program.liveness import forgetting
from torch_towers.program.precision import float_graph
from torch_towers.program.shown import shown


class _Forward:
    """`program.forward`, with operands named like the graph's inputs, which `torch.export` needs for dynamic sizes.

    It is a partial because `torch.compile` does not trace the creation of bound methods.
    """

    def __get__(self, program: Program | None, kind: type[Program]) -> Callable[..., dict[str, Any]]:
        return kind.run if program is None else functools.partial(program._named, program)


class Program(nn.Module):
    """An executable graph: `program(**inputs) -> {output: value}`.

    Weights are parameters with their TensorFlow-derived names, and lifted layers are submodules, so `state_dict()`
    reads like the model's own source. Constants are non-persistent buffers. `frozen` names weights that are buffers
    instead of parameters (integers always are). A copy shares the vocabularies; a pickle contains them.
    """

    forward = _Forward()  # type: ignore[reportAssignmentType]

    def __init__(self, graph: Graph, store: Store, *, frozen: frozenset[str] = frozenset()) -> None:
        super().__init__()
        anchor = torch.empty(0, dtype=torch.float32, device="cpu")  # tracks device and dtype of a tower without weights
        self.register_buffer("_anchor", anchor, persistent=False)
        for name, spec in sorted(modules(graph).items()):  # "block" before "block.dense", its submodule
            _add_module(self, name, MODULES[spec.type], spec.args, store, frozen)
        _add_tensors(self, graph, store, frozen)
        self._host = Host.of(walk(graph), modules(graph), store)
        self._written = self.graph = graph
        self._own = frozenset(name for name, value in self.tensors().items() if value.dtype != torch.float32)
        self._bind()
        self.eval()

    def _bind(self) -> None:
        """Binds the graph's nodes to calls."""
        self.steps = steps_of(self.graph, self._host, plan_of)
        self._plan = forgetting(self.graph, plan_of(self.graph, self._host, self.steps))
        self._outputs = tuple((name, getter(reference)) for name, reference in self.graph.outputs.items())
        self._named = _with_signature(tuple(spec.name for spec in self.graph.inputs))
        self._narrowed: dict[frozenset[str], Program | None] = {}  # None: the program itself, without a cycle

    def narrowed(self, outputs: frozenset[str]) -> Program:
        """A view of this program that computes these outputs alone, and the checks: the same layers, weights and hooks.

        It holds until the program moves to another dtype, and does not follow its `train()`.
        """
        if outputs not in self._narrowed:
            graph = narrow(self.graph, outputs)
            whole = len(graph.nodes) == len(self.graph.nodes) and len(graph.outputs) == len(self.graph.outputs)
            self._narrowed[outputs] = None if whole else self._view(graph)
        return self._narrowed[outputs] or self

    def runs(self, graph: Graph) -> bool:
        """Whether a call just runs `graph`, in any precision: not in training, nor compiled."""
        compiled: object = self._compiled_call_impl  # type: ignore[reportUnknownMemberType]
        return self._written is graph and not self.training and compiled is None

    def _view(self, graph: Graph) -> Program:
        view = object.__new__(Program)
        view.__dict__.update(self.__dict__)  # the dictionaries of layers, weights and hooks are the same ones
        view.graph = graph
        view._bind()
        return view

    def values(self, **inputs: Any) -> Env:
        """The value of every node by name, including inputs, for inspecting a run step by step."""
        env: Env = dict(inputs)
        for name, step in self.steps:
            env[name] = step(self, env)
        return env

    def outputs_of(self, env: Env) -> dict[str, Any]:
        """The graph's outputs, taken from the values of its nodes."""
        return {name: get(env) for name, get in self._outputs}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _BOUND}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[reportUnknownMemberType]
        self._bind()

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which the graph runs."""
        return self._buffers["_anchor"].device  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that replaces float32 in the graph."""
        return self._buffers["_anchor"].dtype  # type: ignore[union-attr]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The hook of `to`, `half`, `cuda`, ...: the given dtype replaces float32, and the graph follows it.

        Other float dtypes that TensorFlow's graph names explicitly do not change. Errors: `ValueError` for an
        unsupported dtype.
        """
        before, after = self.dtype, fn(self._buffers["_anchor"]).dtype  # type: ignore[arg-type]
        if DTYPE_NAMES.get(after) not in FLOATS:
            raise ValueError(f"{after} is not one of {', '.join(FLOATS)}")
        own = {id(value) for name, value in self.tensors(lenient=True).items() if name in self._own}

        def moved(value: Tensor) -> Tensor:
            new = fn(value)
            return value.to(new.device) if id(value) in own and new.dtype != value.dtype else new

        super()._apply(moved, recurse)  # type: ignore[reportUnknownMemberType]
        if after != before:
            self._rewrite(float_graph(self._written, DTYPE_NAMES[after]))
        return self

    def _rewrite(self, graph: Graph) -> None:
        """Replaces the graph by one at another precision and keeps the current weights and constants."""
        before = modules(self.graph)
        for name, spec in modules(graph).items():
            entry = MODULES[spec.type]
            if before[name] != spec and is_layer(entry):  # a layer with a dtype argument
                layer = descend(self, path(name))
                if type(layer) is entry.function:
                    weights = layer.state_dict(prefix=f"{name}.", keep_vars=True)
                    _add_module(self, name, entry, spec.args, weights, frozenset(weights))
                    descend(self, path(name)).train(layer.training)
        self.graph = graph
        self._bind()

    def tensors(self, *, lenient: bool = False) -> dict[str, Tensor]:
        """The current weights and constants by their names in the graph and the checkpoint.

        Raises `LookupError` with the name of a layer that was replaced by one with other weights; `lenient` omits its
        weights.
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

    def __repr__(self) -> str:
        return shown(self, self.graph)

    def run(self, **inputs: Any) -> dict[str, Any]:
        """Every output of the graph by name. Operands are keyed by the graph's input names."""
        env: Env = dict(inputs)
        for name, run in self._plan:
            env[name] = run(self, env)
        return {name: get(env) for name, get in self._outputs}


_BOUND = frozenset(
    {"steps", "_plan", "_outputs", "_named", "_narrowed"}
)  # derived from the graph: neither copied nor pickled


@functools.cache
def _with_signature(names: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    """`Program.run` with a signature that names its operands, if they are valid Python names."""
    if not all(name.isidentifier() and not iskeyword(name) and name != "self" for name in names):
        return Program.run
    run: Any = FunctionType(Program.run.__code__, Program.run.__globals__, "forward")  # avoids a wrapper call
    keywords = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    run.__signature__ = inspect.Signature([this, *keywords])
    run.__doc__ = Program.run.__doc__
    return run


def layer_weights(spec: ModuleSpec) -> set[str]:
    """The names of a layer's weights, found by building it on the meta device."""
    return set(empty_layer(MODULES[spec.type], spec.args).state_dict())


class _Unfilled(TorchFunctionMode):
    """Skips weight initialization: filling a meta tensor with random numbers would import torch's compiler, which takes
    seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_FILLERS = frozenset(name for name in dir(nn.init) if name.endswith("_"))


def empty_layer(entry: Op, args: Mapping[str, Any]) -> nn.Module:
    """A layer on the meta device: its weights have shapes and no memory."""
    with torch.device("meta"), _Unfilled():
        return entry.function(**args)


def used_names(graph: Graph) -> set[str]:
    """The names of all weights, constants and vocabularies in `graph`."""
    used = {str(node.attrs["tensor"]) for node in walk(graph) if node.op in ("parameter", "constant")}
    return used.union(*(stored_names(name, spec) for name, spec in modules(graph).items()))


def stored_names(name: str, spec: ModuleSpec) -> list[str]:
    """The names in the store that the module `name` uses: its weights, or arguments that name tensors and
    vocabularies."""
    entry = MODULES[spec.type]
    if is_layer(entry):
        return [f"{name}.{key}" for key in empty_layer(entry, spec.args).state_dict()]
    return [value for key, value in spec.args.items() if is_stored(entry, key, value)]


def _add_module(
    root: nn.Module, name: str, entry: Op, args: Mapping[str, Any], store: Store, frozen: frozenset[str]
) -> None:
    """Adds a layer with weights as a submodule, its weights memory-mapped."""
    if not is_layer(entry):
        return  # a host module: its step owns it
    built = empty_layer(entry, args)
    parameters = dict(built.named_parameters())
    for key, slot in built.state_dict().items():
        value = store[f"{name}.{key}"]
        if not isinstance(value, Tensor) or value.shape != slot.shape:
            found = list(value.shape)
            raise ValueError(f"'{name}.{key}' is {found}, but the layer {entry.name} needs {list(slot.shape)}")
        owner, last = built.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2]
        if key not in parameters:
            owner._buffers[last] = value.detach()
        elif isinstance(value, nn.Parameter):  # shared with the other tower: one parameter, trained through both
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
    """`graph` and all nested graphs (bodies of loops and branches)."""
    found = [graph]
    for one in found:
        found += [body for node in one.nodes for body in bodies(node)]
    return found


def walk(graph: Graph) -> list[Node]:
    """The nodes of `graph` and of nested graphs."""
    return [node for one in graphs(graph) for node in one.nodes]


def modules(graph: Graph) -> dict[str, ModuleSpec]:
    """The modules of `graph` and of nested graphs."""
    return {name: spec for one in graphs(graph) for name, spec in one.modules.items()}


def _owner(root: nn.Module, parts: list[str]) -> tuple[nn.Module, str]:
    """The submodule that holds the last of `parts`, created if missing, and its attribute name there."""
    for part in parts[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root, parts[-1]
