"""Ports one tower: an entry of a SavedModel to a preprocessor, an encoder and, if strings come last, a
postprocessor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import prod
from typing import Any

from torch import Tensor

from porting import converters as _converters  # noqa: F401  (fills CONVERTERS)
from porting import rewrites as _rewrites  # noqa: F401  (fills REWRITES)
from porting.budget import Budget, within
from porting.conversion import batch
from porting.conversion.convert import Context, ConvertingEmitter, convert
from porting.conversion.values import Value
from porting.errors import DrawsError, PortingError, naming
from porting.flat_graph import dropout, effects
from porting.flat_graph import subgraph as cutting
from porting.flat_graph.components import components_of
from porting.flat_graph.effects import Functions
from porting.flat_graph.flatten import flatten_whole
from porting.flat_graph.subgraph import Cut
from porting.frontends import retrieval
from porting.frontends.documents import Schema, described, front
from porting.frontends.retrieval import Retrieval
from porting.lifting.lift import lift
from porting.names import identifier
from porting.padding.proof import without_padding
from porting.samples import samples
from porting.saved_model import SavedModel
from porting.saved_model.names import Names
from porting.served import Served
from porting.split import SOURCES, Parts, split
from torch_towers.formats.npz import as_stored
from torch_towers.graph.dtypes import FLOATS, ROW_DTYPES
from torch_towers.graph.graph import BATCH, Graph, Size, TensorSpec, node_of
from torch_towers.graph.spec import TowerSpec
from torch_towers.ops.control_flow import at_most_steps
from torch_towers.program.program import modules, stored_names, walk
from torch_towers.tower import Tower


@dataclass
class PortedTower:
    """A tower, the flat TF graph that it comes from, and notes of the port."""

    model: SavedModel
    entry: str
    tf_graph: Graph
    spec: TowerSpec
    store: dict[str, Any]
    frozen: frozenset[str]
    variables: frozenset[str]  # keys of the variables that the tower uses
    unit_norm: bool  # the embedding is normalized
    lifted: Counter[str] = field(default_factory=Counter[str])
    remaining: Counter[str] = field(default_factory=Counter[str])  # ops that are not part of a layer
    refusals: tuple[str, ...] = ()
    cut: Cut = field(default_factory=Cut)  # where the entry's graph was cut
    cuts: tuple[str, ...] = ()  # descriptions of what was cut off at the front
    notes: tuple[str, ...] = ()  # descriptions of other omissions and changes
    retrieval: Retrieval | None = None  # the index that the tower comes from
    entry_outputs: tuple[str, ...] = ()  # of the whole entry, in order
    inside: int = 0  # elements per row of the largest value
    ids: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # a bit-exact value of preprocess -> the TF node that it equals
    served: Served = field(default_factory=Served)
    without_lifts: Callable[[], PortedTower] | None = None  # ports again without lifting; None if nothing was lifted

    @property
    def no_nan(self) -> int:
        """The number of relus that map NaN to 0, like oneDNN's."""
        return sum(bool(node.attrs.get("no_nan")) for node in walk(self.spec.encoder))

    @property
    def layer_share(self) -> float:
        """The share of its float parameters that belong to layers; 1.0 if it has none."""
        graphs = [
            graph for graph in (self.spec.preprocess, self.spec.encoder, self.spec.postprocess) if graph is not None
        ]
        layers = {name for graph in graphs for item in modules(graph).items() for name in stored_names(*item)}
        used = layers | {
            str(node.attrs["tensor"]) for graph in graphs for node in walk(graph) if node.op == "parameter"
        }
        sizes = {
            name: value.numel()
            for name in used
            if isinstance(value := self.store[name], Tensor) and value.is_floating_point()
        }
        return (
            sum(size for name, size in sizes.items() if name in layers) / (sum(sizes.values()) or 1) if sizes else 1.0
        )

    def tower(self) -> Tower:
        """The executable tower."""
        return Tower(self.spec, self.store, frozen=self.frozen)


