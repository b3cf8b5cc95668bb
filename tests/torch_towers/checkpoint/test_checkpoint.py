"""Checkpoints round-trip, and damaged, foreign or incomplete ones are refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import torch_towers
from tests.torch_towers.budget import within_budget
from tests.torch_towers.towers import (
    ROWS,
    WORDS,
    id_spec,
    id_store,
    strings,
    two_towers,
    word_spec,
    word_store,
    word_tower,
)
from torch_towers import CheckpointError, Side, TwoTower, load, save_checkpoint
from torch_towers.checkpoint.checkpoint import read_checkpoint


def config_of(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


def reseal(path: Path, config: Any) -> None:
    """Writes a changed config.json with its correct sha256, like an attacker."""
    config["sha256"] = "0" * 64
    data = json.dumps(config).encode()
    (path / "config.json").write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))


# -- what it is for ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_gives_the_same_numbers(saved: Path) -> None:
    before, after = two_towers(), load(saved)
    assert after.encode_query(ROWS).equal(before.encode_query(ROWS))
    found, expected = after.candidate({"id": [5, 0]}), before.candidate({"id": [5, 0]})
    assert found["name"].tolist() == expected["name"].tolist() == [b"\xff\xfe", b"red"]
    assert found["embedding"].equal(expected["embedding"])
    assert (after.similarity_function, after.source) == ("dot", {"query": "made by hand"})


def test_what_lies_in_the_folder(saved: Path) -> None:
    names = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    assert names == {"config.json", "model.safetensors", "MODEL.md", "parity.json",
                     "vocabularies/query.table.keys.txt", "vocabularies/candidate.words.txt"}  # fmt: skip
    assert set(load_file(saved / "model.safetensors")) == set(config_of(saved)["tensors"])
    lines = (saved / "vocabularies/candidate.words.txt").read_text().splitlines()
    assert lines == ["red", "green", "blue", "", "new\\nline", "\\xff\\xfe", "back\\\\slash", "naïve"]


def test_saving_twice_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "vocabularies/candidate.words.txt"):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("dtype", list(torch_towers.checkpoint.checkpoint.TORCH_DTYPES))
def test_every_dtype_and_shape_survives(dtype: str, tmp_path: Path) -> None:
    from torch_towers.graph.graph import Graph, Node

    values = [
        torch.zeros((), dtype=torch.int64),
        torch.arange(6).reshape(2, 3),
        torch.zeros(0, 4),
        torch.arange(12).reshape(3, 4).T,
    ]
    store: dict[str, Any] = {
        f"t{i}": value.to(torch_towers.checkpoint.checkpoint.TORCH_DTYPES[dtype]) for i, value in enumerate(values)
    }
    store["odd"] = torch.ones(3, dtype=torch.uint8)  # moves what follows off its alignment, if the writer let it
    nodes = tuple(Node(name, "constant", (), {"tensor": name}) for name in store)
    side = Side(id_spec(), {**store, **id_store()})
    graph = Graph((), nodes, {})
    spec = torch_towers.TowerSpec(graph, Graph((), (), {}), None, (), ())
    save_checkpoint(tmp_path / "c", query=Side(spec, side.store))
    query = read_checkpoint(tmp_path / "c").query
    assert query is not None
    for name, value in store.items():
        found = query.store[name]
        assert (
            isinstance(found, torch.Tensor)
            and found.dtype == value.dtype
            and found.shape == value.shape
            and found.equal(value)
        )


def test_shared_weights_are_stored_once_and_stay_one_parameter(tmp_path: Path) -> None:
    store = word_store()
    other = word_store(1) | {"embedding.weight": store["embedding.weight"], "table.keys": store["table.keys"]}
    save_checkpoint(tmp_path / "c", query=Side(word_spec(), store), candidate=Side(word_spec(), other))
    config = config_of(tmp_path / "c")
    assert "candidate.embedding.weight" not in config["tensors"] and "candidate.dense.weight" in config["tensors"]
    assert list(config["vocabularies"]) == ["query.table.keys"]
    towers = load(tmp_path / "c")
    assert towers.query is not None and towers.candidate is not None
    assert towers.query.encoder.embedding.weight is towers.candidate.encoder.embedding.weight
    assert towers.query.encoder.dense.weight is not towers.candidate.encoder.dense.weight
    towers.encode_candidate(ROWS)
    towers.candidate.encoder(**towers.candidate.preprocess(ROWS))["embedding"].sum().backward()
    assert towers.query.encoder.embedding.weight.grad is not None
    towers.save(tmp_path / "d")
    assert config_of(tmp_path / "d")["tensors"] == config["tensors"]


def test_frozen_weights_stay_frozen(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", query=Side(word_spec(), word_store(), frozenset({"scale", "dense.weight"})))
    tower = load(tmp_path / "c").query
    assert tower is not None
    trained = {name for name, value in tower.encoder.named_parameters() if value.requires_grad}
    assert trained == {"embedding.weight", "dense.bias"}


def test_a_long_single_value_is_a_file_of_its_own_bytes(tmp_path: Path) -> None:
    words = np.empty((), dtype=object)
    words[()] = os.urandom(5000)
    save_checkpoint(tmp_path / "c", candidate=Side(id_spec(), id_store() | {"words": words}))
    assert (tmp_path / "c/vocabularies/candidate.words.bin").read_bytes() == words.item()
    found = read_checkpoint(tmp_path / "c").candidate
    assert found is not None and found.store["words"].shape == () and found.store["words"].item() == words.item()


# -- what must be refused -----------------------------------------------------------------------------------------------


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(path, **options)


INLINE = [strings([b"\xff\n\\ \x00", "naïve".encode()]), strings([b""], ()), strings([b"x"] * 4, (2, 2)), strings([])]


def inlined(path: Path, words: Any) -> Any:
    """A checkpoint whose postprocessing names the constant `words`; gives its entry in config.json."""
    save_checkpoint(path, candidate=Side(id_spec(), id_store() | {"words": words}))
    return config_of(path)["vocabularies"]["candidate.words"]


@pytest.mark.parametrize("words", INLINE, ids=lambda words: str(words.shape))
def test_small_string_constants_stand_in_the_config(words: Any, tmp_path: Path) -> None:
    assert inlined(tmp_path / "c", words).keys() == {"values", "shape"}
    assert list((tmp_path / "c/vocabularies").iterdir()) == []
    candidate = read_checkpoint(tmp_path / "c").candidate
    assert candidate is not None
    found = candidate.store["words"]
    assert found.shape == words.shape and found.dtype == object and found.tolist() == words.tolist()


@pytest.mark.parametrize("words", [strings([b"x"] * 5), strings([b"x" * 1024])], ids=["many", "long"])
def test_larger_string_constants_are_files(words: Any, tmp_path: Path) -> None:
    assert "file" in inlined(tmp_path / "c", words)


@pytest.mark.parametrize("entry, message", [
    ({"values": ["a"], "shape": [2]}, "has 1 tokens; config.json says"), ({"values": ["a"], "shape": [-1]}, "config.json says"),
    ({"values": [1], "shape": [1]}, "must be"), ({"values": "a", "shape": [1]}, "must be"),
    ({"values": ["\\q"], "shape": [1]}, "not an escape"), ({"values": ["\ud800"], "shape": [1]}, "not UTF-8"),
    ({"values": ["a"], "shape": [1], "file": "x"}, "unknown key 'file'"), ({"values": ["a"]}, "lacks 'shape'"),
])  # fmt: skip
def test_attacks_on_inline_constants(entry: Any, message: str, tmp_path: Path) -> None:
    inlined(tmp_path / "c", strings([b"a"] * 2))
    config = config_of(tmp_path / "c")
    config["vocabularies"]["candidate.words"] = entry
    reseal(tmp_path / "c", config)
    refused(tmp_path / "c", message)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabularies/query.table.keys.txt"])
def test_every_flipped_bit_and_every_cut_is_found(saved: Path, name: str) -> None:
    file = saved / name
    data = file.read_bytes()
    step = max(1, len(data) // 150)
    for place in range(0, len(data), step):
        file.write_bytes(data[:place])
        refused(saved, ".")
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        refused(saved, ".")
    file.write_bytes(data + b"\n")
    refused(saved, ".")
    file.write_bytes(data)
    load(saved)


def change_tensor(**fields: Any) -> Callable[[Any], None]:
    return lambda config: config["tensors"]["query.dense.weight"].update(fields)


def change_vocabulary(**fields: Any) -> Callable[[Any], None]:
    return lambda config: config["vocabularies"]["query.table.keys"].update(fields)


CONFIGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another shape": (change_tensor(shape=[4, 5]), r"query.dense.weight' is \[4, 4\]; config.json says \[4, 5\]"),
    "a shape beyond memory": (change_tensor(shape=[1 << 40, 4]), "config.json says"),
    "a negative shape": (change_tensor(shape=[-4, -4]), "and the shape"),
    "another dtype": (change_tensor(dtype="float64"), "is F32; config.json says float64"),
    "a dtype that is none": (change_tensor(dtype="pickle"), "has the dtype 'pickle'"),
    "trainable text": (change_tensor(trainable="yes"), "trainable"),
    "a trainable integer": (lambda c: c["tensors"]["query.table.values"].update(trainable=True), "only for floats"),
    "a tensor fewer": (lambda c: c["tensors"].pop("candidate.table"), "stored as 'candidate.table'"),
    "a tensor more": (lambda c: c["tensors"].update({"query.x": c["tensors"]["query.scale"]}), "no tower uses"),
    "a name with a path": (lambda c: c["tensors"].update({"../x": c["tensors"]["query.scale"]}), "not a name"),
    "a tower fewer": (lambda c: c["towers"].pop("candidate"), "no tower uses"),
    "a third tower": (lambda c: c["towers"].update(third=c["towers"]["query"]), "unknown key 'third'"),
    "an op from elsewhere": (lambda c: c["towers"]["query"]["encoder"]["nodes"][-1].update(op="os.system"), "no op 'os.system'"),
    "shared with nothing": (lambda c: c["towers"]["query"]["shared"].update(scale="query.nothing"), "not in the checkpoint"),
    "an output from nowhere": (lambda c: c["towers"]["query"]["encoder"]["outputs"].clear(), "no graph produces"),
    "an embedding from nowhere": (lambda c: c["towers"]["query"].update(embedding="x"), "not an output of the signature"),
    "a default from nowhere": (lambda c: c["towers"]["query"]["defaults"].update(size="x"), "has no 'x'"),
    "inputs that do not fit": (lambda c: c["towers"]["query"]["inputs"].pop(), "inputs"),
    "a path that leaves": (change_vocabulary(file="../../etc/passwd"), "not a file in vocabularies/"),
    "an absolute path": (change_vocabulary(file="/etc/passwd"), "not a file in vocabularies/"),
    "a hidden path": (change_vocabulary(file="vocabularies/../config.txt"), "not a file in vocabularies/"),
    "a drive": (change_vocabulary(file="vocabularies\\..\\c:x.txt"), "not a file in vocabularies/"),
    "a path with NUL": (change_vocabulary(file="vocabularies/a\0.txt"), "not a file in vocabularies/"),
    "another number of tokens": (change_vocabulary(shape=[9]), "has 8 tokens; config.json says"),
    "another sha256": (change_vocabulary(sha256="0" * 63 + "1"), "sha256"),
    "a newer version": (lambda c: c.update(version=2), "update torch_towers"),
    "an older version": (lambda c: c.update(version=0), "port the model again"),
    "a version that is none": (lambda c: c.update(version="1"), "not the config.json of"),
    "another format": (lambda c: c.update(format="gguf"), "not the config.json of"),
    "another similarity": (lambda c: c.update(similarity="euclid"), "neither 'dot' nor 'cosine'"),
    "an unknown key": (lambda c: c.update(code="x"), "unknown key 'code'"),
    "a missing key": (lambda c: c.pop("weights"), "lacks 'weights'"),
    "another size": (lambda c: c["weights"].update(size=5), "config.json says 5"),
    "a size that is text": (lambda c: c["weights"].update(size="5"), "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", CONFIGS.values(), ids=CONFIGS.keys())
def test_attacks_on_the_config(saved: Path, change: Callable[[Any], Any], message: str) -> None:
    config = config_of(saved)
    reseal(saved, config)
    load(saved)  # the attack is what is refused, not the sealing
    change(config)
    reseal(saved, config)
    refused(saved, message)


def vocabulary_of(config: Any) -> dict[str, Any]:
    """The arguments of a lookup of words that is put beside the query tower's own."""
    graph = config["towers"]["query"]["preprocess"]
    graph["modules"]["words"] = {
        "type": "StringLookup",
        "args": {"vocabulary": "table.keys", "first_id": 1, "oov_id": 0},
    }
    graph["nodes"].append({"name": "more", "op": "module", "inputs": ["word"], "attrs": {"module": "words"}})
    return graph["modules"]["words"]["args"]


