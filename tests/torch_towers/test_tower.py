"""Towers: run, encode in batches, explain errors, and work as a module in users' code."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.torch_towers.towers import (
    DIM,
    ROWS,
    WORDS,
    id_spec,
    id_store,
    id_tower,
    strings,
    two_towers,
    word_spec,
    word_store,
    word_tower,
)
from torch_towers import CheckpointError, InputError, Tower, TowerSpec, load
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.program.cost import BATCH
from torch_towers.program.program import Program


def by_hand(rows: dict[str, list[Any]], seed: int = 0) -> torch.Tensor:
    """What `word_tower` computes, written out."""
    store = word_store(seed)
    ids = [WORDS.index(w.encode()) if w.encode() in WORDS else len(WORDS) for w in rows["word"]]
    joined = torch.cat([store["embedding.weight"][ids], torch.tensor(rows["size"])[:, None]], 1)
    return nn.functional.linear(joined, store["dense.weight"], store["dense.bias"]) * store["scale"] + 0.25


def near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within what the order of a sum changes: seven roundings of numbers below 16, 2^-20 each, most of them times a scale below 3."""
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.allclose(wanted, rtol=0, atol=2**-16)


# -- running ------------------------------------------------------------------------------------------------------------


def test_the_numbers() -> None:
    tower = word_tower()
    assert near(tower(ROWS)["embedding"], by_hand(ROWS))
    assert near(tower.encode(ROWS), by_hand(ROWS))
    assert tower.preprocess(ROWS)["ids"].tolist() == [0, 2, 8, 7]
    assert near(tower.encoder(**tower.preprocess(ROWS))["embedding"], by_hand(ROWS))


def test_outputs_after_the_encoder() -> None:
    found = id_tower()({"id": [[5], [4]]})
    assert found["name"].tolist() == [WORDS[5], WORDS[4]] and found["embedding"].tolist()[0] == [20.0, 21.0, 22.0, 23.0]
    assert list(found) == ["embedding", "name"]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 1000])
def test_batches_change_nothing(batch_size: int) -> None:
    assert word_tower().encode(ROWS, batch_size=batch_size).allclose(by_hand(ROWS), rtol=1e-6, atol=1e-6)
    rows = [{"word": w, "size": s} for w, s in zip(ROWS["word"], ROWS["size"], strict=True)]
    assert word_tower().encode(rows, batch_size=batch_size).allclose(by_hand(ROWS), rtol=1e-6, atol=1e-6)


