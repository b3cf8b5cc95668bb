"""Retrieval indexes of TensorFlow Recommenders, ported whole and split, with TensorFlow's own answers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from porting.errors import PortingError
from porting.flat_graph.flatten import flatten
from porting.frontends import retrieval
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import protos, read
from porting.tower import port_tower
from tests.torch_towers.checkpoint.test_checkpoint import config_of, reseal
from tests.witness import tf
from torch_towers.checkpoint.checkpoint import Candidates, read_checkpoint
from torch_towers.formats.npz import to_numpy
from torch_towers.search.similarity import top_k

tfrs: Any = pytest.importorskip("tensorflow_recommenders", reason="builds the indexes; install the extra [parity]")
top: Any = tfrs.layers.factorized_top_k

USERS = [f"user {i}" for i in range(12)]
CANDIDATES = (
    np.random.default_rng(0).integers(-1, 2, (40, 4)).astype(np.float32)
)  # many of them equal, so that scores tie
NAMES = np.array([f"movie {i}" for i in range(40)])


def query_model() -> Any:
    """Small integers as embeddings, so that equal scores are bit-exact."""
    layers = tf.keras.layers
    vectors = tf.keras.initializers.Constant(np.random.default_rng(1).integers(-3, 4, (13, 4)))
    return tf.keras.Sequential(
        [
            layers.StringLookup(vocabulary=USERS, mask_token=None),
            layers.Embedding(13, 4, embeddings_initializer=vectors),
        ]
    )


@pytest.fixture(scope="module")
def oracle() -> Any:
    with Oracle() as running:
        yield running


def brute_force(folder: Path, ids: Any, k: int = 9, model: Any = None) -> Any:
    """Saves a BruteForce index; gives what it answers."""
    index = top.BruteForce(model or query_model(), k=k)
    index.index(tf.constant(CANDIDATES), None if ids is None else tf.constant(ids))
    index(tf.constant(USERS))
    if ids is not None:
        index.query_with_exclusions(tf.constant(USERS[:2]), tf.constant(ids[:6].reshape(2, 3)))
    tf.saved_model.save(index, str(folder))
    return index


def as_bytes(ids: np.ndarray) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in ids.reshape(-1).tolist()]


IDS = {"strings": NAMES, "integers": np.arange(40)[::-1] * 7, "none": None}


@pytest.mark.parametrize("kind", IDS)
def test_brute_force_split(tmp_path: Path, kind: str, capsys: Any) -> None:
    """The command finds the index; the checkpoint's tower, candidates and ids give TensorFlow's answer, ties included."""
    index = brute_force(tmp_path / "index", IDS[kind])
    verify = [] if kind == "strings" else ["--no-verify"]  # starting TensorFlow again takes seconds
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), *verify]) == 0
    said = capsys.readouterr().out
    assert "found a brute force index: 40 candidates of 4" in said
    assert "left out" not in said
    towers = torch_towers.load(tmp_path / "out")
    assert towers.candidates is not None and towers.candidates.k == 9
    users = [*USERS, "nobody"]
    embeddings = towers.encode_query(users)
    assert np.array_equal(embeddings.numpy(), index.query_model(tf.constant(users)).numpy())
    for k in (9, 40):
        scores, rows = top_k(embeddings, towers.candidates.embeddings, k)
        ids = towers.candidates.ids
        expected_scores, expected = index(tf.constant(users), k=k)
        assert np.array_equal(scores.numpy(), expected_scores.numpy())
        assert ids is not None
        found = ids[rows.numpy()] if isinstance(ids, np.ndarray) else ids[rows]
        assert np.array_equal(to_numpy(found), expected.numpy())
        assert len(np.unique(expected_scores[0])) < k  # there were ties
    expected_scores, expected = index(tf.constant(users))
    found = towers.index().search(users, k=9)
    assert np.array_equal(found.scores.numpy(), expected_scores.numpy())
    assert as_bytes(found.ids) == as_bytes(expected.numpy())
    assert type(found.ids[0, 0]) is (str if kind == "strings" else np.int64)


def test_inputs_that_only_the_index_takes_are_named(tmp_path: Path, capsys: Any) -> None:
    brute_force(tmp_path / "index", NAMES)
    entry = ["--query-signature", "query_with_exclusions", "--no-verify"]
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), *entry]) == 0
    assert "left out the input 'exclusions' of the index" in capsys.readouterr().out
    assert "left out the input 'exclusions' of the index" in (tmp_path / "out" / "MODEL.md").read_text()
    found = torch_towers.load(tmp_path / "out").index().search(USERS[:2], k=3, exclude=[["movie 1"], ["movie 2"]])
    assert "movie 1" not in found.ids[0] and "movie 2" not in found.ids[1]


def test_ids_that_are_no_text_stay_bytes(tmp_path: Path) -> None:
    brute_force(tmp_path / "index", np.array([b"\xff%d" % i for i in range(40)], object))
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    assert type(torch_towers.load(tmp_path / "out").index().search(USERS[:1], k=1).ids[0, 0]) is bytes


def test_an_export_without_signatures(tmp_path: Path, capsys: Any) -> None:
    """Its index is found; beside the query model alone, candidates and identifiers are named as left out."""
    index = top.BruteForce(query_model(), k=9)
    index.index(tf.constant(CANDIDATES), tf.constant(NAMES))
    scores, ids = index(tf.constant(USERS))
    tf.keras.models.save_model(index, str(tmp_path / "index"), signatures={})
    port_it = ["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]
    assert not read(tmp_path / "index").signatures
    assert port.main(port_it) == 0
    found = torch_towers.load(tmp_path / "out").index().search(USERS, k=9)
    assert as_bytes(found.ids) == as_bytes(ids.numpy()) and np.array_equal(found.scores.numpy(), scores.numpy())
    assert "left out" not in capsys.readouterr().out
    assert port.main([*port_it, "--query-signature", "query_model.__call__"]) == 0
    said = capsys.readouterr().out
    assert "variable 'candidates' [40, 4] float32" in said and "variable 'identifiers' [40] string" in said


@pytest.mark.parametrize("kind", ["strings", "integers"])
def test_brute_force_whole(tmp_path: Path, oracle: Oracle, kind: str) -> None:
    """`--whole`, and `query_with_exclusions`, which subtracts 1e5 from what is excluded."""
    index = brute_force(tmp_path, IDS[kind])
    model = read(tmp_path)
    report = verify_with_tensorflow(port_tower(model), oracle)
    assert report.passed and report.outputs["output_2"].equal == report.outputs["output_2"].values > 0, report.lines()
    ported = port_tower(model, "query_with_exclusions")
    ids = IDS[kind]
    assert ids is not None
    for users, exclusions in ((USERS[:2], ids[:6]), (USERS[3:5], ids[[7, 7, 30, 2, 1, 0]])):
        exclusions = exclusions.reshape(2, 3)
        expected = index.query_with_exclusions(tf.constant(users), tf.constant(exclusions))
        given = exclusions.tolist() if kind == "strings" else exclusions
        found = ported.tower()({"queries": users, "exclusions": given})
        for ours, theirs in zip(found.values(), expected, strict=True):
            assert np.array_equal(to_numpy(ours), theirs.numpy())


def test_embeddings_as_queries(tmp_path: Path, oracle: Oracle) -> None:
    """An index without a query model: its input is the embedding."""
    index = top.BruteForce(k=3)
    index.index(tf.constant(CANDIDATES), tf.constant(NAMES))
    index(tf.zeros([2, 4]))
    tf.saved_model.save(index, str(tmp_path))
    ported = port_tower(read(tmp_path), split_index=True)
    assert ported.retrieval is not None
    report = verify_with_tensorflow(ported, oracle)
    assert report.passed and report.rows > 0, report.lines()
    row = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    assert np.array_equal(ported.tower().encode(row).numpy(), row)


def found_in(folder: Path, function: Any, *specs: Any) -> retrieval.Retrieval | None:
    module = tf.Module()
    module.matrix = tf.Variable(CANDIDATES)
    module.serve = tf.function(lambda x: function(module, x), input_signature=specs or [tf.TensorSpec([None, 4])])
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    model = read(folder)
    return retrieval.find(flatten(model.graph("serving_default"), model.functions), model)


def test_other_spellings(tmp_path: Path) -> None:
    """A constant matrix, `tf.transpose`, no identifiers: still an index. A classifier's best classes are none."""

    def transposed(module: Any, x: Any) -> Any:
        scores, rows = tf.math.top_k(x @ tf.transpose(tf.constant(CANDIDATES)), 5)
        return {"scores": scores, "rows": rows}

    found = found_in(tmp_path / "a", transposed)
    assert (
        found is not None and found.identifiers is None and (found.scores, found.ids, found.k) == ("scores", "rows", 5)
    )
    assert np.array_equal(found.candidates, CANDIDATES)
    assert found_in(tmp_path / "b", lambda module, x: tf.math.top_k(x @ tf.constant(CANDIDATES.T.copy()), 2)[0]) is None
    assert found_in(tmp_path / "c", lambda module, x: tf.math.top_k(x @ tf.transpose(x + 1.0), 1)[0]) is None


