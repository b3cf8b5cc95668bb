"""TensorFlow's process: the only file that imports tensorflow. `porting.parity.oracle` starts and queries it.

It reads one JSON request per line and writes one JSON answer per line; arrays are in files named by the request.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import op_def_library, op_def_registry
from tensorflow.python.saved_model import loader_impl

from porting.flat_graph import dropout
from porting.flat_graph import subgraph as cutting
from porting.flat_graph.flatten import flatten
from porting.flat_graph.subgraph import Cut
from porting.parity.oracle import Arrays, of_batch
from porting.saved_model import FunctionRef, SavedModel, read
from torch_towers.formats.byte_strings import string
from torch_towers.formats.npz import load_arrays, save_arrays
from torch_towers.graph.graph import Graph, Node, TensorSpec

try:
    import resource
except ImportError:  # there is none on Windows
    resource = None

with contextlib.suppress(ImportError):
    import tensorflow_text  # noqa: F401  (registers its ops)


def serve() -> None:
    """Answers requests until standard input ends, within the memory of the first argument, in bytes; 0 is no limit."""
    if (memory := int(sys.argv[1])) and resource is not None:
        with contextlib.suppress(ValueError, OSError):  # a stricter limit of the user's stays
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps TensorFlow's prints out of the answers
    runners: dict[tuple[Any, ...], Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, runners)
        except Exception as error:
            answer = {"error": _sentence(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], runners: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    what = json.dumps([request.get(key) for key in ("runs", "feeds", "fetches", "without_dropout", "openings")])
    key = (request["model"], tuple(request["tags"]), request["entry"], what)
    if key not in runners:
        runner = {"part": _part_runner, "nodes": _node_runner}.get(request.get("runs", ""))
        runners[key] = _runner(*key[:3]) if runner is None else runner(*key[:3], _cut(request))
    arrays = load_arrays(Path(request["inputs"]))
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    errors: list[str | None] = []
    for i in range(request["count"]):
        try:
            result = runners[key](of_batch(arrays, i))
            outputs.update({f"{i}|{name}": value for name, value in result.items()})
            errors.append(None)
        except Exception as error:
            errors.append(_sentence(error))
    save_arrays(Path(request["outputs"]), outputs)
    return {"errors": errors, "version": tf.__version__}


def _cut(request: dict[str, Any]) -> Cut:
    feeds = {ref: TensorSpec(name, dtype, None) for ref, (name, dtype) in request["feeds"].items()}
    openings = tuple((name, number) for name, number in request["openings"])
    return Cut(feeds, request["fetches"], request["without_dropout"], openings)


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "message", None) or error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):  # followed by a list of the nodes' source locations
        lines = [line for line in lines if not line.startswith(("Graph execution error", "Detected at node", "<stack"))]
    where = lines.pop(0) + ": " if len(lines) > 1 and lines[0].startswith("Node: ") else ""  # followed by the reason
    return f"{type(error).__name__}: {where}{lines[0] if lines else ''}"


def _runner(model: str, tags: tuple[str, ...], entry: str) -> Any:
    """A function from named arrays to named arrays: a signature, or a restored function."""
    (meta,) = (m for m in loader_impl.parse_saved_model(model).meta_graphs if set(m.meta_info_def.tags) == set(tags))
    if entry not in meta.signature_def:
        return _function_runner(model, tags, entry)
    signature = meta.signature_def[entry]
    plain = all(
        info.WhichOneof("encoding") == "name" for info in (*signature.inputs.values(), *signature.outputs.values())
    )
    if plain and meta.object_graph_def.nodes:
        return _signature_runner(model, tags, entry)
    return _session_runner(model, tags, signature)


def _signature_runner(model: str, tags: tuple[str, ...], entry: str) -> Any:
    """A TensorFlow 2 signature, as users call it."""
    loaded = tf.saved_model.load(model, tags=list(tags) or None)
    signature = loaded.signatures[entry]
    specs = signature.structured_input_signature[1]

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        assert loaded is not None  # the signature does not keep its captures alive
        results = signature(**{name: tf.constant(array, specs[name].dtype) for name, array in arrays.items()})
        return {name: _array(value.numpy()) for name, value in results.items()}

    return run


def _session_runner(model: str, tags: tuple[str, ...], signature: Any) -> Any:
    """A TensorFlow 1 signature, or one with sparse or ragged values, in a session, as TensorFlow Serving runs it."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1))
    with graph.as_default():
        tf.compat.v1.saved_model.load(session, list(tags), model)
        if not any(graph.get_collection(name) for name in ("saved_model_main_op", "legacy_init_op")):  # Hub modules
            session.run(graph.get_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS))
    feeds = {name: tensor for key, info in signature.inputs.items() for name, tensor in _tensors(key, info)}
    fetches = {name: tensor for key, info in signature.outputs.items() for name, tensor in _tensors(key, info)}

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        fed = {feeds[name]: array for name, array in arrays.items()}
        return {name: _array(value) for name, value in session.run(fetches, fed).items()}

    return run