def port_tower(
    model: SavedModel,
    entry: str | None = None,
    *,
    embedding: str | None = None,
    lifts: bool = True,
    cut_behind: str | None = None,
    schema: Schema | None = None,
    split_index: bool = False,
    without_dropout: bool = False,
    served: Served | None = None,
    budget: Budget | None = None,
) -> PortedTower:
    """Ports `entry` (a signature or a restored function; None: the default one) of `model`.

    `embedding` names the output that is the embedding. `lifts` False keeps the graph op by op. `cut_behind` names an op
    (or node) whose results become the inputs; by default a private op at the front is cut off; `schema` names the
    features after it. `split_index` ports only the query tower of a retrieval index, with the index beside it.
    `without_dropout` removes dropout that was left on. `served` says how TensorFlow runs the graph (None: optimized,
    with oneDNN, as pip installs it). `budget` limits the port (None: by the size of the file). Errors: `PortingError`.
    """
    limits = budget or Budget.of(model.weight())

    def port(lifts: bool, limits: Budget) -> PortedTower:
        with naming(model.path, "ported"), within(limits), at_most_steps(limits.steps):
            return _ported(model, entry, embedding, lifts, cut_behind, schema, split_index, without_dropout, served)

    ported = port(lifts, limits)
    ported.without_lifts = partial(port, False, limits.fresh()) if ported.lifted else None
    return ported


def _ported(
    model: SavedModel, entry: str | None, embedding: str | None, lifts: bool, cut_behind: str | None, schema: Schema | None,
    split_index: bool, without_dropout: bool, served: Served | None,
) -> PortedTower:  # fmt: skip
    entry = entry or model.default_entry()
    whole, dropped = flatten_whole(model.graph(entry), model.functions)
    left_on = _dropouts(whole, model.functions)
    cut = replace(front(whole, cut_behind, schema), without_dropout=without_dropout and bool(left_on))
    tf_graph = cutting.apply(whole, cut, model.functions)
    notes = effects.described(dropped)
    if cut.without_dropout:
        notes.append(
            f"dropout off: {dropout.described(left_on)} is left out, as an export with training=False has it; TensorFlow is "
            "compared after the same change"
        )
    index = retrieval.find(tf_graph, model) if split_index else None
    if index is not None:
        cut = replace(cut, fetches=index.cut().fetches)
        before, tf_graph = tf_graph, cutting.apply(tf_graph, index.cut(), model.functions)
        notes += _left_out_inputs(before, tf_graph)
    else:
        tf_graph = retrieval.runnable(tf_graph, model)
    _check_inputs(tf_graph)
    served = served or Served()
    context = Context(model, served, model.captured(entry))
    if cut.without_dropout:
        context.functions = dropout.Off(model.functions)
    graph, emitter = _converted(tf_graph, context)
    converted = graph
    lifted = lift(graph, context.store, emitter.known) if lifts else None
    store, known = (lifted.store, lifted.known) if lifted else (context.store, emitter.known)
    store = dict(store)
    defaults = _defaults(model, entry, tf_graph, store)
    graph = lifted.graph if lifted else graph
    parts = split(graph, known)
    spec = _spec(model, entry, tf_graph, parts, graph, known, embedding, defaults)
    domain = cache(lambda: _domain_samples(tf_graph, model))  # made once, and only if asked for
    spec = _with_rows(spec, tf_graph, converted, emitter, store, domain)
    spec, padded, padding_refused = without_padding(spec, store, known, domain) if lifts else (spec, [], ())
    notes += padded
    held = {name for key, name in context.weights.items() if not model.variables[key].trainable}
    held |= lifted.frozen if lifted else frozenset()
    origins = lifted.origins if lifted else {}
    frozen = {name for name in store if origins.get(name, name) in held}
    return PortedTower(
        model, entry, tf_graph, spec, store, frozenset(frozen | set(defaults.values())), frozenset(context.weights),
        unit_norm=_ends_in_unit_norm(graph, spec.embedding),
        lifted=Counter(lifted.counts) if lifted else Counter(),
        remaining=Counter(node.op for node in walk(graph) if node.op not in SOURCES and node.op != "module"),
        refusals=(*(lifted.refusals if lifted else ()), *padding_refused),
        cut=cut, cuts=tuple(described(whole, cut)), notes=tuple(notes), retrieval=index, entry_outputs=tuple(whole.outputs),
        inside=_largest(emitter.known.values()),
        ids=_ids(parts, known, emitter.results, lifted.names if lifted else {}), served=served,
    )  # fmt: skip