def test_candidates_in_a_checkpoint(tmp_path: Path) -> None:
    """Read back as written; a damaged index is refused in a sentence."""
    brute_force(tmp_path / "index", NAMES)
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    towers = torch_towers.load(tmp_path / "out")
    towers.save(tmp_path / "again")
    again = read_checkpoint(tmp_path / "again").candidates
    assert again is not None and again.ids is not None
    assert np.array_equal(again.embeddings.numpy(), CANDIDATES)
    assert [name.decode() for name in again.ids.tolist()] == NAMES.tolist()
    assert towers.query is not None
    for wrong in (Candidates(again.embeddings[0], None), Candidates(again.embeddings, again.ids[:3])):
        with pytest.raises(torch_towers.CheckpointError, match="candidates"):
            torch_towers.save_checkpoint(tmp_path / "wrong", query=towers.query.side(), candidates=wrong)


# -- Streaming ----------------------------------------------------------------------------------------------------------


def streaming(folder: Path, candidates: Any, k: int = 9, **options: Any) -> Any:
    index = top.Streaming(query_model(), k=k, **options)
    index.index_from_dataset(candidates)
    index(tf.constant(USERS))
    tf.saved_model.save(index, str(folder))
    return index


def pairs() -> Any:
    return tf.data.Dataset.from_tensor_slices((NAMES, CANDIDATES))


