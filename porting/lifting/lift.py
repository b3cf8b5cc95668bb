"""Lift: what a graph of ops spells out becomes the layer that it is: Linear, Embedding, LayerNorm, StringLookup, ...

Each file in `porting/rewrites/` holds the rewrites of one layer: a pattern, and a function that checks what was found and
writes the module, or refuses with a sentence. What is not lifted still runs, op by op, with the same numbers.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from porting.conversion.emitter import EFFECTS, Emitter
from porting.conversion.values import Value
from porting.lifting.patterns import SOURCES, Match, Pattern
from porting.lifting.patterns import constant as constant_of
from porting.names import identifier, numbered, place, spaced
from torch_towers.graph.graph import Graph, ModuleSpec, Node, node_of, references
from torch_towers.graph.registry import MODULES
from torch_towers.program.program import empty_layer, walk

ORDER = (
    "identities",
    "recurrent",
    "images",
    "conv",
    "linear",
    "einsum",
    "attention",
    "embedding",
    "positions",
    "pooling",
    "norms",
    "activations",
    "lookups",
    "text",
    "buckets",
    "sentencepiece",
    "integer_ranges",
)
"""The files of `porting/rewrites/` in the order in which they run: laws (images' too) make way for layers, lookups for the text around them."""


FREE = frozenset(
    """add sub mul neg div square sqrt rsqrt maximum minimum tanh sigmoid relu relu6 elu softplus erf erfc exp pow equal less greater
    where cast reshape transpose unsqueeze squeeze broadcast_to zeros_like ones_like size size_add size_sub size_mul sizes_tensor
    select slice as_string squared_difference reduce_sum reduce_mean batch_statistics batch_norm
    space_to_batch""".split()  # noqa: SIM905
)
"""Ops that a layer may compute again although something else uses their results too: equal nodes are written once, so that
layers which have nothing to do with each other share such nodes."""


_INNER = re.compile(
    r"(None_Lookup|hash_table_Lookup|string_lookup|integer_lookup|RaggedToTensor|StringSplit|StringNGrams|bincount|l2_normalize"
    r"|moments|batchnorm|clip_by_value|Gelu|LookupTableFindV2|SelectV2)(_\d+)*"
)
"""Scopes that TensorFlow's own functions open inside a layer."""


class Refusal(Exception):  # noqa: N818  (no error: what it says is part of the report)
    """A pattern matched, but lifting it could change a number or a name: the sentence says why. Raised before anything is written."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`pattern` finds candidates, `apply(view, root, match)` writes the layer or raises `Refusal`.

    `layer` is the name under which it is counted, unless `apply` returns another; empty for laws, which only bring the graph
    nearer to normal form.
    """

    layer: str
    pattern: Pattern
    apply: Callable[[View, Node, Match], str | None]
    keeps: frozenset[str]
    forward: bool


REWRITES: dict[str, list[Rewrite]] = {}


def rewrite(layer: str, pattern: Pattern, *, keeps: Iterable[str] = (), forward: bool = False) -> Callable[[Any], Any]:
    """Registers `apply(view, root, match)` for what `pattern` finds.

    The nodes that a match covers must be used by nothing else, except those that the pattern binds under a name in `keeps`.
    `forward`: nodes are visited from the first to the last, where a layer needs to know the sizes that the one before it gives.
    """

    def add(apply: Callable[[View, Node, Match], str | None]) -> Callable[[View, Node, Match], str | None]:
        file = apply.__module__.rpartition(".")[2]
        REWRITES.setdefault(file, []).append(Rewrite(layer, pattern, apply, frozenset(keeps), forward))
        return apply

    return add


def load_rewrites() -> list[Rewrite]:
    """All rewrites in order: files named in `ORDER` first, others after them."""
    from porting import rewrites

    for file in pkgutil.iter_modules(rewrites.__path__):
        importlib.import_module(f"{rewrites.__name__}.{file.name}")
    files = [*ORDER, *sorted(set(REWRITES) - set(ORDER))]
    return [item for file in files for item in REWRITES.get(file, [])]


@dataclass(frozen=True, slots=True)
class Lifted:
    """The graph with its layers, what it names, and the report."""

    graph: Graph
    store: dict[str, Any]
    known: dict[str, Value]
    counts: Counter[str] = field(default_factory=Counter[str])
    remaining: Counter[str] = field(default_factory=Counter[str])
    refusals: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict[str, str])  # weight of a layer -> its name before
    names: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # node before -> its name now, where it has another

    def summary(self) -> str:
        """One line: `lifted 3 Linear, 2 Embedding; 7 ops remain`."""
        layers = ", ".join(f"{count} {layer}" for layer, count in sorted(self.counts.items()))
        left = sum(self.remaining.values())
        return f"lifted {layers or 'nothing'}; {left} op{'s' if left != 1 else ''} remain{'' if left != 1 else 's'}"