def test_a_lookup_as_those_that_are_attacked_is_good(saved: Path) -> None:
    config = config_of(saved)
    vocabulary_of(config)
    reseal(saved, config)
    load(saved)


LOAD = """
try: torch_towers.load(sys.argv[1]); print("loaded")
except CheckpointError as error: print(error)
"""


@pytest.mark.parametrize("data, said", [
    (b"{" + b",".join(b'"k%d": 0' % i for i in range(200_000)) + b', "k7": 1}', "the key 'k7' stands twice"),
    (b'{"a": [' + b"[]," * (16 << 20) + b"[]]}", "values, more than the limit of 4194304"),
    (b"[" * 1_000_000, "is nested too deeply"),
])  # fmt: skip
def test_configs_that_cost_more_than_they_weigh(saved: Path, data: bytes, said: str) -> None:
    (saved / "config.json").write_bytes(data)
    assert said in within_budget(LOAD, str(saved))


def test_a_good_checkpoint_needs_little_memory(saved: Path) -> None:
    assert within_budget(LOAD, str(saved)) == "loaded\n"


@pytest.mark.parametrize("change", [
    lambda config: config["weights"].update(sha256="\ud800"),
    lambda config: config["vocabularies"]["query.table.keys"].update(sha256="\ud800"),
    lambda config: config["vocabularies"]["query.table.keys"].update(shape=[1] * 1001),
    lambda config: config["vocabularies"].update({"query.table.keys": {"values": ["\ud800"], "shape": [1]}}),
    lambda config: config["towers"]["query"]["encoder"]["nodes"][-1].update(op="cast", inputs=["scaled"], attrs={"dtype": "float33"}),
    lambda config: config["towers"]["query"]["encoder"]["nodes"][-1].update(inputs=["scaled", {"bytes": "\ud800"}]),
    *(lambda config, args=args: vocabulary_of(config).update(args) for args in (
        {"oov_buckets": -1}, {"oov_buckets": -(1 << 63)}, {"first_id": (1 << 64) - 1}, {"first_id": (1 << 63) - 1}, {"oov_id": 1 << 63}, {"mask_id": 1 << 63},
    )),
])  # fmt: skip
def test_no_other_error_comes_out(saved: Path, change: Callable[[Any], Any]) -> None:
    config = config_of(saved)
    change(config)
    reseal(saved, config)
    with pytest.raises(CheckpointError):
        load(saved)


