"""`torch-towers export`: an encoder for another runtime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.torch_towers.source.bert import PLACES, VOCAB, bert
from torch_towers import load
from torch_towers.checkpoint.checkpoint import Side, save_checkpoint
from torch_towers.cli import main
from torch_towers.errors import TorchTowersError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.spec import TowerSpec
from torch_towers.parity.answers import answer
from torch_towers.parity.recorded import Recorded, pack
from torch_towers.source.exported import export

PACKAGES = Path(__file__).parents[3] / "checkpoints" / "packages"


def test_torchs_own_with_a_free_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "query.pt2"
    assert main(["export", str(PACKAGES), "--tower", "query", "--format", "pt2", "-o", str(file)]) == 0
    said = capsys.readouterr().out
    assert "query output_0: " in said and "regex_replace" in said, "what stays behind is said"
    tower = load(PACKAGES).query
    tensors = tower.preprocess(["edit photos", "play chess", "a", "b", "c"])
    found = torch.export.load(file).module()(**tensors)
    torch.testing.assert_close(found["output_0"], tower.encoder(**tensors)["output_0"])


def test_onnx_with_a_free_batch(tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} runs and writes ONNX files: install the extra [onnx]")
    import onnxruntime

    file = tmp_path / "candidate.onnx"
    found, behind = export(PACKAGES, file, "onnx", "candidate")
    assert found and all(item.passed for item in found)
    assert "Hashing" in behind
    session = onnxruntime.InferenceSession(str(file))
    assert not isinstance(session.get_inputs()[0].shape[0], int)


def of_texts(folder: Path, sizes: Sequence[tuple[int, int]] = ((3, 7), (2, PLACES))) -> Path:
    """A BERT with samples of these rows and lengths."""
    tower = bert()
    side = tower.side()
    recorded: list[Recorded] = []
    for rows, length in sizes:
        mask = np.arange(length) < np.array([[length], [2], [3]])[:rows]
        inputs = {"ids": np.arange(rows * length).reshape(rows, length) % VOCAB, "mask": mask}
        recorded.append(Recorded(inputs, answer(tower, inputs)))
    save_checkpoint(folder, query=side, samples=pack({"query": recorded}))
    return folder


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_lengths_other_than_those_of_the_example(kind: Any, tmp_path: Path) -> None:
    """The example that is traced has 7 places; a sample has 16, and what comes later has others again."""
    if kind == "onnx":
        for package in ("onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="runs and writes ONNX files: install the extra [onnx]")
    folder = of_texts(tmp_path / "bert")
    file = tmp_path / f"bert.{kind}"
    found, behind = export(folder, file, kind)
    assert found[0].passed and found[0].rows == 5 and not behind
    tower = load(folder).query
    for rows, length in ((1, 11), (5, 3), (1, 1)):
        ids, mask = (
            torch.arange(rows * length).reshape(rows, length) % VOCAB,
            torch.ones(rows, length, dtype=torch.bool),
        )
        expected = tower.encoder(ids=ids, mask=mask)["y"].detach()
        if kind == "pt2":
            ours = torch.export.load(file).module()(ids=ids, mask=mask)["y"]
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(file))
            ours = torch.from_numpy(session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0])
        torch.testing.assert_close(ours, expected)


def test_onnx_inputs_have_the_names_of_the_encoders(tmp_path: Path) -> None:
    """torch.export writes names in lower case."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="runs and writes ONNX files: install the extra [onnx]")
    spec = TensorSpec("userId_x", "float32", ("batch", 2))
    graph = Graph((spec,), (Node("y", "tanh", ("userId_x",)),), {"Y": "y"})
    same = Graph((spec,), (), {"userId_x": "userId_x"})
    tower = TowerSpec(same, graph, None, (spec,), (TensorSpec("Y", "float32", ("batch", 2)),))
    recorded = [Recorded({"userId_x": np.ones((3, 2), np.float32)}, {}, {}, "domain")]
    save_checkpoint(tmp_path / "made", query=Side(tower, {}, frozenset()), samples=pack({"query": recorded}))
    found, _ = export(tmp_path / "made", tmp_path / "made.onnx", "onnx")
    assert found[0].passed and found[0].rows == 3


def of_one_op(folder: Path, node: Node, inputs: np.ndarray[Any, Any], outputs: Mapping[str, tuple[str, str]]) -> Path:
    """A tower of one op, with `inputs` as its sample; `outputs` are references and dtypes."""
    spec = TensorSpec("x", "float32", ("batch", *inputs.shape[1:]))
    encoder = Graph((spec,), (node,), {name: ref for name, (ref, _) in outputs.items()})
    same = Graph((spec,), (), {"x": "x"})
    results = tuple(TensorSpec(name, dtype, None) for name, (_, dtype) in outputs.items())
    tower = TowerSpec(same, encoder, None, (spec,), results)
    samples = pack({"query": [Recorded({"x": inputs}, {}, {}, "domain")]})
    save_checkpoint(folder, query=Side(tower, {}, frozenset()), samples=samples)
    return folder


def test_onnx_selects_as_the_encoder(tmp_path: Path) -> None:
    """A retrieval index that is ported as it is: exact top k, of equal scores the first."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="runs and writes ONNX files: install the extra [onnx]")
    scores = np.random.default_rng(0).integers(-9, 9, (5, 900)).astype(np.float32)
    top = Node("top", "top_k", ("x", 50), {"dtype": "int32"})
    folder = of_one_op(tmp_path / "index", top, scores, {"scores": ("top:0", "float32"), "places": ("top:1", "int32")})
    found, _ = export(folder, tmp_path / "index.onnx", "onnx")
    assert len(found) == 2 and not any(item.apart or item.said for item in found)


def test_an_op_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="runs and writes ONNX files: install the extra [onnx]")
    node = Node("y", "truncate_mantissa", ("x",), {"dtype": "float16"})
    folder = of_one_op(tmp_path / "bits", node, np.ones((3, 2), np.float32), {"y": ("y", "float16")})
    with pytest.raises(TorchTowersError, match=r"ONNX has no op for aten\.view\.dtype$"):
        export(folder, tmp_path / "bits.onnx", "onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_a_length_that_the_example_fixes_is_said(tmp_path: Path) -> None:
    """Torch takes a size of 1 for one that is always 1."""
    _, behind = export(of_texts(tmp_path / "bert", [(3, 1)]), tmp_path / "bert.pt2", "pt2")
    assert "axis 1 of ids is always 1" in behind


def test_one_of_two_towers_must_be_named_and_files_stay(tmp_path: Path) -> None:
    with pytest.raises(TorchTowersError, match="--tower"):
        export(PACKAGES, tmp_path / "a.pt2", "pt2")
    (tmp_path / "b.pt2").write_text("mine")
    with pytest.raises(TorchTowersError, match="already exists"):
        export(PACKAGES, tmp_path / "b.pt2", "pt2", "query")