DATASETS: dict[str, Any] = {
    "batches": lambda: pairs().batch(16),
    "small batches": lambda: pairs().batch(3, drop_remainder=True),
    "no identifiers": lambda: tf.data.Dataset.from_tensor_slices(CANDIDATES).batch(7).prefetch(2),
    "zip": lambda: tf.data.Dataset.zip(
        (
            tf.data.Dataset.from_tensor_slices(np.arange(40)).batch(8),
            tf.data.Dataset.from_tensor_slices(CANDIDATES).batch(8),
        )
    ),
    "maps": lambda: (
        pairs().skip(2).take(30).map(lambda name, row: (name + "!", row * 2.0)).concatenate(pairs()).batch(16)
    ),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_streaming(tmp_path: Path, oracle: Oracle, kind: str) -> None:
    """The pipeline's elements are in the export: split and whole give what the merge of batches gives, ties included."""
    index = streaming(tmp_path / "index", DATASETS[kind]())
    users = [*USERS, "nobody"]
    scores, ids = index(tf.constant(users))
    model = read(tmp_path / "index")
    whole = port_tower(model)
    found = whole.tower()(users)
    assert np.array_equal(to_numpy(found["output_1"]), scores.numpy())
    assert np.array_equal(to_numpy(found["output_2"]), ids.numpy())
    assert verify_with_tensorflow(whole, oracle).passed
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    again = torch_towers.load(tmp_path / "out").index().search(users, k=9)
    assert np.array_equal(again.scores.numpy(), scores.numpy())
    assert as_bytes(again.ids) == as_bytes(ids.numpy())


def test_a_pipeline_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """Files are not in the export, and a sum over a dataset is not an index: the sentence names ops and the way out."""
    (tmp_path / "rows.txt").write_text("1\n2\n")
    module = tf.Module()
    rows = tf.data.TextLineDataset(str(tmp_path / "rows.txt")).map(lambda line: tf.strings.to_number(line))
    module.rows = rows
    module.serve = tf.function(
        lambda x: x * rows.reduce(0.0, lambda a, b: a + b), input_signature=[tf.TensorSpec([None], tf.float32)]
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    with pytest.raises(PortingError, match=r"ReduceDataset.*query_model.__call__"):
        port_tower(read(tmp_path / "model"))


# -- ScaNN ----------------------------------------------------------------------------------------------------------------


def scann(folder: Path, *, keeps_candidates: bool = True, distance: bytes = b"DotProductDistance") -> Any:
    """A SavedModel in which ScaNN's ops stand between the query tower and the identifiers; gives the query tower.

    Made by editing a brute-force export, because the library that registers the ops is not there.
    """
    index = brute_force(folder, NAMES)
    path = folder / "saved_model.pb"
    saved = protos.parse("SavedModel", path.read_bytes(), "test")
    for function in saved.meta_graphs[0].graph_def.library.function:
        tops = [node for node in function.node_def if node.op == "TopKV2"]
        if len(tops) != 1:
            continue
        top_node = tops[0]
        by_name = {node.name: node for node in function.node_def}
        product = by_name[top_node.input[0].partition(":")[0]]
        queries, matrix = product.input
        config = function.node_def.add(name="config", op="Const")
        config.attr["dtype"].type = 7
        config.attr["value"].tensor.dtype = 7
        config.attr["value"].tensor.string_val.append(b'distance_measure {distance_measure: "' + distance + b'"}')
        product.op = "Scann>TensorsToScann"
        product.input[:] = [matrix if keeps_candidates else "config:output:0", "config:output:0"]
        product.attr.clear()
        top_node.op = "Scann>ScannSearchBatched"
        top_node.input[:] = [f"{product.name}:searcher_handle:0", queries, top_node.input[1]]
        top_node.attr.clear()
        for name, ref in function.ret.items():
            function.ret[name] = ref.replace("TopKV2:values:0", "TopKV2:distances:0")
        for node in function.node_def:
            node.input[:] = [ref.replace("TopKV2:values:0", "TopKV2:distances:0") for ref in node.input]
    path.write_bytes(saved.SerializeToString())
    return index.query_model


def test_scann_gives_the_query_tower(tmp_path: Path, capsys: Any) -> None:
    """TensorFlow without ScaNN cannot load it; the query tower ports and is compared op by op, candidates and ids come along."""
    model = scann(tmp_path / "index")
    with pytest.raises(Exception, match="Scann"):
        tf.saved_model.load(str(tmp_path / "index"))
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "found a ScaNN index: 40 candidates of 4, string identifiers, k = 9" in said
    assert "compared with TensorFlow" in said and "ok   embedding" in said
    towers = torch_towers.load(tmp_path / "out")
    embeddings = model(tf.constant(USERS)).numpy()
    assert np.array_equal(towers.encode_query(USERS).numpy(), embeddings)
    scores, places = tf.math.top_k(embeddings @ CANDIDATES.T, 5)
    found = towers.index().search(USERS, k=5)
    assert np.array_equal(found.scores.numpy(), scores.numpy())
    assert as_bytes(found.ids) == as_bytes(NAMES[places.numpy()])


@pytest.mark.parametrize("options", [{"keeps_candidates": False}, {"distance": b"SquaredL2Distance"}], ids=str)
def test_scann_without_candidates(tmp_path: Path, capsys: Any, options: dict[str, Any]) -> None:
    """Only quantized, or by another distance than the dot product: the query tower alone."""
    scann(tmp_path / "index", **options)
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    assert "found a ScaNN index: the candidates are not in the export" in capsys.readouterr().out
    towers = torch_towers.load(tmp_path / "out")
    with pytest.raises(torch_towers.CheckpointError, match="no candidates"):
        towers.index()


def test_scann_whole_is_refused(tmp_path: Path) -> None:
    scann(tmp_path)
    with pytest.raises(
        PortingError, match=r"Scann>ScannSearchBatched.*runs only in ScaNN's own library.*without --whole"
    ):
        port_tower(read(tmp_path))


def test_attacks_on_the_index(tmp_path: Path) -> None:
    """What config.json says of the index is checked before it is believed."""
    brute_force(tmp_path / "index", NAMES)
    assert port.main(["--query", str(tmp_path / "index"), "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    before = config_of(tmp_path / "out")
    ids = before["index"]["ids"]
    attacks: list[tuple[dict[str, Any], str]] = [
        ({"candidates": ids}, "does not hold"), ({"candidates": "index.nothing"}, "does not hold"), ({"ids": "index.nothing"}, "does not hold"),
        ({"ids": None}, "no tower uses"), ({"k": 0}, "k must be"), ({"k": True}, "k must be"), ({"more": 1}, "unknown key"),
        ({"ids": "index.candidates"}, "no tower uses|do not fit"),
    ]  # fmt: skip
    for change, message in attacks:
        config = {**before, "index": {**before["index"], **change}}
        reseal(tmp_path / "out", config)
        with pytest.raises(torch_towers.CheckpointError, match=message):
            torch_towers.load(tmp_path / "out")
