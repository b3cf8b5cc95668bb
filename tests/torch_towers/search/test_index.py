"""Index: search against TFRS's BruteForce and by hand, exclusions, files, FAISS; Vertex's distances."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch_towers.budget import within_budget
from tests.torch_towers.towers import DIM, ROWS, id_tower, two_towers, word_tower
from torch_towers import CheckpointError, Index
from torch_towers.search.similarity import DISTANCES, distance
from torch_towers.two_tower import TwoTower

G = torch.Generator().manual_seed(5)
CANDIDATES = torch.randn(50, DIM, generator=G)
QUERIES = torch.randn(7, DIM, generator=G)
NAMES = [f"item {i}" for i in range(50)]


def brute(exclude: Any = None, k: int = 5) -> tuple[Any, Any]:
    scores = (QUERIES.double() @ CANDIDATES.double().T).numpy()
    for row, names in enumerate(exclude or ()):
        scores[row, [NAMES.index(name) for name in names if name in NAMES]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.array(NAMES, dtype=object)[order]


@pytest.mark.parametrize("engine", ["exact", "flat", "hnsw"])
def test_search(engine: Any) -> None:
    if engine != "exact":
        pytest.importorskip("faiss")
    index = Index(CANDIDATES, NAMES, engine=engine, quiet=True)
    scores, ids = brute()
    found = index.search(QUERIES, 5)
    assert np.allclose(found.scores, scores, atol=1e-6) and (found.ids == ids).all()
    exclude = [[str(name) for name in row[:n]] + ["nobody"] for n, row in enumerate(ids)]
    exclude = [row[:3] for row in exclude]
    scores, ids = brute(exclude)
    found = index.search(QUERIES.numpy(), 5, exclude=exclude)
    assert np.allclose(found.scores, scores, atol=1e-6) and (found.ids == ids).all()
    assert index.search(QUERIES[0], 1).ids.shape == (1, 1)


def test_against_tfrs() -> None:
    tfrs = pytest.importorskip("tensorflow_recommenders")
    import tensorflow as tf

    theirs = tfrs.layers.factorized_top_k.BruteForce(k=6)
    theirs.index(tf.constant(CANDIDATES.numpy()), tf.constant(NAMES))
    index = Index(CANDIDATES, NAMES)
    scores, ids = theirs(tf.constant(QUERIES.numpy()))
    found = index.search(QUERIES, 6)
    assert (
        np.allclose(found.scores, scores, atol=1e-6)
        and [[n.encode() for n in r] for r in found.ids] == ids.numpy().tolist()
    )
    exclusions = ids[:, :2]
    scores, ids = theirs.query_with_exclusions(tf.constant(QUERIES.numpy()), exclusions, k=6)
    found = index.search(QUERIES, 6, exclude=exclusions.numpy())
    assert (
        np.allclose(found.scores, scores, atol=1e-6)
        and [[n.encode() for n in r] for r in found.ids] == ids.numpy().tolist()
    )


def test_of_towers() -> None:
    towers = TwoTower(word_tower(), id_tower(), "cosine")
    index = towers.index(
        {"id": list(range(8))}, ids=[10 * i for i in range(8)], attributes={"even": [i % 2 == 0 for i in range(8)]}
    )
    by_inputs, by_vectors = index.search(ROWS, 3), index.search(towers.encode_query(ROWS), 3)
    scores, positions = towers.top_k(towers.encode_query(ROWS), towers.encode_candidate(list(range(8))), 3)
    assert by_inputs.scores.equal(by_vectors.scores) and (by_inputs.ids == 10 * positions.numpy()).all()
    assert by_inputs.scores.allclose(scores, atol=1e-6)
    assert index.rows([20, 30, 5]) == {"even": [True, False, None]}
    assert repr(index) == "Index(8 x 4, cosine, exact, ids: int64)"


def test_fewer_than_k() -> None:
    index = Index(CANDIDATES[:3], ["a", "b", "c"])
    found = index.search(QUERIES[:2], 10, exclude=[["a", b"b"], ["a", "b", "c"]])
    assert found.ids.tolist() == [["c", None, None], [None, None, None]] and found.scores[0, 1] == -torch.inf
    assert Index(CANDIDATES[:3]).search(QUERIES[:1], 3, exclude=[[0, 1, 2]]).ids.tolist() == [[-1, -1, -1]]
    assert Index(CANDIDATES[:0], []).search(QUERIES, 5).ids.shape == (7, 0)
    assert Index(CANDIDATES[:3]).search(QUERIES[:0], 2).ids.shape == (0, 2)
    assert Index(CANDIDATES[:3]).search(QUERIES, 0).ids.shape == (7, 0)


def test_one_id_for_several_candidates() -> None:
    index = Index(torch.eye(4), ["a", "a", "b", "c"])
    assert index.search(torch.ones(1, 4), 4, exclude=[["a"]]).ids.tolist() == [["b", "c", None, None]]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"ids": ["a"]}, "1 ids for 3 candidates"), ({"ids": ["a", b"b", 3]}, "all integers, all str or all bytes"),
        ({"ids": [1.0, 2.0, 3.0]}, "not float"), ({"attributes": {"x": [1]}}, "'x' has 1 values"),
        ({"engine": "scann"}, "engine must be one of"), ({"links": 3}, "takes no option 'links'"),
    ],
)  # fmt: skip
def test_arguments(change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Index(CANDIDATES[:3], **change)


def test_queries_that_do_not_fit() -> None:
    index = Index(CANDIDATES)
    with pytest.raises(ValueError, match="3 dimensions and candidates 4"):
        index.search(torch.ones(1, 3))
    with pytest.raises(ValueError, match="no query tower"):
        index.search(["a"])
    for exclude in ([[1]], [1] * 7, ["a"] * 7):
        with pytest.raises(ValueError, match="a list of ids for each of the 7 queries"):
            index.search(QUERIES, 3, exclude=exclude)
    for k in (-1, 1.0, True):
        with pytest.raises(ValueError, match="k must be a nonnegative integer"):
            index.search(QUERIES, k)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["exact", "flat", "ivf", "hnsw"])
@pytest.mark.parametrize("ids", [None, NAMES, [f"{i}\n\\".encode() + b"\xff" for i in range(50)]])
def test_saved_and_loaded(tmp_path: Path, engine: Any, ids: Any) -> None:
    if engine != "exact":
        pytest.importorskip("faiss")
    attributes = {"price": [i / 3 for i in range(50)], "tags": [["a", None]] * 50}
    index = Index(CANDIDATES, ids, attributes=attributes, similarity="cosine", engine=engine, quiet=True)
    index.save(tmp_path / "i")
    index.save(tmp_path / "i")  # in place of the first
    again = Index.load(tmp_path / "i")
    assert again.embeddings.equal(index.embeddings) and again.attributes == attributes
    assert again.ids.dtype == index.ids.dtype and again.ids.tolist() == index.ids.tolist()
    first, second = index.search(QUERIES, 5), again.search(QUERIES, 5)
    assert first.scores.equal(second.scores) and (first.ids == second.ids).all() and repr(again) == repr(index)
    assert not [path for path in (tmp_path / "i").iterdir() if path.suffix in (".pkl", ".pt", ".npy")]


def test_loaded_with_towers(tmp_path: Path) -> None:
    towers = two_towers()
    towers.index(list(range(8))).save(tmp_path / "i")
    found = Index.load(tmp_path / "i", towers).search(ROWS, 2)
    assert found.scores.equal(towers.index(list(range(8))).search(ROWS, 2).scores)
    with pytest.raises(ValueError, match="no query tower"):
        Index.load(tmp_path / "i").search(ROWS, 2)


def test_damaged_indexes(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    Index(CANDIDATES, NAMES, attributes={"a": list(range(50))}, engine="hnsw", quiet=True).save(tmp_path / "i")
    assert len(Index.load(tmp_path / "i")) == 50
    for path in sorted((tmp_path / "i").iterdir()):
        whole = path.read_bytes()
        for damaged in (whole[:-3], whole[: len(whole) // 2] + b"\x00\xff" + whole[len(whole) // 2 + 2 :], b""):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                Index.load(tmp_path / "i")
        path.unlink()
        with pytest.raises(CheckpointError):
            Index.load(tmp_path / "i")
        path.write_bytes(whole)
    meta = json.loads((tmp_path / "i" / "index.json").read_text())
    for change in ({"shape": [50, 5]}, {"shape": [-1, 4]}, {"dtype": "object"}, {"similarity": "l2"}, {"engine": "exact"}, {"ids": "int64"},
                   {"version": 2}, {"files": {}}, {"engine": "ivf"}):  # fmt: skip
        (tmp_path / "i" / "index.json").write_text(json.dumps({**meta, **change}))
        with pytest.raises(CheckpointError):
            Index.load(tmp_path / "i")


def test_attributes_that_json_cannot_hold(tmp_path: Path) -> None:
    for value in (b"a", float("nan"), object()):
        with pytest.raises(ValueError, match="attributes must be"):
            Index(CANDIDATES[:1], attributes={"a": [value]}).save(tmp_path / "i")
    assert not (tmp_path / "i").exists()


def test_recall_is_logged_and_true(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    many = torch.randn(4000, 8, generator=G)
    assert Index(many, engine="flat").recall(QUERIES.repeat(1, 2)) == 1.0
    caplog.set_level(logging.INFO, "torch_towers")
    Index(many, engine="flat")
    assert "flat over 4,000 x 8: recall@10 1.0000" in caplog.text
    poor = Index(many, engine="ivf", lists=64, probes=1)
    assert 0.05 < poor.recall() < 0.95 and f"recall@10 {poor.recall():.4f}" in caplog.text
    best = Index(many, engine="ivf", lists=64, probes=64, recall_queries=QUERIES.repeat(1, 2))
    assert "1.0000 of the exact answer (the given queries)" in caplog.text and best.recall() == 1.0
    assert capfd.readouterr() == ("", "")  # a library prints nothing


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_vertex_distances(n: int, m: int, dim: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    q, c = torch.randn(n, dim, generator=g), torch.randn(m, dim, generator=g)
    a, b = q.double().numpy()[:, None], c.double().numpy()[None]
    dot = (a * b).sum(-1)
    wanted = {
        "SQUARED_L2_DISTANCE": ((a - b) ** 2).sum(-1), "L1_DISTANCE": np.abs(a - b).sum(-1), "DOT_PRODUCT_DISTANCE": -dot,
        "COSINE_DISTANCE": 1 - dot / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1),
    }  # fmt: skip
    assert set(wanted) == set(DISTANCES)
    for name, value in wanted.items():
        assert np.allclose(distance(q, c, name), value, atol=1e-5, rtol=1e-5), name


def test_a_distance_of_another_name() -> None:
    with pytest.raises(ValueError, match="'L2' is not a distance of Vertex's: choose one of SQUARED_L2"):
        distance(QUERIES, CANDIDATES, "L2")


@pytest.mark.parametrize("name", ["ids.txt", "attributes.json"])
def test_files_of_endless_size_are_not_read(tmp_path: Path, name: str) -> None:
    Index(torch.eye(3), ["a", "b", "c"], attributes={"size": [1, 2, 3]}).save(tmp_path / "i")
    with (tmp_path / "i" / name).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=rf"{name} has 1099511627776 bytes, more than the limit of 4294967296"):
        Index.load(tmp_path / "i")


def test_attributes_of_very_many_values_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    Index(torch.eye(3), ["a", "b", "c"], attributes={"size": [1, 2, 3]}).save(folder)
    data = b'{"size": [1, 2, [' + b"[]," * (16 << 20) + b"[]]]}"
    (folder / "attributes.json").write_bytes(data)
    meta = json.loads((folder / "index.json").read_text())
    meta["files"]["attributes.json"] = hashlib.sha256(data).hexdigest()
    (folder / "index.json").write_text(json.dumps(meta))
    code = "try: index.Index.load(sys.argv[1])\nexcept CheckpointError as error: print(error)"
    assert "more than the limit of 1060864" in within_budget(code, str(folder))


@pytest.mark.parametrize("change", [
    {"weights": {"size": [], "sha256": 1, "header_sha256": None}}, {"dtype": []}, {"ids": {}}, {"shape": [1 << 39, 1 << 39]},
    {"files": {"attributes.json": "\ud800", "ids.txt": None}},
])  # fmt: skip
def test_no_other_error_comes_out(tmp_path: Path, change: dict[str, Any]) -> None:
    Index(torch.eye(3), ["a", "b", "c"]).save(tmp_path / "i")
    meta = tmp_path / "i" / "index.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **change}))
    with pytest.raises(CheckpointError):
        Index.load(tmp_path / "i")
