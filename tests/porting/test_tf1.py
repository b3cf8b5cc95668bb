"""SavedModels of TF1, built by TF1's own builder: reference variables, partitions, control flow, tables, init ops, tags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import assert_equal, tf
from torch_towers.errors import InputError
from torch_towers.program.program import walk

v1: Any = tf.compat.v1
X = np.array([[1.5, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)


def save(
    folder: Path,
    build: Callable[[], tuple[dict[str, Any], dict[str, Any]]],
    *,
    main_op: bool = False,
    legacy: bool = False,
) -> Callable[..., Any]:
    """Saves what `build` gives (inputs, outputs) as a TF1 SavedModel, and gives the signature as TensorFlow runs it."""
    with tf.Graph().as_default():
        v1.disable_control_flow_v2()
        v1.disable_resource_variables()
        try:
            inputs, outputs = build()
            init = v1.tables_initializer()
            with v1.Session() as session:
                session.run([v1.global_variables_initializer(), init])
                builder = v1.saved_model.Builder(str(folder))
                signature = v1.saved_model.predict_signature_def(inputs, outputs)
                builder.add_meta_graph_and_variables(
                    session, ["serve"], {"serving_default": signature}, main_op=init if main_op else None,
                    assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
                    **({"legacy_init_op": init} if legacy else {}),
                )  # fmt: skip
                builder.save()
        finally:
            v1.enable_control_flow_v2()
            v1.enable_resource_variables()

    def answer(**feeds: Any) -> dict[str, np.ndarray]:
        with tf.Graph().as_default(), v1.Session() as session:
            meta = v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
            fed = {meta.inputs[name].name: value for name, value in feeds.items()}
            return session.run({name: info.name for name, info in meta.outputs.items()}, fed)

    return answer


def check(folder: Path, answer: Callable[..., Any], *batches: dict[str, np.ndarray]) -> Any:
    ported = port_tower(read(folder), lifts=False)
    tower = ported.tower()
    for batch in batches:
        theirs, ours = answer(**batch), tower(batch)
        assert set(theirs) == set(ours)
        for name in theirs:
            found = ours[name].detach() if hasattr(ours[name], "detach") else ours[name]
            assert_equal(found, np.asarray(theirs[name]), ulp=4 if theirs[name].dtype.kind == "f" else 0, what=name)
    return ported


def variables() -> Any:
    """Reference variables, one of them partitioned, read plainly and through a lookup."""
    x = v1.placeholder(tf.float32, [None, 3], "x")
    w = v1.get_variable("w", [3, 4], initializer=v1.random_normal_initializer(seed=1))
    table = v1.get_variable(
        "table", [7, 4], partitioner=v1.fixed_size_partitioner(3), initializer=v1.random_normal_initializer(seed=2)
    )
    ids = tf.cast(tf.argmax(x, 1), tf.int32) + 3
    return {"x": x}, {
        "y": tf.matmul(x, w) + v1.nn.embedding_lookup(table, ids),
        "z": v1.nn.embedding_lookup(table, ids, "div"),
    }


def test_reference_and_partitioned_variables(tmp_path: Path) -> None:
    ported = check(tmp_path / "m", save(tmp_path / "m", variables), {"x": X}, {"x": X[:1]})
    assert len(ported.variables) == 4  # three parts of the table, each a weight of its own


def control_flow() -> Any:
    """tf.cond that reads a variable in a branch, in a loop."""
    x = v1.placeholder(tf.float32, [None, 3], "x")
    w = v1.get_variable("w", [3], initializer=v1.random_normal_initializer(seed=1))

    def body(i: Any, y: Any) -> Any:
        return i + 1, tf.cond(tf.equal(i % 2, 0), lambda: y * w, lambda: y + 1.0)

    _, y = tf.while_loop(
        lambda i, y: i < tf.shape(x)[0] + 2,
        body,
        [0, x],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 3])],
    )
    training = v1.placeholder_with_default(False, [], "training")
    z = tf.cond(training, lambda: tf.nn.dropout(y, rate=0.5), lambda: y)
    return {"x": x}, {"y": y, "z": z}


def test_control_flow(tmp_path: Path) -> None:
    ported = check(tmp_path / "m", save(tmp_path / "m", control_flow), {"x": X}, {"x": X[:1]})
    graphs = [
        graph for graph in (ported.spec.preprocess, ported.spec.encoder, ported.spec.postprocess) if graph is not None
    ]
    ops = [node.op for graph in graphs for node in walk(graph)]
    assert ops.count("while_loop") == 1
    assert ops.count("cond") == 1  # dropout is switched off by its default: no branch


def assertion() -> Any:
    x = v1.placeholder(tf.float32, [None, 3], "x")
    with tf.control_dependencies([tf.debugging.assert_positive(x, message="all must be positive")]):
        return {"x": x}, {"y": x * 2.0}


def test_assertion(tmp_path: Path) -> None:
    answer = save(tmp_path / "m", assertion)
    ported = check(tmp_path / "m", answer, {"x": np.abs(X)})
    with pytest.raises(tf.errors.InvalidArgumentError):
        answer(x=X)
    with pytest.raises(InputError, match="all must be positive"):
        ported.tower()({"x": X})


@pytest.mark.parametrize("how", ["main_op", "legacy"])
def test_table_with_an_asset_and_an_init_op(tmp_path: Path, how: str) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("red\ngreen\nblue\n")

    def build() -> Any:
        x = v1.placeholder(tf.string, [None], "x")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = v1.lookup.StaticHashTable(initializer, -1)
        return {"x": x}, {"y": table.lookup(x)}

    answer = save(tmp_path / "m", build, main_op=how == "main_op", legacy=how == "legacy")
    vocabulary.unlink()
    words = np.empty(3, object)
    words[:] = [b"blue", b"none", b"red"]
    check(tmp_path / "m", answer, {"x": words})


def test_hub_module(tmp_path: Path) -> None:
    """The module of TF1 Hub: two meta graphs, chosen by their tags."""
    with tf.Graph().as_default():
        v1.disable_resource_variables()
        try:
            x = v1.placeholder(tf.float32, [None, 3], "x")
            y = x * v1.get_variable("w", [3], initializer=v1.random_normal_initializer(seed=1))
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                builder = v1.saved_model.Builder(str(tmp_path / "m"))
                signature = v1.saved_model.predict_signature_def({"x": x}, {"default": y})
                builder.add_meta_graph_and_variables(session, [], {"default": signature})
                builder.add_meta_graph(
                    ["train"], {"default": v1.saved_model.predict_signature_def({"x": x}, {"default": y * 2.0})}
                )
                expected = session.run(y, {x: X})
                builder.save()
        finally:
            v1.enable_resource_variables()
    (found,) = port_tower(read(tmp_path / "m", tags=[]), "default", lifts=False).tower()({"x": X}).values()
    assert np.array_equal(found.detach().numpy(), expected)
    (found,) = port_tower(read(tmp_path / "m", tags=["train"]), "default", lifts=False).tower()({"x": X}).values()
    assert np.array_equal(found.detach().numpy(), expected * 2)


def test_an_entry_that_changes_variables_is_refused(tmp_path: Path) -> None:
    module = tf.Module()
    module.w = tf.Variable(1.0, name="w")
    module.step = tf.function(lambda x: module.w.assign_add(x), input_signature=[tf.TensorSpec([], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.step})
    with pytest.raises(PortingError, match="changes what the model holds"):
        port_tower(read(tmp_path / "m"))