def _dropouts(graph: Graph, functions: Functions) -> list[dropout.Dropout]:
    """The dropouts of a flat graph and of its branches and loops."""
    return [*dropout.find(graph), *(item for items in dropout.bodies(graph, functions).values() for item in items)]


def _converted(graph: Graph, context: Context) -> tuple[Graph, ConvertingEmitter]:
    """The graph in torch ops. If its random draws are dropout's, the error says so, since there is a remedy."""
    try:
        return convert(graph, context)
    except DrawsError as error:
        left_on = _dropouts(graph, context.functions)
        if not left_on:
            raise
        raise PortingError(
            f"dropout is left on at {dropout.described(left_on)}, so two runs of TensorFlow differ: --dropout off ports the tower "
            "without it, as it should have been exported (with training=False)"
        ) from error


def _check_inputs(graph: Graph) -> None:
    """Refuses a graph with an input that no rows can be."""
    for spec in graph.inputs:
        if spec.dtype not in ROW_DTYPES:
            raise PortingError(
                f"the input {spec.name!r} is of the dtype {spec.dtype!r}, and rows are numbers or strings: port another "
                "signature, or cut the input off (--cut)"
            )


def _left_out_inputs(whole: Graph, tower: Graph) -> list[str]:
    """Describes the inputs of an index that its query tower does not take."""
    kept = {spec.name for spec in tower.inputs}
    left = [repr(spec.name) for spec in whole.inputs if spec.name not in kept]
    said = "of the index, not of its query tower: they are given to `index.search(queries, k, exclude)`, or --whole keeps them"
    return [f"left out the input{'s' if len(left) > 1 else ''} {', '.join(left)} {said}"] if left else []


def _largest(values: Iterable[Value]) -> int:
    """The elements per row of the largest of `values`: dynamic sizes count as 1, and rows of weights do not count."""
    shapes = [value.shape for value in values if value.shape and not all(isinstance(size, int) for size in value.shape)]
    counts = [prod(size for size in shape if isinstance(size, int)) for shape in shapes]
    return max(counts, default=0)


def _ids(
    parts: Parts, known: Mapping[str, Value], results: Mapping[str, Any], renamed: Mapping[str, str]
) -> dict[str, str]:
    """The ids, masks and strings that `preprocess` computes, each with the TensorFlow node that it equals."""
    nodes: dict[str, str] = {}
    given = set(renamed.values())
    for name, value in results.items():
        node, colon, index = value.ref.partition(":") if type(value) is Value else ("", "", "")
        if node in renamed or (node and node not in given):  # otherwise: a removed node whose name was reused
            nodes.setdefault(renamed.get(node, node) + colon + index, name)
    taken = {spec.name for spec in parts.preprocess.inputs}
    return {
        name: nodes[ref]
        for name, ref in parts.crossing.items()
        if name in parts.preprocess.outputs and ref not in taken and ref in nodes and known[ref].dtype in _EXACT
    }


_EXACT = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "string"})


def _spec(
    model: SavedModel,
    entry: str,
    tf_graph: Graph,
    parts: Parts,
    graph: Graph,
    known: Mapping[str, Value],
    embedding: str | None,
    defaults: Mapping[str, str],
) -> TowerSpec:
    signature = model.signatures.get(entry)
    said = signature.outputs if signature is not None else {}
    outputs = tuple(_output_spec(name, graph.outputs[name], known, said.get(name)) for name in graph.outputs)
    if embedding is not None and embedding not in graph.outputs:
        raise PortingError(
            f"{model.path}: no output {embedding!r} in {entry!r}; its outputs are {', '.join(graph.outputs)}"
        )
    return TowerSpec(
        preprocess=parts.preprocess, encoder=parts.encoder, postprocess=parts.postprocess,
        inputs=tf_graph.inputs, outputs=outputs, embedding=embedding or _embedding(outputs),
        defaults=defaults,
    )  # fmt: skip