def lift(graph: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> Lifted:
    """`graph` with every layer that is certain to be one lifted. `store` and `known` are not changed: new ones come back."""
    view = View(graph, store, known)
    refusals: dict[str, str] = {}
    for item in load_rewrites():
        names = list(view.nodes)  # the largest formula first: `x @ w + b` before the `x @ w` inside it
        for name in names if item.forward else reversed(names):
            node = view.nodes.get(name)
            if node is not None:
                _try(view, item, node, refusals)
    view.give_back_names()
    remaining = Counter(node.op for node in view.nodes.values() if node.op not in {*SOURCES, "module"})
    counts = _counts(view)
    still = [name for name in refusals if name in view.nodes and not _was_lifted(view, name, refusals[name])]
    lifted, names = _named(view.graph())
    values = _known(lifted, view.known, names)
    refused = tuple(refusals[name] for name in still)
    return Lifted(lifted, _used(lifted, view.store), values, counts, remaining, refused, view.origins, names)


def _try(view: View, item: Rewrite, node: Node, refusals: dict[str, str]) -> None:
    roots = item.pattern.roots()
    if (roots and node.op not in roots) or node.op in ("parameter", "constant"):
        return
    problem = ""
    for match in item.pattern.find(view, node.name, Match()):
        shared = view.used_elsewhere(node, match, {node_of(match[name]) for name in item.keeps if match.get(name)})
        if shared:
            problem = problem or shared
            continue
        try:
            layer = item.apply(view, node, match) or item.layer
        except Refusal as refusal:
            problem = problem or str(refusal)
            continue
        view.sweep()
        if layer:
            view.lifted[node.name] = layer
        return
    if problem and item.layer:
        refusals.setdefault(node.name, f"{item.layer}: {node.op} {node.name!r}: {problem}")


def _was_lifted(view: View, name: str, refusal: str) -> bool:
    """Whether the node has become a layer after all, or what stands around one."""
    return view.is_layer(name) or refusal.startswith(f"{view.lifted.get(name)}: ")


def _counts(view: View) -> Counter[str]:
    """How many layers of each kind there are now: a module that is called twice is one."""
    found = {
        str(view.nodes[name].attrs["module"]) if view.is_layer(name) else name: layer
        for name, layer in view.lifted.items()
        if name in view.nodes
    }
    return Counter(found.values())


def _named(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph with the nodes that call a module named after it, or, at further calls, after the scope of the call.

    Also gives the new names by the old.
    """
    taken = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs}
    new: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "module":
            continue
        for wanted in (str(node.attrs["module"]), ".".join(_layer_scope(node.name.split(".")[:-1]))):
            if wanted and node.name not in new and wanted not in taken:
                taken.add(wanted)
                new[node.name] = wanted
    nodes = [
        Node(new.get(node.name, node.name), node.op, renamed(node.inputs, new), node.attrs) for node in graph.nodes
    ]
    outputs = {name: _rename(ref, new) for name, ref in graph.outputs.items()}
    return Graph(graph.inputs, tuple(nodes), outputs, graph.modules), new


def _layer_scope(scopes: list[str]) -> list[str]:
    """Scopes without those that TensorFlow's own functions open inside a layer."""
    while scopes and _INNER.fullmatch(scopes[-1]):
        scopes = scopes[:-1]
    return scopes


def _rename(ref: str, new: Mapping[str, Any]) -> Any:
    name, colon, index = ref.partition(":")
    return f"{new.get(name, name)}:{index}" if colon else new.get(name, name)


def renamed(operands: Any, new: Mapping[str, Any]) -> Any:
    if isinstance(operands, tuple):
        return tuple(renamed(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return _rename(operands, new) if isinstance(operands, str) else operands


def _exchanged(operands: Any, new: Mapping[str, str]) -> Any:
    """`operands` with whole references exchanged, results of a node among them."""
    if isinstance(operands, tuple):
        return tuple(_exchanged(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return new.get(operands, operands) if isinstance(operands, str) else operands


def _known(graph: Graph, known: Mapping[str, Value], new: Mapping[str, str]) -> dict[str, Value]:
    """What is known of the values that are left, under their new names."""
    left = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs}
    moved = {_rename(ref, new): replace(value, ref=_rename(ref, new)) for ref, value in known.items()}
    return {ref: value for ref, value in moved.items() if node_of(ref) in left}


def _in_bodies(node: Node) -> set[str]:
    """The weights and constants that a loop or branch names inside."""
    bodies = [value for value in node.attrs.values() if isinstance(value, Graph)]
    return {str(inner.attrs["tensor"]) for body in bodies for inner in walk(body) if inner.op in SOURCES}


def _used(graph: Graph, store: Mapping[str, Any]) -> dict[str, Any]:
    """What the graph names of the store."""
    names = {str(node.attrs["tensor"]) for node in walk(graph) if node.op in SOURCES}
    graphs = [graph, *(value for node in walk(graph) for value in node.attrs.values() if isinstance(value, Graph))]
    for name, spec in (item for each in graphs for item in each.modules.items()):
        names |= set(tensors_of(name, spec))
    return {name: store[name] for name in store if name in names}


def tensors_of(name: str, spec: ModuleSpec) -> list[str]:
    """The names in the store that the module `name` takes: its weights, or the arguments that name tensors."""
    entry = MODULES[spec.type]
    if _has_weights(spec):
        return [f"{name}.{key}" for key in empty_layer(entry, spec.args).state_dict()]
    return [value for key, value in spec.args.items() if isinstance(value, str) and entry.hints.get(key) is not str]


def _has_weights(spec: ModuleSpec) -> bool:
    """Whether it is an `nn.Module`, whose weights are named after it; other modules name what they hold in their arguments."""
    function = MODULES[spec.type].function
    return isinstance(function, type) and issubclass(function, nn.Module)


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


class View:
    """A graph while it is being rewritten: nodes by name in topological order, who uses them, weights and constants."""

    def __init__(self, graph: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> None:
        self.inputs = graph.inputs
        self.outputs = dict(graph.outputs)
        self.nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
        self.modules: dict[str, ModuleSpec] = dict(graph.modules)
        self.store: dict[str, Any] = dict(store)
        self.known: dict[str, Value] = dict(known)
        self.lifted: dict[str, str] = {}  # node -> the layer that it was lifted to
        self.layers: dict[Any, str] = {}  # what a rewrite remembers of the modules it made, to share them
        self.wanted: dict[str, str] = {}  # module -> the name that it should have had
        self.owned: dict[str, str] = {}  # a weight -> the layer that holds it
        self.origins: dict[str, str] = {}  # a weight of a layer -> its name before
        self.users: dict[str, Counter[str]] = {}
        for node in graph.nodes:
            self._use(node)
        self._output_nodes = {node_of(ref) for ref in self.outputs.values()}
        self.bodies = {node.name: _in_bodies(node) for node in graph.nodes}  # a loop or branch -> what it names inside
        self.bodies = {name: tensors for name, tensors in self.bodies.items() if tensors}
        self._touched: list[str] = []

    # -- reading ------------------------------------------------------------------------------------------------------

    def node(self, ref: Any) -> Node | None:
        """The node that computes `ref`; None for the graph's inputs and for literals."""
        return self.nodes.get(node_of(ref)) if isinstance(ref, str) else None

    def shape(self, ref: Any) -> tuple[Any, ...] | None:
        """The shape of `ref` as far as it is known: integers and named sizes."""
        value = self.known.get(ref) if isinstance(ref, str) else None
        return () if not isinstance(ref, str) else None if value is None else value.shape

    def rank(self, ref: Any) -> int | None:
        shape = self.shape(ref)
        return None if shape is None else len(shape)

    def dtype(self, ref: Any) -> str | None:
        value = self.known.get(ref) if isinstance(ref, str) else None
        return None if value is None else value.dtype

    def tensor_name(self, ref: str) -> str:
        """The name in the store of a weight or constant."""
        return str(self.nodes[node_of(ref)].attrs["tensor"])

    def tensor(self, ref: str) -> Any:
        """The value of a weight or constant."""
        return self.store[self.tensor_name(ref)]

    def constant(self, ref: Any) -> Any:
        """The value of a constant; None for all else."""
        return constant_of(self, ref)

    def is_layer(self, name: str) -> bool:
        """Whether the node calls a module that a rewrite wrote, rather than a table as it was."""
        return self.nodes[name].op == "module" and self.module_of(self.nodes[name], "LookupTable") is None

    def module_of(self, node: Node | None, kind: str) -> ModuleSpec | None:
        """The module that `node` calls, where it is one of type `kind`."""
        if node is None or node.op != "module":
            return None
        spec = self.modules[str(node.attrs["module"])]
        return spec if spec.type == kind else None

    def consumers(self, ref: str) -> list[Node]:
        """The nodes that take `ref`'s node as an operand."""
        return [self.nodes[name] for name in self.users.get(node_of(ref), ())]

    def is_output(self, ref: str) -> bool:
        return node_of(ref) in self._output_nodes

    def used_elsewhere(self, root: Node, match: Match, kept: set[str]) -> str:
        """A sentence where a node inside the match is used outside of it too, and computing it twice is not free."""
        covered = {*match.nodes}
        for name in match.nodes:
            if name == root.name or name in kept or self.nodes[name].op in FREE:
                continue
            if name in self._output_nodes:
                return f"{name!r} inside it is an output of the graph, so its ops stay"
            outside = next((user for user in self.users.get(name, ()) if not self._is_inside(user, covered)), None)
            if outside is not None:
                return f"{name!r} inside it is also used by {outside!r}, so its ops stay"
        return ""

    def _is_inside(self, name: str, covered: set[str]) -> bool:
        """Whether the node is covered, or asks for the size of what is, on behalf of nodes that are."""
        if name in covered:
            return True
        only = self.nodes[name].op == "size" and name not in self._output_nodes
        return only and covered.issuperset(self.users.get(name, ()))

    # -- writing ------------------------------------------------------------------------------------------------------

    def rewrite(self, root: Node, op: str, *inputs: Any, **attrs: Any) -> None:
        """The node `root` computes `op` from now on; it keeps its name and its place."""
        before = self.nodes[root.name].inputs
        for ref in references(before):
            self._unuse(node_of(ref), root.name)
        node = self.nodes[root.name] = Node(root.name, op, inputs, attrs)
        self.bodies.pop(root.name, None)
        self._use(node)
        self._touched += [node_of(ref) for ref in references(before)]

    def before(self, root: Node, op: str, *inputs: Any, known: tuple[str | None, Any], **attrs: Any) -> str:
        """Writes a node in front of `root`, of which dtype and shape are `known`. Gives its name."""
        scope = root.name.rpartition(".")[0]
        wanted = f"{scope}.{op}" if scope else op
        name = numbered(wanted, lambda name: name in self.nodes or name in {spec.name for spec in self.inputs})
        node = Node(name, op, inputs, attrs)
        nodes = list(self.nodes.items())
        at = next(place for place, (other, _) in enumerate(nodes) if other == root.name)
        self.nodes = dict([*nodes[:at], (name, node), *nodes[at:]])
        self._use(node)
        self.known[name] = Value(name, *known)
        return name

    def then(self, root: Node, op: str, *, known: tuple[str | None, Any], **attrs: Any) -> None:
        """What `root` computes becomes a node in front of it, of which dtype and shape are `known`, and `root` is `op` of that."""
        now = self.nodes[root.name]
        moved = self.before(root, now.op, *now.inputs, known=known, **now.attrs)
        self.rewrite(now, op, moved, **attrs)

    def alias(self, root: Node, ref: Any) -> None:
        """Everything that used `root` uses `ref`, a reference or a literal, from now on."""
        new = {root.name: ref}
        for user in self.consumers(root.name):
            inputs = renamed(user.inputs, new)
            for old in references(user.inputs):
                self._unuse(node_of(old), user.name)
            self.nodes[user.name] = replace(user, inputs=inputs)
            self._use(self.nodes[user.name])
        self.outputs = {name: _rename(old, new) for name, old in self.outputs.items()}
        self._output_nodes = {node_of(old) for old in self.outputs.values()}
        self._touched.append(root.name)

    def module(self, root: Node, kind: str, name: str, args: Mapping[str, Any], *inputs: Any) -> None:
        """The node `root` calls the module `name` from now on."""
        spec = ModuleSpec(kind, dict(args))
        if self.modules.setdefault(name, spec) != spec:
            raise Refusal(f"the name {name!r} is taken by another module")
        self.rewrite(root, "module", *inputs, module=name)

    def layer(
        self,
        root: Node,
        kind: str,
        args: Mapping[str, Any],
        *inputs: Any,
        weights: Mapping[str, str],
        values: Mapping[str, Any] | None = None,
        called: str = "",
    ) -> None:
        """The node `root` calls a layer of type `kind`, which takes over `weights`: its own names -> weights or constants.

        The layer is called after its first weight, or `called`. Where a weight changes its layout its new value is in `values`; who else
        uses such a weight has to be looked at by the rewrite. Layers of equal weights and arguments are one module.
        """
        key = (kind, tuple(sorted(weights.items())), repr(sorted(args.items())))
        name = self.layers.get(key)
        if name is None:
            tensors = {part: self.tensor_name(ref) for part, ref in weights.items()}
            first = next(iter(tensors.values()))
            name = self.name(called or self._wanted(first, kind, tensors), tensors)
            for part, tensor in tensors.items():
                self._check_free(root, f"{name}.{part}", tensor, part in (values or {}))
            old = {tensor: self.store.pop(tensor) for tensor in set(tensors.values())}
            for part, tensor in tensors.items():
                value = (values or {}).get(part)
                self._take(name, part, tensor, weights[part], old[tensor] if value is None else value)
            for tensor in old:
                self.origins.pop(tensor, None)
            self.layers[key] = name
        self.module(root, kind, name, args, *inputs)

    def _wanted(self, first: str, kind: str, own: Mapping[str, str]) -> str:
        """The name for a layer whose first weight was `first`: its scope, or a place in that scope where others live there too."""
        scope, _, last = first.rpartition(".")
        word = _snake(kind) if last in ("weight", "bias", "w", "b") else last
        if not scope:
            return word
        layers = any(owner.startswith(f"{scope}.") for owner in self.owned.values())
        return f"{scope}.{word}" if layers or self._holds_others(scope, own) else scope

    def _check_free(self, root: Node, new: str, tensor: str, changes: bool) -> None:
        """Refuses a weight that a layer cannot have."""
        if tensor in self.owned:
            raise Refusal(f"its weight {tensor!r} already belongs to the layer {self.owned[tensor]!r}")
        inside = any(tensor in names for node, names in self.bodies.items() if node in self.nodes and node != root.name)
        if inside and (new != tensor or changes):
            raise Refusal(f"its weight {tensor!r} is also used inside a loop or a branch")

    def _take(self, name: str, part: str, tensor: str, ref: str, value: Any) -> None:
        """The module `name` owns a weight: it is called `<name>.<part>` from now on, wherever else it is used too."""
        new = f"{name}.{part}"
        self.store[new] = value
        self.owned[new], self.origins[new] = name, self.origins.get(tensor, tensor)
        node = self.nodes[node_of(ref)]
        self.nodes[node.name] = replace(node, attrs={**node.attrs, "tensor": new})

    def redirect(self, root: Node, refs: Mapping[str, str]) -> None:
        """Everything that used one of `root`'s results by the references in `refs` uses it by the others from now on."""
        for user in self.consumers(root.name):
            inputs = _exchanged(user.inputs, refs)
            self.nodes[user.name] = replace(user, inputs=inputs)
        self.outputs = {name: refs.get(ref, ref) for name, ref in self.outputs.items()}

    def learn(self, root: Node, specs: Mapping[str, tuple[str | None, tuple[Any, ...]]]) -> None:
        """The dtypes and shapes of `root`'s results, in place of what was known before it was a layer."""
        self.known = {ref: value for ref, value in self.known.items() if node_of(ref) != root.name}
        self.known |= {ref: Value(ref, *spec) for ref, spec in specs.items()}

    def settle(self, ref: str, shape: tuple[Any, ...]) -> None:
        """`shape` is that of `ref`, of which less was known: the same sizes get the same names, there and in what follows."""
        self._same(ref, shape)
        emitter = Emitter(())
        changed = {node_of(ref)}
        for name, node in self.nodes.items():
            if changed.isdisjoint(map(node_of, references(node.inputs))):
                continue
            changed.add(name)
            specs = emitter.infer(node, self.known)
            for i, (_, found) in enumerate(specs):
                self._same(f"{name}:{i}" if len(specs) > 1 else name, found)

    def _same(self, ref: str, shape: tuple[Any, ...] | None) -> None:
        """Sizes of `ref` that had names of their own are called as in `shape` everywhere."""
        old = self.shape(ref)
        if old is None or shape is None or len(old) != len(shape):
            return
        new = {a: b for a, b in zip(old, shape, strict=True) if isinstance(a, str) and b is not None and a != b}
        if not new:
            return
        for each, value in self.known.items():
            if value.shape is not None and not new.keys().isdisjoint(value.shape):
                self.known[each] = replace(value, shape=tuple(new.get(size, size) for size in value.shape))

    def know(self, root: Node, dtype: str | None, shape: tuple[Any, ...] | None) -> None:
        """The dtype and shape of `root`, where the rewrite knows more than was known of the ops."""
        old = self.known.get(root.name)
        if old is None or old.dtype is None or old.shape is None:
            self.known[root.name] = Value(root.name, dtype, shape)

    def scope(self, root: Node, otherwise: str, *parts: str, suffix: str = "") -> str:
        """A free name for a module without weights of its own: the layer whose scope `root` stands in.

        Inner scopes of TensorFlow's functions are left out, and so is the number of the call: `norm_1.truediv` is `norm`.
        `suffix` is for a second module of one layer.
        """
        scopes = str(root.attrs["module"]).split(".") if root.op == "module" else root.name.split(".")[:-1]
        scopes = _layer_scope(scopes)
        if not scopes:
            return self.name(otherwise, dict.fromkeys(parts, ""))
        wanted = ".".join([*scopes[:-1], re.sub(r"(?<=\w)_1$", "", scopes[-1])])
        if wanted in self.modules:
            wanted += suffix
        return self.name(wanted, dict.fromkeys(parts, ""))

    def name(self, wanted: str, own: Mapping[str, str]) -> str:
        """A name for a module that is free: neither a module nor a weight has it, and its parts are nobody else's either."""
        base = ".".join(identifier(part) for part in wanted.split("."))
        places = set(map(place, self.store))
        modules, others = set(map(place, self.modules)), set(map(place, self.store.keys() - set(own.values())))

        def clashes(name: str) -> bool:
            where = {place(f"{name}.{part}"): place(tensor) for part, tensor in own.items()}
            return (
                place(name) in modules | others
                or any(new in places and new != old for new, old in where.items())
                or self._holds_others(name, own)
            )

        name = spaced(base, lambda scope: place(scope) in others, clashes)
        self.wanted[name] = base
        return name

    def _holds_others(self, name: str, own: Mapping[str, str]) -> bool:
        """True where a weight that is not the layer's own would lie inside of it: a layer holds its own weights only."""
        weights = {str(node.attrs["tensor"]) for node in self.nodes.values() if node.op == "parameter"}
        return any(place(weight).startswith(f"{place(name)}.") for weight in weights - set(own.values()))

    def sweep(self) -> None:
        """Takes out the nodes that nothing uses any more, from the old operands of what was rewritten last upwards."""
        pending, self._touched = self._touched, []
        while pending:
            name = pending.pop()
            node = self.nodes.get(name)
            if node is None or self.users.get(name) or name in self._output_nodes or node.op in EFFECTS:
                continue
            del self.nodes[name]
            for ref in references(node.inputs):
                self._unuse(node_of(ref), name)
                pending.append(node_of(ref))

    def _use(self, node: Node) -> None:
        for ref in references(node.inputs):
            self.users.setdefault(node_of(ref), Counter())[node.name] += 1

    def _unuse(self, name: str, user: str) -> None:
        users = self.users.get(name, Counter[str]())
        users[user] -= 1
        if users[user] <= 0:
            del users[user]

    def give_back_names(self) -> None:
        """Modules without weights get the names that they wanted, where those have become free since."""
        used = {str(node.attrs["module"]) for node in self.nodes.values() if node.op == "module"}
        taken = used | set(self.store)
        for name in sorted(used):
            base, spec = self.wanted.get(name, name), self.modules[name]
            if base == name or base in taken or _has_weights(spec):
                continue
            taken.add(base)
            self.modules[base] = self.modules.pop(name)
            for node in list(self.nodes.values()):
                if node.op == "module" and node.attrs["module"] == name:
                    self.nodes[node.name] = replace(node, attrs={"module": base})
            for tensor in tensors_of(name, spec):
                if tensor.startswith(f"{name}.") and base + tensor[len(name) :] not in self.store:
                    self._rename_argument(tensor, base + tensor[len(name) :])

    def _rename_argument(self, old: str, new: str) -> None:
        """A vocabulary under another name, for all modules that have it."""
        self.store[new] = self.store[old]
        for name, spec in self.modules.items():
            if old in tensors_of(name, spec):
                args = {key: new if value == old else value for key, value in spec.args.items()}
                self.modules[name] = ModuleSpec(spec.type, args)

    def graph(self) -> Graph:
        used = {str(node.attrs["module"]) for node in self.nodes.values() if node.op == "module"}
        modules = {name: spec for name, spec in sorted(self.modules.items()) if name in used}
        return Graph(self.inputs, tuple(self.nodes.values()), self.outputs, modules)
