"""Lookup tables of every kind against TensorFlow: saved as a SavedModel, read without TensorFlow, bit-exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.conversion.convert import Context, convert
from porting.errors import PortingError
from porting.flat_graph.flatten import flatten
from porting.saved_model import read
from tests.witness import as_array, assert_equal, run, tf, to_numpy
from torch_towers.errors import InputError
from torch_towers.program.program import Program

COVERED = {
    "HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2", "MutableHashTableOfTensors", "MutableHashTableOfTensorsV2",
    "MutableDenseHashTableV2", "AnonymousHashTable", "AnonymousMutableHashTable",
    "AnonymousMutableHashTableOfTensors", "AnonymousMutableDenseHashTable",
    "LookupTableFind", "LookupTableFindV2", "LookupTableSize", "LookupTableSizeV2", "LookupTableExport", "LookupTableExportV2",
}  # fmt: skip


def check_table(tmp_path: Path, make: Callable[[], Any], function: Callable[..., Any], *batches: Any) -> Program:
    """Saves `function(table, x)` as a SavedModel, ports it, and compares the answers. Gives the port."""
    module = tf.Module()
    module.table = make()
    first = as_array(batches[0])
    spec = tf.TensorSpec([None, *first.shape[1:]], tf.string if first.dtype == object else first.dtype, "x")
    module.serve = tf.function(lambda x: {"y": function(module.table, x)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    model = read(tmp_path)
    context = Context(model)
    graph, _ = convert(flatten(model.graph("serving_default"), model.functions), context)
    program = Program(graph, context.store)
    for batch in map(as_array, batches):
        expected = to_numpy(module.serve(tf.constant(batch))["y"])
        assert_equal(run(program, {"x": batch})["y"], expected)
    return program


WORDS = as_array(["a", "b", "", "日本", b"\xff", b"a\0"])
QUERY = as_array([["a", "zz", b"\xff"], ["", b"a\0", "b"]])


def static(keys: Any, values: Any, default: Any) -> Callable[[], Any]:
    return lambda: tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values)), default
    )


@pytest.mark.parametrize(
    ("keys", "values", "default", "query"),
    [
        (WORDS, np.arange(6), -1, QUERY),
        (np.array([5, -3, 2**40]), np.array([1, 2, 3]), 7, np.array([[5, 6], [-3, 2**40]])),
        (np.array([0, 1, 2]), as_array(["x", "", b"\xff"]), b"[UNK]", np.array([2, 9, 0])),
        (WORDS, np.float32([0.5, -0.0, 1, np.nan, np.inf, 3]), -1.5, QUERY),
        (WORDS, WORDS[::-1], "?", QUERY),
        (np.int32([1, 2]), np.int32([3, 4]), -1, np.int32([2, 5])),
        (WORDS, np.array([True, False] * 3), True, QUERY),
    ],
    ids=lambda value: getattr(value, "dtype", ""),
)  # fmt: skip
def test_static_tables(tmp_path: Path, keys: Any, values: Any, default: Any, query: Any) -> None:
    check_table(
        tmp_path,
        static(keys, values, default),
        lambda table, x: table.lookup(x),
        query,
        query[:0],
        np.concatenate([query] * 3),
    )


def test_out_of_vocabulary_buckets(tmp_path: Path) -> None:
    def make() -> Any:
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.range(6, dtype=tf.int64))
        return tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=5)

    words = as_array([f"word {i}" for i in range(50)] + WORDS.tolist())
    check_table(tmp_path, make, lambda table, x: table.lookup(x), words)


def test_vocabulary_file(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.txt"
    file.write_bytes(b"the\nof\n\xc3\xa9t\xc3\xa9\n")

    def make() -> Any:
        return tf.lookup.StaticHashTable(tf.lookup.TextFileInitializer(str(file), tf.string, 0, tf.int64, -1), -1)

    check_table(tmp_path / "model", make, lambda table, x: table.lookup(x), as_array(["of", "été", "The", "the"]))


def test_size_and_export(tmp_path: Path) -> None:
    def use(table: Any, x: Any) -> Any:
        return table.lookup(x) + table.size()

    check_table(tmp_path, static(WORDS, np.arange(6), -1), use, QUERY)


def test_one_table_found_twice_is_one_module(tmp_path: Path) -> None:
    program = check_table(
        tmp_path, static(WORDS, np.arange(6), -1), lambda table, x: table.lookup(x) * 10 + table.lookup(x + "a"), QUERY
    )
    assert [spec.type for spec in program.graph.modules.values()] == ["LookupTable"]


def test_default_computed_at_run_time(tmp_path: Path) -> None:
    def use(table: Any, x: Any) -> Any:
        return tf.raw_ops.LookupTableFindV2(
            table_handle=table.resource_handle, keys=x, default_value=tf.size(x, tf.int64)
        )

    check_table(tmp_path, static(WORDS, np.arange(6), -1), use, QUERY, QUERY[:1])


def filled(kind: str, **arguments: Any) -> Callable[[], Any]:
    """A table of `tf.lookup.experimental` with two keys in it."""

    def make() -> Any:
        table = getattr(tf.lookup.experimental, kind)(**arguments)
        values = tf.zeros([2, *np.shape(arguments["default_value"])], arguments["value_dtype"]) + 3
        table.insert(
            tf.cast(["a", "b"] if arguments["key_dtype"] == tf.string else [4, 5], arguments["key_dtype"]), values
        )
        return table

    return make


DENSE = {"empty_key": -10, "deleted_key": -11}


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    ("kind", "key", "value", "default", "more"),
    [
        ("MutableHashTable", "string", "int64", -1, {}),
        ("MutableHashTable", "int64", "float32", [0.5, -1.0], {}),
        ("DenseHashTable", "int64", "float32", -1.0, DENSE),
        ("DenseHashTable", "int64", "int64", [7, 8, 9], DENSE),
    ],
)
def test_mutable_tables(
    tmp_path: Path, kind: str, key: str, value: str, default: Any, more: Any, anonymous: bool
) -> None:
    make = filled(
        kind,
        key_dtype=tf.as_dtype(key),
        value_dtype=tf.as_dtype(value),
        default_value=default,
        experimental_is_anonymous=anonymous,
        **more,
    )
    query = as_array(["a", "c", "b"]) if key == "string" else np.array([4, 6, 5])
    check_table(tmp_path, make, lambda table, x: table.lookup(x), query, query[:0])


@pytest.mark.parametrize(("key", "empty", "deleted"), [("string", "", "\0"), ("int64", -1, -2)])
def test_dense_tables_refuse_the_keys_of_unused_buckets(tmp_path: Path, key: str, empty: Any, deleted: Any) -> None:
    special = {"empty_key": empty, "deleted_key": deleted}
    make = filled("DenseHashTable", key_dtype=tf.as_dtype(key), value_dtype=tf.int64, default_value=-1, **special)
    query = as_array(["a", "c"]) if key == "string" else np.array([4, 6])
    program = check_table(tmp_path, make, lambda table, x: table.lookup(x), query, query[:0])
    for name, value in (("empty_key", empty), ("deleted_key", deleted)):
        wrong = query.copy()
        wrong[1] = value.encode() if isinstance(value, str) else value
        said = f"Using the {name} as a table key is not allowed"
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            make().lookup(tf.constant(wrong))
        with pytest.raises(InputError, match=said):
            run(program, {"x": wrong})


def test_anonymous_static_table(tmp_path: Path) -> None:
    def make() -> Any:
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(WORDS), tf.range(6, dtype=tf.int64))
        return tf.lookup.StaticHashTable(initializer, -1, experimental_is_anonymous=True)

    check_table(tmp_path, make, lambda table, x: table.lookup(x), QUERY)


@pytest.mark.parametrize("version", ["", "V2"])
@pytest.mark.parametrize("kind", ["HashTable", "MutableHashTable", "MutableHashTableOfTensors"])
def test_tables_of_graphs_with_sessions(tmp_path: Path, kind: str, version: str) -> None:
    """As TensorFlow 1 writes them: found, counted and listed by ops of either version."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        more: dict[str, Any] = {"key_dtype": tf.int64}
        if kind == "MutableHashTableOfTensors":
            more["value_shape"] = [2]
        default = [-1.0, 9.0] if "value_shape" in more else -1.0
        raw = tf.raw_ops
        table = getattr(raw, kind + version)(value_dtype=tf.float32, shared_name="table", **more)
        keys, values = (
            tf.constant([3, 1], tf.int64),
            tf.constant([[0.5, 1.0], [1.5, 2.0]] if "value_shape" in more else [0.5, 1.5]),
        )
        if kind == "HashTable":
            fill = getattr(raw, f"InitializeTable{version}")(table_handle=table, keys=keys, values=values)
        else:
            fill = getattr(raw, f"LookupTableImport{version}")(table_handle=table, keys=keys, values=values)
        x = v1.placeholder(tf.int64, [None], name="x")
        find = getattr(raw, f"LookupTableFind{version}")(table_handle=table, keys=x, default_value=default)
        size = getattr(raw, f"LookupTableSize{version}")(table_handle=table)
        listed = getattr(raw, f"LookupTableExport{version}")(table_handle=table, Tkeys=tf.int64, Tvalues=tf.float32)
        # The order of an export is TensorFlow's hash table's own: sums do not depend on it.
        outputs = {
            "found": find,
            "size": size,
            "keys": tf.reduce_sum(listed.keys),
            "values": tf.reduce_sum(listed.values),
        }
        session.run(fill)
        query = np.array([1, 2, 3])
        expected = session.run(outputs, {x: query})
        builder = v1.saved_model.Builder(str(tmp_path))
        signature = v1.saved_model.predict_signature_def({"x": x}, outputs)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=fill)
        builder.save()
    model = read(tmp_path)
    context = Context(model)
    graph, _ = convert(flatten(model.graph("serving_default"), model.functions), context)
    found = run(Program(graph, context.store), {"x": query})
    for name, value in expected.items():
        assert_equal(found[name], np.asarray(value), what=name)