def _defaults(model: SavedModel, entry: str, graph: Graph, store: dict[str, Any]) -> dict[str, str]:
    """Puts the default values of optional inputs into the store and returns their names there."""
    signature = model.signatures.get(entry)
    if signature is None:
        return {}
    names = Names(store)
    found: dict[str, str] = {}
    for spec in graph.inputs:
        if spec.name in signature.defaults:
            value = signature.defaults[spec.name]
            found[spec.name] = names.unique(f"default.{identifier(spec.name)}")
            store[found[spec.name]] = as_stored(value)
    return found


Domain = Callable[[], Sequence[Mapping[str, Any]]]
"""Makes in-domain samples."""


def _with_rows(
    spec: TowerSpec, tf_graph: Graph, graph: Graph, emitter: ConvertingEmitter, store: dict[str, Any], domain: Domain
) -> TowerSpec:
    """`spec` with named batch dimensions for inputs and outputs: see `porting.conversion.batch`."""
    known, equal = emitter.known, batch.Equal(emitter.equal_rows)
    first = [spec.embedding, *graph.outputs] if spec.embedding else list(graph.outputs)
    given = {name: known[graph.outputs[name]] for name in first if graph.outputs[name] in known}
    firsts = {name: value.shape[0] for name, value in given.items() if value.shape}
    rows, common = batch.symbols(tf_graph.inputs, components_of(tf_graph), firsts, known, equal)
    alone = replace(spec, inputs=batch.named(tf_graph.inputs, rows, common))
    rows, common = batch.tried(rows, common, lambda: Tower(alone, store), domain)
    outputs = spec.outputs if common or not rows else tuple(map(_without_rows, spec.outputs))
    return replace(spec, inputs=batch.named(tf_graph.inputs, rows, common), outputs=outputs)


def _domain_samples(graph: Graph, model: SavedModel) -> list[Mapping[str, Any]]:
    return [sample.inputs for sample in samples.batches(graph, model) if sample.kind == "domain"]


def _without_rows(spec: TensorSpec) -> TensorSpec:
    """An output of a tower that has no batch."""
    return replace(spec, shape=(None, *spec.shape[1:])) if spec.shape and spec.shape[0] == BATCH else spec


def _output_spec(name: str, ref: str, known: Mapping[str, Value], said: TensorSpec | None) -> TensorSpec:
    """The inferred spec of an output; if its shape is unknown, that of the signature."""
    value = known.get(ref)
    if value is None:
        return TensorSpec(name, "string", None)
    shape: tuple[Size, ...] | None = value.shape
    if shape is None and said is not None:
        shape = said.shape
    if shape is not None:
        shape = tuple(_free(size, i) for i, size in enumerate(shape))
    return TensorSpec(name, value.dtype or "float32", shape)


def _free(size: Size, axis: int) -> Size:
    if isinstance(size, int):
        return size
    return BATCH if axis == 0 else None


def _embedding(outputs: Sequence[TensorSpec]) -> str | None:
    """The only output, or the only float output of rank 2, if any."""
    if len(outputs) == 1:
        return outputs[0].name
    found = [spec.name for spec in outputs if spec.dtype in FLOATS and spec.shape is not None and len(spec.shape) == 2]
    return found[0] if len(found) == 1 else None


def _ends_in_unit_norm(graph: Graph, embedding: str | None) -> bool:
    if embedding is None:
        return False
    nodes = {node.name: node for node in graph.nodes}
    node = nodes.get(node_of(graph.outputs[embedding]))
    while node is not None and node.op == "identity":
        node = nodes.get(node_of(node.inputs[0]))
    if node is None or node.op != "module":
        return False
    return graph.modules[str(node.attrs["module"])].type == "L2Normalize"
