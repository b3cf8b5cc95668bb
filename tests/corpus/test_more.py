"""The SavedModels of ../shared/more, beside the corpus: TF Transform's old buckets, and a Keras model behind serialized examples.

Current TensorFlow versions cannot run the old buckets. So each graph is saved again with equivalent ops
(`tf.searchsorted`, as their sources say); the port of that is compared with TensorFlow, and the port of the original with it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.parity.comparison import verify_with_reference, verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.port import main
from porting.samples.samples import batches
from porting.saved_model import read
from porting.tower import port_tower
from tests.corpus.catalog import FOLDER
from torch_towers.formats.npz import load_arrays
from torch_towers.parity.answers import answer

MORE = FOLDER.parent / "more"
BUCKETS = {
    MORE / "est-taxi-tft012": "serving_default",
    MORE / "est-taxi-beam": "serving_default",
    FOLDER / "tft1-taxi-tfx": "transform_signature",
}
"""Their folders. TensorFlow does not find the vocabularies of the last one, whose graph names no assets."""
LATITUDES = np.array(
    [41.808918, 41.87169, 41.880993, 41.890923, 41.89251, 41.8996, 41.92178, 41.944225, 41.97517], np.float32
)
"""The boundaries of `pickup_latitude` in tft-taxi-tft012 and est-taxi-tft012."""

if not MORE.is_dir():
    pytest.skip("there is no folder `more` beside TORCH_TOWERS_CORPUS", allow_module_level=True)


def spelled_out(source: Path, target: Path) -> Path:
    """The SavedModel of `source` without old buckets: a vector of boundaries is searched, from the right or from the left."""
    shutil.copytree(source, target)
    saved = _parsed(source)
    for meta in saved.meta_graphs:
        for node in [*meta.graph_def.node]:
            if node.op in ("BucketizeWithInputBoundaries", "BoostedTreesBucketize"):
                _replace(meta.graph_def, node)
    (target / "saved_model.pb").write_bytes(saved.SerializeToString())
    return target


def _parsed(source: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())


def _replace(graph: Any, node: Any) -> None:
    """Replaces `node` by the last of the ops added for it."""
    from tests.witness import tf

    boosted = node.op == "BoostedTreesBucketize"

    def search(x: Any, edges: Any) -> Any:
        rows, values = tf.reshape(edges, [1, -1]), tf.reshape(x, [1, -1])
        if not boosted:
            return tf.reshape(tf.raw_ops.UpperBound(sorted_inputs=rows, values=values), tf.shape(x))
        found = tf.raw_ops.LowerBound(sorted_inputs=rows, values=values)
        return tf.reshape(tf.minimum(found, tf.size(edges) - 1), tf.shape(x))

    with tf.Graph().as_default() as scratch:
        x, edges = (tf.compat.v1.placeholder(tf.float32, name=name) for name in ("x", "edges"))
        last = search(x, edges).op.name
    names = {"x": node.input[0], "edges": node.input[1]}
    names |= {
        inner.name: f"{node.name}/spelled/{inner.name}"
        for inner in scratch.as_graph_def().node
        if inner.name not in names
    }
    names[last] = node.name
    for inner in scratch.as_graph_def().node:
        if inner.name in ("x", "edges"):
            continue
        inner.input[:] = [names[ref.partition(":")[0]] for ref in inner.input]
        inner.name = names[inner.name]
        if inner.name == node.name:
            node.CopyFrom(inner)
        else:
            graph.node.add().CopyFrom(inner)


@pytest.mark.parametrize("path", [path for path in BUCKETS if path.name.startswith("est")], ids=lambda path: path.name)
def test_old_buckets(path: Path, tmp_path: Path, oracle: Oracle) -> None:
    original, entry = read(path), BUCKETS[path]
    ported = port_tower(original, entry)
    asked = [sample.inputs for sample in batches(ported.tf_graph, original)]
    other = port_tower(read(spelled_out(path, tmp_path / path.name)), entry)
    report = verify_with_tensorflow(other, oracle, asked)
    assert report.passed, "\n".join(report.lines())
    towers = ported.tower(), other.tower()
    found = [[answer(tower, batch) for batch in asked] for tower in towers]
    assert sum(not isinstance(item, str) for item in found[0]) > 0
    for ours, theirs in zip(*found, strict=True):
        assert isinstance(ours, str) == isinstance(theirs, str)
        if not isinstance(ours, str) and not isinstance(theirs, str):
            for output in theirs:
                np.testing.assert_array_equal(ours[output], theirs[output])


def test_old_buckets_by_hand() -> None:
    """A boundary belongs to the bucket above it, the adjacent float below it to the bucket below."""
    ported = port_tower(read(MORE / "tft-taxi-tft012"), "transform_signature")
    values = np.concatenate([LATITUDES, np.nextafter(LATITUDES, np.float32(-np.inf)), np.float32([-1e9, 1e9])])
    feeds = {spec.name: _empty(spec, len(values)) for spec in ported.spec.inputs}
    feeds["pickup_latitude_values"] = values
    feeds["pickup_latitude_indices"] = np.stack([np.arange(len(values)), np.zeros(len(values), np.int64)], 1)
    found = ported.tower()(feeds)["pickup_latitude_xf"].tolist()
    assert found == [*range(1, 10), *range(9), 0, 9]


def _empty(spec: Any, rows: int) -> np.ndarray:
    """One component of a sparse column of `rows` rows that holds nothing."""
    if spec.name.endswith("_dense_shape"):
        return np.array([rows, 1])
    dtype = object if spec.dtype == "string" else spec.dtype
    return np.zeros((0, 2) if spec.name.endswith("_indices") else 0, dtype)


@pytest.mark.parametrize("path", BUCKETS, ids=lambda path: path.name)
def test_the_command_says_that_nothing_runs_them(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--query", str(path), "--signature", BUCKETS[path], "-o", str(tmp_path / "checkpoint")]) == 3
    assert "has no kernel for B" in capsys.readouterr().out


def test_keras_behind_serialized_examples() -> None:
    ported = port_tower(read(MORE / "keras-iris-tfx"), "serving_default")
    report = verify_with_reference(ported, load_arrays(MORE / "keras-iris-tfx" / "reference.npz"))
    assert report.passed, "\n".join(report.lines())