def test_a_sha256_that_is_no_text(saved: Path) -> None:
    config = config_of(saved)
    (saved / "config.json").write_text(json.dumps({**config, "sha256": "\ud800"}))
    with pytest.raises(CheckpointError, match=r"was changed or damaged: it cannot be read \(UnicodeEncodeError"):
        load(saved)


def test_a_config_of_endless_size(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_towers.checkpoint.checkpoint, "MAX_CONFIG", 100)
    refused(saved, "more than the limit of 100")


def test_loading_runs_no_code_and_opens_nothing_else(saved: Path) -> None:
    """The whole load under an audit hook: no pickle, no process, no socket, no file outside of the folder, no writing."""
    seen: list[str] = []
    active = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not active[0]:
            return
        if event in ("pickle.find_class", "subprocess.Popen", "socket.connect", "os.system", "exec", "compile"):
            seen.append(event)
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append(f"writes {args[0]}")

    load(saved)  # lazy imports are done
    sys.addaudithook(hook)
    try:
        load(saved)
    finally:
        active[0] = False
    assert seen == []


# -- writing ------------------------------------------------------------------------------------------------------------


def test_nothing_is_saved_that_could_not_be_loaded(tmp_path: Path) -> None:
    store = id_store()
    with pytest.raises(CheckpointError, match="'table', which its store lacks"):
        save_checkpoint(tmp_path / "c", query=Side(id_spec(), {"words": store["words"]}))
    assert not (tmp_path / "c").exists() and not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with pytest.raises(CheckpointError, match=r"holds 'cat\.jpg'"):
        two_towers().save(tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["cat.jpg"]
    with pytest.raises(CheckpointError, match="is a file"):
        two_towers().save(tmp_path / "photos/cat.jpg")
    with pytest.raises(CheckpointError, match="lies below one"):
        two_towers().save(tmp_path / "photos/cat.jpg/deep")
    (tmp_path / "empty").mkdir()
    two_towers().save(tmp_path / "empty")
    load(tmp_path / "empty")


def fork(action: Callable[[], None]) -> int:
    """Runs `action` in a child process; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree")


@pytest.mark.parametrize("existing", [True, False])
def test_killed_at_any_moment(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, existing: bool) -> None:
    """A save that dies before its n-th system call, for each n: the old checkpoint, the new one, or none, never a partial one."""
    path = tmp_path / "c"
    old, new = TwoTower(word_tower(0)), TwoTower(word_tower(1))
    template = tmp_path_factory.mktemp("old") / "c"
    old.save(template)
    for moment in range(500):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if existing:
            shutil.copytree(template, path)

        def save(moment: int = moment) -> None:
            left = [moment]

            def die(event: str, args: Any) -> None:
                if event in EVENTS:
                    if left[0] == 0:
                        os._exit(9)
                    left[0] -= 1

            sys.addaudithook(die)
            new.save(path)

        code = fork(save)
        assert code in (0, 9)
        if path.exists():
            found = load(path).encode_query(ROWS)
            assert found.equal(new.encode_query(ROWS)) or (existing and found.equal(old.encode_query(ROWS)))
        if code == 9 and (moment % 5 == 0 or not path.exists()):  # the next save succeeds, and clears up
            for left in tmp_path.iterdir():
                os.utime(left, (0, 0))  # left long ago
            old.save(path)
            assert load(path).encode_query(ROWS).equal(old.encode_query(ROWS))
            assert [item.name for item in tmp_path.iterdir()] == ["c"]
        if code == 0:
            break
    assert moment > 10 and load(path).encode_query(ROWS).equal(new.encode_query(ROWS))


def test_two_writers_and_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "c"
    towers = [TwoTower(word_tower(seed)) for seed in (0, 1)]
    answers = [tower.encode_query(ROWS) for tower in towers]
    towers[0].save(path)
    errors: list[BaseException] = []

    def write(tower: TwoTower) -> None:
        try:
            for _ in range(15):
                tower.save(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(tower,)) for tower in towers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = load(path).encode_query(ROWS)
        assert any(found.equal(answer) for answer in answers)
    assert errors == []
    assert [item.name for item in tmp_path.iterdir()] == ["c"]


def test_names_that_differ_only_in_case_are_two_files(tmp_path: Path) -> None:
    from torch_towers.graph.graph import Graph, Node, TensorSpec

    names = ["words", "Words", "w" * 300]
    store = {name: strings([name.encode(), WORDS[5]]) for name in names}
    nodes = tuple(Node(f"n{i}", "constant", (), {"tensor": name}) for i, name in enumerate(names))
    post = Graph((), nodes, {f"o{i}": f"n{i}" for i in range(3)})
    empty = Graph((), (), {})
    outputs = tuple(TensorSpec(f"o{i}", "string", (2,)) for i in range(3))
    save_checkpoint(tmp_path / "c", query=Side(torch_towers.TowerSpec(empty, empty, post, (), outputs), store))
    tower = load(tmp_path / "c").query
    assert tower is not None
    assert [tower({})[f"o{i}"].tolist()[0] for i in range(3)] == [name.encode() for name in names]