def test_default_for_each_key(tmp_path: Path) -> None:
    """A mutable table takes one, a static table only its first element."""

    def use(table: Any, x: Any) -> Any:
        defaults = tf.range(10, 10 + tf.size(x, tf.int64))
        return tf.raw_ops.LookupTableFindV2(table_handle=table.resource_handle, keys=x, default_value=defaults)

    make = filled("MutableHashTable", key_dtype=tf.string, value_dtype=tf.int64, default_value=-1)
    check_table(tmp_path / "mutable", make, use, WORDS)
    with pytest.raises(PortingError, match="a static table takes one default for all keys"):
        check_table(tmp_path / "static", static(WORDS, np.arange(6), -1), use, WORDS)


def test_tensorflow_refuses_keys_values_and_reads_of_another_dtype() -> None:
    """As the port does at once: tests/budgets/test_models.py."""
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], tf.int64)), -1)
    for keys, default in (
        (tf.constant([1], tf.int64), tf.constant(-1, tf.int64)),
        (tf.constant(["a"]), tf.constant(-1.0)),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Signature mismatch"):
            tf.raw_ops.LookupTableFindV2(table_handle=table.resource_handle, keys=keys, default_value=default)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Trying to read variable with wrong dtype"):
        tf.raw_ops.ReadVariableOp(resource=tf.Variable([1.0]).handle, dtype=tf.int32)