def test_rows_that_take_little_run_in_batches_of_more_than_1024(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the user says how many, and not where a row may be padded to the length of another."""
    seen: list[int] = []
    run = Program.run

    def counted(program: Program, **inputs: Any) -> dict[str, Any]:
        seen.append(len(next(iter(inputs.values()))))
        return run(program, **inputs)

    rows = {name: column * 1000 for name, column in ROWS.items()}
    count = len(rows["size"])
    tower = word_tower()
    monkeypatch.setattr(tower.encoder, "forward", lambda **inputs: counted(tower.encoder, **inputs))
    found = tower.encode(rows)
    assert seen == [count] and count > 2 * BATCH
    assert near(found, by_hand(rows))
    seen.clear()
    assert tower.encode(rows, batch_size=count // 2).equal(found)
    assert seen == [count // 2] * 2
    seen.clear()
    spec = word_spec()
    free = replace(spec.encoder, inputs=(*spec.encoder.inputs[:1], TensorSpec("column", "float32", ("batch", None))))
    tower = Tower(replace(spec, encoder=free), word_store())
    monkeypatch.setattr(tower.encoder, "forward", lambda **inputs: counted(tower.encoder, **inputs))
    tower.encode(rows)
    assert max(seen) == BATCH


def test_encode_computes_one_output() -> None:
    """The checks stay; an encoder that is hooked, trained or swapped computes all."""
    spec = id_spec()
    nodes = (
        *spec.encoder.nodes[:2], Node("twice", "mul", ("rows", 2.0)), Node("signs", "greater", ("row", 0)),
        Node("positive", "reduce_all", ("signs",), {"axes": (0,)}),
        Node("check", "check", ("positive", "row")), Node("other", "add", ("twice", 1.0)),
    )  # fmt: skip
    encoder = replace(spec.encoder, nodes=nodes, outputs={"embedding": "twice", "other": "other"})
    outputs = tuple(TensorSpec(name, "float32", ("batch", DIM)) for name in encoder.outputs)
    tower = Tower(TowerSpec(spec.preprocess, encoder, None, spec.inputs, outputs, "embedding"), id_store())
    table = id_store()["table"]
    assert tower.encode([1, 2]).equal(2 * table[[1, 2]])
    one = tower.encoder.narrowed(frozenset({"embedding"}))
    assert [node.name for node in one.graph.nodes] == [n.name for n in nodes if n.name != "other"]
    assert one is tower.encoder.narrowed(frozenset({"embedding"}))
    assert tower.encoder.narrowed(frozenset(encoder.outputs)) is tower.encoder
    with pytest.raises(InputError, match="assertion failed"):
        tower.encode([0])
    with torch.no_grad():
        tower.encoder.table.fill_(1.0)
    assert tower.encode([1]).equal(torch.full((1, DIM), 2.0)), "the weights are the same ones"
    assert tower.to(torch.float64).encode([1]).dtype == torch.float64
    assert copy.deepcopy(tower).encode([3]).equal(torch.full((1, DIM), 2.0, dtype=torch.float64))
    seen: list[set[str]] = []
    hook = tower.encoder.register_forward_hook(lambda _, __, found: seen.append(set(found)))
    tower.encode([1])
    hook.remove()
    assert seen == [{"embedding", "other"}]
    assert tower.encoder.runs(tower.spec.encoder) and not tower.encoder.train().runs(tower.spec.encoder)


def test_options_of_encode(capsys: pytest.CaptureFixture[str]) -> None:
    tower = word_tower()
    found = tower.encode(ROWS, convert_to_numpy=True)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32 and near(torch.from_numpy(found), by_hand(ROWS))
    assert tower.encode(ROWS, normalize_embeddings=True).norm(dim=1).allclose(torch.ones(4))
    tower.encode(ROWS, batch_size=1, show_progress_bar=True)
    assert "4/4" in capsys.readouterr().err
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="batch_size"):
            tower.encode(ROWS, batch_size=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batchsize"):
        two_towers().encode_query(ROWS, batchsize=3)


def test_embeddings_can_take_part_in_training() -> None:
    found = word_tower().encode(ROWS)
    head = nn.Linear(DIM, 1)
    head(found).sum().backward()
    assert head.weight.grad is not None and not found.requires_grad and not found.is_inference()
    assert not word_tower()(ROWS)["embedding"].is_inference()


def test_no_rows() -> None:
    towers = two_towers()
    for empty in ([], {"word": [], "size": []}, {"word": np.array([], dtype=object), "size": np.zeros(0)}):
        assert towers.encode_query(empty).shape == (0, DIM)
    assert towers.encode_query([], convert_to_numpy=True).dtype == np.float32
    assert towers.encode_candidate([]).shape == (0, DIM)
    found = towers.candidate([]) if towers.candidate else {}
    assert found["name"].shape == (0,) and found["name"].dtype == object and found["embedding"].shape == (0, DIM)


def test_no_rows_where_the_signature_does_not_tell_the_shape() -> None:
    spec = word_spec()
    tower = Tower(
        TowerSpec(
            spec.preprocess, spec.encoder, None, spec.inputs, (TensorSpec("embedding", "float32", ("batch", None)),)
        ),
        word_store(),
    )
    assert tower.encode({"word": [], "size": []}).shape == (0, DIM)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
@pytest.mark.parametrize("ids, row, value", [([1, 2, 30, 4], 2, "30"), ([-1, 2], 0, "-1"), ([1] * 50 + [99], 50, "99")])
def test_an_id_out_of_range_is_named(ids: list[int], row: int, value: str, batch_size: int) -> None:
    with pytest.raises(InputError, match=f"feature 'id', row {row}: the tower refuses {value}: .*not in \\[0, 8\\)"):
        id_tower().encode(ids, batch_size=batch_size)
    with pytest.raises(InputError, match=f"feature 'id', row {row}: "):
        id_tower()(ids)


def test_an_index_error_of_the_encoder_is_named() -> None:
    """An id that no check guards: torch's own IndexError becomes a sentence."""
    encoder = Graph((TensorSpec("row", "int64", ("batch",)), TensorSpec("x", "float32", ("batch",))), (
        Node("table", "parameter", (), {"tensor": "table"}), Node("rows", "gather", ("table", "row"), {"axis": 0}),
    ), {"embedding": "rows"})  # fmt: skip
    inputs = (TensorSpec("id", "int64", ("batch",)), TensorSpec("weight", "float32", ("batch",)))
    pre = Graph(inputs, (), {"row": "id", "x": "weight"})
    tower = Tower(
        TowerSpec(pre, encoder, None, inputs, (TensorSpec("embedding", "float32", ("batch", DIM)),)), id_store()
    )
    with pytest.raises(InputError, match="feature 'id', row 1: the tower refuses 8"):
        tower.encode({"id": [7, 8, 1], "weight": [0.0, 1.0, 2.0]})


def test_which_output_is_the_embedding() -> None:
    spec = id_spec()
    two = (TensorSpec("a", "float32", ("batch", 2)), TensorSpec("b", "float32", ("batch", 2)))
    encoder = Graph(spec.encoder.inputs, spec.encoder.nodes, {"a": "rows", "b": "rows"})
    tower = Tower(TowerSpec(spec.preprocess, encoder, None, spec.inputs, two), id_store())
    with pytest.raises(InputError, match=r"its outputs are 'a' \(float32.*'b' \(float32"):
        tower.encode([1])
    with pytest.raises(CheckpointError, match="not an output"):
        Tower(TowerSpec(spec.preprocess, encoder, None, spec.inputs, two, "c"), id_store())
    tower = Tower(TowerSpec(spec.preprocess, encoder, None, spec.inputs, two, "b"), id_store())
    assert tower.encode([1]).equal(id_store()["table"][[1]])


def test_names_of_a_signature_may_be_anything() -> None:
    spec = word_spec()
    inputs = (TensorSpec("the word:0", "string", ("batch",)), TensorSpec("size/cm", "float32", ("batch",)))
    tower = Tower(TowerSpec(spec.preprocess, spec.encoder, None, inputs, spec.outputs), word_store())
    assert near(tower.encode({"size/cm": ROWS["size"], "the word:0": ROWS["word"]}), by_hand(ROWS))


def test_inputs_without_rows_are_not_cut_into_batches() -> None:
    inputs = (TensorSpec("x", "float32", ("batch", 2)), TensorSpec("factor", "float32", ()))
    pre = Graph(inputs, (), {"x": "x", "factor": "factor"})
    encoder = Graph(inputs, (Node("y", "mul", ("x", "factor")),), {"y": "y"})
    spec = TowerSpec(pre, encoder, None, inputs, (TensorSpec("y", "float32", ("batch", 2)),), None, {"factor": "f"})
    tower = Tower(spec, {"f": torch.tensor(10.0)})
    x = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert tower.encode({"x": x, "factor": 2.0}, batch_size=1).equal(2 * torch.tensor(x))
    assert tower.encode({"x": x}, batch_size=1).equal(10 * torch.tensor(x))
    assert tower.defaults["factor"] == 10


# -- as a module --------------------------------------------------------------------------------------------------------


def test_sixteen_threads() -> None:
    tower = word_tower()
    expected = tower.encode(ROWS)
    wrong: list[Any] = []

    def work() -> None:
        try:
            wrong.extend(i for i in range(20) if not tower.encode(ROWS).equal(expected))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_running_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = word_tower()
    sizes: list[int] = []
    real = tower.encoder.forward

    def forward(**tensors: Any) -> Any:
        sizes.append(len(tensors["ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no memory")
        return real(**tensors)

    monkeypatch.setattr(tower.encoder, "forward", forward)
    assert tower.encode(ROWS).allclose(by_hand(ROWS), rtol=1e-6, atol=1e-6)
    assert sizes == [4, 2, 2]
    monkeypatch.setattr(
        tower.encoder, "forward", lambda **tensors: (_ for _ in ()).throw(torch.OutOfMemoryError("none"))
    )
    with pytest.raises(torch.OutOfMemoryError):
        tower.encode(ROWS)


# -- precision and device ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-6), (torch.float16, 0.02), (torch.bfloat16, 0.2)])
def test_dtypes(dtype: torch.dtype, bound: float, tmp_path: Path) -> None:
    two_towers().save(tmp_path / "c")
    towers = load(tmp_path / "c", dtype=dtype)
    assert towers.query is not None and towers.query.dtype == dtype
    found = towers.encode_query(ROWS)
    assert found.dtype == dtype and (found.double() - by_hand(ROWS).double()).abs().max() < bound
    assert towers.query.preprocess(ROWS)["column"].dtype == torch.float32
    assert towers.encode_query([]).dtype == dtype
    assert towers.encode_query(ROWS, convert_to_numpy=True).dtype == (
        np.float32 if dtype == torch.bfloat16 else str(dtype)[6:]
    )
    if dtype == torch.float64:
        assert near(towers.to(dtype=torch.float32).encode_query(ROWS), by_hand(ROWS))


def test_only_float32_changes() -> None:
    """A tensor that TensorFlow's graph holds as float64 or float16 stays what it is, there and back."""
    inputs = (TensorSpec("x", "float32", ("batch", 2)),)
    nodes = (
        Node("w", "parameter", (), {"tensor": "w"}), Node("h", "constant", (), {"tensor": "h"}),
        Node("wide", "cast", ("x",), {"dtype": "float64"}), Node("y", "mul", ("wide", "w")),
        Node("z", "cast", ("y",), {"dtype": "float32"}), Node("half", "cast", ("h",), {"dtype": "float32"}),
        Node("out", "add", ("z", "half")),
    )  # fmt: skip
    graph = Graph(inputs, nodes, {"y": "out"})
    store = {"w": torch.tensor([1 / 3, 3.0], dtype=torch.float64), "h": torch.tensor([0.5, 0.25], dtype=torch.float16)}
    tower = Tower(
        TowerSpec(Graph(inputs, (), {"x": "x"}), graph, None, inputs, (TensorSpec("y", "float32", ("batch", 2)),)),
        store,
    )
    before = tower.encode([[1.0, 2.0]])
    for dtype in (torch.float16, torch.float64, torch.float32):
        found = tower.to(dtype=dtype).encode([[1.0, 2.0]])
        assert found.dtype == dtype and found.allclose(before.to(dtype), rtol=1e-3)
        assert tower.encoder.w.dtype == torch.float64 and tower.encoder.h.dtype == torch.float16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda() -> None:
    towers = two_towers().to("cuda")
    found = towers.encode_query(ROWS)
    assert found.device.type == "cuda" and found.cpu().allclose(by_hand(ROWS), atol=1e-5)
    assert isinstance(towers.encode_query(ROWS, convert_to_numpy=True), np.ndarray)
    assert towers.candidate is not None and towers.candidate([5])["name"].tolist() == [WORDS[5]]
    with pytest.raises(InputError):
        towers.encode_candidate([99])
    assert towers.encode_candidate([1]).device.type == "cuda"


# -- words -------------------------------------------------------------------------------------------------------------


def test_graphs_that_do_not_fit_together() -> None:
    spec = word_spec()
    lacking = Graph(spec.preprocess.inputs, spec.preprocess.nodes, {"ids": "lookup"}, spec.preprocess.modules)
    with pytest.raises(CheckpointError, match="takes 'column', which the preprocessing does not produce"):
        Tower(TowerSpec(lacking, spec.encoder, None, spec.inputs, spec.outputs), word_store())
    with pytest.raises(CheckpointError, match="the output 'x'"):
        Tower(
            TowerSpec(spec.preprocess, spec.encoder, None, spec.inputs, (TensorSpec("x", "float32", None),)),
            word_store(),
        )


def test_importing_and_loading_bring_in_nothing_heavy(tmp_path: Path) -> None:
    """Neither other frameworks nor torch's compiler, which takes seconds to import."""
    two_towers().save(tmp_path / "c")
    code = (
        f"import sys, torch_towers; torch_towers.load({str(tmp_path / 'c')!r}).encode_candidate([1]);"
        "bad = {'tensorflow', 'transformers', 'pandas', 'pyarrow', 'porting', 'keras', 'tqdm.auto', 'google.protobuf',"
        " 'torch._dynamo', 'sympy'} & set(sys.modules); sys.exit(str(sorted(bad)) if bad else 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_strings_helper() -> None:
    assert strings([b"a", b"b"], (2, 1)).tolist() == [[b"a"], [b"b"]]