def _tensors(key: str, info: Any) -> list[tuple[str, str]]:
    """The tensors of one signature entry, named as in `porting.saved_model`: itself, or its components."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        return [
            (f"{key}_indices", sparse.indices_tensor_name),
            (f"{key}_values", sparse.values_tensor_name),
            (f"{key}_dense_shape", sparse.dense_shape_tensor_name),
        ]
    if kind == "composite_tensor":
        return [(f"{key}_component_{i}", part.name) for i, part in enumerate(info.composite_tensor.components)]
    return [(key, info.name)]


def _function_runner(model: str, tags: tuple[str, ...], entry: str) -> Any:
    """A restored function by its dotted path and trace number: `query_model.__call__`, `tokenize#1`."""
    path, _, trace = entry.partition("#")
    function = loaded = tf.saved_model.load(model, tags=list(tags) or None)
    for part in path.split("."):
        function = getattr(function, part) if part != "__call__" else function.__call__
    concrete = function.concrete_functions[int(trace or 0)]
    specs = tf.nest.flatten(concrete.structured_input_signature, expand_composites=True)
    specs = [spec for spec in specs if isinstance(spec, tf.TensorSpec)]

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        assert loaded is not None  # the concrete function does not keep its captures alive
        tensors = [tf.constant(array, spec.dtype) for array, spec in zip(arrays.values(), specs, strict=True)]
        results = tf.nest.flatten(concrete._call_flat(tensors, concrete.captured_inputs), expand_composites=True)
        return {str(i): _array(value.numpy()) for i, value in enumerate(results)}

    return run


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, bytes):
        return string(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


# -- subgraphs, and op by op
# ----------------------------------------------------------------------------------------------


def _part_runner(path: str, tags: tuple[str, ...], entry: str, cut: Cut) -> Any:
    """A function from named inputs to a subgraph's outputs. It runs as one graph, so that TensorFlow optimizes it as it
    would when serving."""
    model, flat = _flat(path, tags, entry, cut)
    nodes = {node.name: node for node in flat.nodes}
    captured = model.captured(entry)
    outside = {  # captures of the function, as in a loaded signature
        node.name: _held(node, model)
        for node in flat.nodes
        if _is_held(node) and (node.op != "Const" or node.name in captured)
    }

    def part(*inputs: Any) -> dict[str, Any]:
        results: dict[str, list[Any]] = {spec.name: [x] for spec, x in zip(flat.inputs, inputs, strict=True)}
        results |= outside
        for node in flat.nodes:
            if node.name not in outside:
                results[node.name] = _written(node, [_result(ref, results, nodes) for ref in node.inputs], model)
        return {name: tf.identity(_result(ref, results, nodes)) for name, ref in flat.outputs.items()}

    specs = [tf.TensorSpec(cast(Any, spec.shape), spec.dtype) for spec in flat.inputs]
    function = tf.function(part, input_signature=specs, autograph=False)

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        found = function(*(tf.constant(arrays[spec.name], spec.dtype) for spec in flat.inputs))
        return {name: _array(value.numpy()) for name, value in found.items()}

    return run


def _written(node: Node, operands: list[Any], model: SavedModel) -> list[Any]:
    """The results of a node, added to the graph that is being traced."""
    if _is_held(node):
        return _held(node, model)
    definition: Any = op_def_registry.get(node.op)
    keywords: dict[str, Any] = {}
    inferred: set[str] = set()
    for arg in definition.input_arg:
        count = _length(arg, node)
        keywords[arg.name] = operands[:count] if arg.number_attr or arg.type_list_attr else operands[0]
        operands = operands[count:]
        inferred |= {arg.type_attr, arg.number_attr, arg.type_list_attr}
    for attr in definition.attr:
        if attr.name not in inferred:
            keywords[attr.name] = _by_name(_attr(attr, node))
    *_, operation, _ = op_def_library._apply_op_helper(node.op, **keywords)
    return list(operation.outputs)


def _by_name(value: Any) -> Any:
    """An attribute with functions replaced by their names, as the graph builder expects."""
    if isinstance(value, FunctionRef):
        return value.name
    return [_by_name(item) for item in value] if isinstance(value, list) else value  # type: ignore[reportUnknownVariableType]


def _flat(path: str, tags: tuple[str, ...], entry: str, cut: Cut) -> tuple[SavedModel, Graph]:
    """The flat graph of an entry, or a subgraph of it; registers its bodies with TensorFlow."""
    from porting import converters  # noqa: F401  here, since whole graphs need no torch; fills CONVERTERS: what has one only computes

    model = read(path, tags=list(tags) or None, verify=False)
    flat = cutting.apply(flatten(model.graph(entry), model.functions), cut, model.functions)
    prefix = f"op_by_op_{next(_PREFIXES)}_"
    _add_functions(path, model.tags, prefix, dropout.bodies(flat, model.functions) if cut.without_dropout else {})
    return model, replace(flat, nodes=tuple(replace(node, attrs=_prefixed(node.attrs, prefix)) for node in flat.nodes))


def _node_runner(path: str, tags: tuple[str, ...], entry: str, cut: Cut) -> Any:
    """A function from named inputs to the results of every node, each op run by its own kernel."""
    model, flat = _flat(path, tags, entry, cut)
    flat_nodes = {node.name: node for node in flat.nodes}

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        results: dict[str, list[Any]] = {
            spec.name: [tf.constant(arrays[spec.name], spec.dtype)] for spec in flat.inputs
        }
        shown: dict[str, np.ndarray[Any, Any]] = {}
        for node in flat.nodes:
            try:
                results[node.name] = _execute(node, [_result(ref, results, flat_nodes) for ref in node.inputs], model)
            except tf.errors.OpError:
                break
            for i, result in enumerate(results[node.name]):
                if result.dtype not in (tf.resource, tf.variant):
                    shown[f"{node.name}:{i}" if i else node.name] = _array(result.numpy())
        return shown

    return run


_PREFIXES = itertools.count()


def _add_functions(
    path: str, tags: tuple[str, ...], prefix: str, dropouts: Mapping[str, Sequence[dropout.Dropout]]
) -> None:
    """Registers the bodies of branches and loops with TensorFlow under unique names, since two SavedModels may share
    names.

    The `dropouts` of each are removed.
    """
    eager: Any = context.context()
    for meta_graph in loader_impl.parse_saved_model(path).meta_graphs:
        if set(meta_graph.meta_info_def.tags) != set(tags):
            continue
        library = meta_graph.graph_def.library.function
        known = {function.signature.name for function in library}
        for function in library:
            _without_dropouts(function, dropouts.get(function.signature.name, ()))
            if all(node.op in known or op_def_registry.get(node.op) for node in function.node_def):
                function.signature.name = prefix + function.signature.name
                for node in function.node_def:
                    node.op = prefix + node.op if node.op in known else node.op
                    for named in (named for value in node.attr.values() for named in _named(value)):
                        named.name = prefix + named.name if named.name in known else named.name
                eager.add_function_def(function)


def _without_dropouts(function: Any, dropouts: Sequence[dropout.Dropout]) -> None:
    kept = {item.node: item.kept for item in dropouts}

    def without(ref: str) -> str:
        while ref.partition(":")[0] in kept:
            ref = kept[ref.partition(":")[0]]
        return ref

    for node in function.node_def if kept else ():
        node.input[:] = [without(ref) for ref in node.input]
    for name in function.ret if kept else ():
        function.ret[name] = without(function.ret[name])


def _named(value: Any) -> list[Any]:
    """The functions in an attribute."""
    kind = value.WhichOneof("value")  # read first: accessing another kind for writing would replace the value
    return [value.func] if kind == "func" else list(value.list.func) if kind == "list" else []


def _prefixed(attrs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name: replace(value, name=prefix + value.name) if isinstance(value, FunctionRef) else value
        for name, value in attrs.items()
    }


def _result(ref: str, results: Mapping[str, list[Any]], nodes: Mapping[str, Node]) -> Any:
    name, _, rest = ref.partition(":")
    argument, _, index = rest.rpartition(":")
    offset = _offset(nodes[name], argument) if argument and name in nodes else 0
    return results[name][offset + int(index or 0)]


def _offset(node: Node, argument: str) -> int:
    """The number of results before those of the output argument `argument`."""
    before = 0
    definition: Any = op_def_registry.get(node.op)
    for arg in definition.output_arg:
        if arg.name == argument:
            break
        before += _length(arg, node)
    return before


def _length(arg: Any, node: Node) -> int:
    if arg.type_list_attr:
        return len(node.attrs[arg.type_list_attr])
    return int(node.attrs[arg.number_attr]) if arg.number_attr else 1


def _is_held(node: Node) -> bool:
    """Whether a node returns state of the model: a variable, a table, a constant."""
    return node.op == "Const" or "variable" in node.attrs or "table" in node.attrs


def _held(node: Node, model: SavedModel) -> list[Any]:
    if "variable" in node.attrs:
        value = tf.constant(model.variables[node.attrs["variable"]].numpy())
        if node.op != "VarHandleOp":
            return [value]
        variable = tf.Variable(value)
        _KEPT.append(variable)
        return [variable.handle]
    if "table" in node.attrs:
        return [_table(model, node.attrs["table"])]
    return [tf.constant(node.attrs["value"])]


def _execute(node: Node, operands: list[Any], model: SavedModel) -> list[Any]:
    if _is_held(node):
        return _held(node, model)
    definition: Any = op_def_registry.get(node.op)
    attrs = [item for attr in definition.attr for item in (attr.name, _attr(attr, node))]
    count = sum(_length(arg, node) for arg in definition.output_arg)
    results = execute.quick_execute(node.op, count, operands, tuple(attrs), context.context())
    return list(results or [])


_KEPT: list[Any] = []  # keeps variables and tables alive as long as the process


def _table(model: SavedModel, key: str) -> Any:
    table = model.tables[key]
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(table.keys), tf.constant(table.values))
    default = "" if initializer.value_dtype == tf.string else -1
    _KEPT.append(tf.lookup.StaticHashTable(initializer, default))
    return _KEPT[-1].resource_handle


def _attr(attr: Any, node: Node) -> Any:
    """An attribute for TensorFlow's eager runtime; the op's default if the node has none."""
    if attr.name not in node.attrs:
        return _default(attr)
    value = node.attrs[attr.name]
    if attr.type == "type":
        return tf.as_dtype(value).as_datatype_enum
    if attr.type == "list(type)":
        return [tf.as_dtype(item).as_datatype_enum for item in value]
    if isinstance(value, FunctionRef):
        return value
    return list(value) if isinstance(value, tuple) else value


def _default(attr: Any) -> Any:
    value = attr.default_value
    kind = value.WhichOneof("value")
    if kind == "list":
        return [
            item
            for items in (value.list.s, value.list.i, value.list.f, value.list.b, value.list.type)
            for item in items
        ]
    return getattr(value, kind) if kind else None


if __name__ == "__main__":
    serve()
