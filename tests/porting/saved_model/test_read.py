"""Errors for folders that are not a SavedModel, or an incomplete one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import protos, read
from porting.saved_model.files import read_asset
from tests.porting.saved_model.conftest import mutate

PACKAGES = Path(__file__).parents[3] / "examples" / "packages"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def message(*tag_sets: list[str]) -> bytes:
    model = protos.message_class("SavedModel")(saved_model_schema_version=1)
    for tags in tag_sets:
        model.meta_graphs.add().meta_info_def.tags.extend(tags)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "files, error",
    [
        ({}, "found nothing"),
        ({"weights.bin": b""}, "found weights.bin"),
        ({"1/saved_model.pb": b""}, "did you mean .*/1"),
        ({"saved_model.cpb": b""}, "over 2 GB"),
        ({"tfhub_module.pb": b""}, "Hub"),
        ({"config.json": b"", "model.weights.h5": b""}, r"\.keras"),
        ({"model.keras": b"PK\x03\x04"}, "a folder with a Keras model, model.keras: load it in Keras"),
        ({"model.h5": b"\x89HDF"}, "a folder with a Keras model, model.h5"),
        ({"model.weights.h5": b"\x89HDF"}, "weights of a Keras model, and no graph"),
        ({"checkpoint": b"", "ckpt-1.index": b"", "ckpt-1.data-00000-of-00001": b""}, "a TensorFlow checkpoint: .*without the graph"),
        ({"variables/variables.index": b""}, "saved_model.pb is missing: copy the whole folder"),
        ({"config.json": b"{}", "model.safetensors": b"", "tokenizer_config.json": b""}, "a Hugging Face model: load it with"),
        ({"config.json": b"{}", "tf_model.h5": b""}, "a Hugging Face model for TensorFlow: .*saved_model=True"),
        ({"config.json": b"{}", "model.safetensors": b"", "vocabularies/x.txt": b""}, "a checkpoint of torch_towers, which is ported already"),
        ({"index.json": b"{}", "index.safetensors": b""}, "an index of torch_towers"),
        ({"saved_model.pb": POINTER}, "saved_model.pb: is a git-lfs pointer.*git lfs pull"),
        ({"saved_model.pb": b""}, "0 bytes"),
        ({"saved_model.pb": message()}, "no meta graph"),
        ({"saved_model.pb": b"\x12\xff"}, "not a SavedModel"),
        ({"saved_model.pb": b"\x89HDF\r\n\x1a\n" + bytes(100)}, "not a SavedModel"),
        ({"saved_model.pbtxt": b"meta_graphs {"}, "not a SavedModel"),
        ({"saved_model.pbtxt": b"\xff"}, "UTF-8"),
        ({"saved_model.pbtxt": b""}, "no meta graph"),
        ({"saved_model.pb": message(["serve"], ["serve", "gpu"])}, "no default among its entries"),
        ({"saved_model.pb": message(["a"], ["b"])}, "2 meta graphs, name the tags of one: a; b"),
        ({"saved_model.pb": message(["serve"])}, "without callable functions; save the model again with signatures"),
    ],
)  # fmt: skip
def test_incomplete_directories(tmp_path: Path, files: dict[str, bytes], error: str) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PortingError, match=error) as caught:
        read(tmp_path).default_entry()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "name, data, error",
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("model.keras", b"PK\x03\x04", r"\.keras"),
        ("model.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("module.tar.gz", b"\x1f\x8b\x08", "gzip"),
        ("saved_model.pb", message(["serve"]), "name the directory"),
        ("pointer", POINTER, "git-lfs pointer"),
        ("ckpt-1.index", b"", "a part of a TensorFlow checkpoint"),
        ("ckpt-1.data-00000-of-00001", b"", "a part of a TensorFlow checkpoint"),
        ("empty", b"", "not a directory"),
    ],
)
def test_files_are_no_saved_models(tmp_path: Path, name: str, data: bytes, error: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PortingError, match=error):
        read(tmp_path / name)
    with pytest.raises(PortingError, match="no such directory"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001", "assets/*"])
def test_git_lfs_pointers_in_place_of_files(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also in place of a vocabulary, where the pointer's three lines would be its words."""
    from porting.port import main

    path = tmp_path / "model"
    shutil.copytree(PACKAGES / "query_model", path)
    places = list(path.glob(name))
    for place in places:
        place.write_bytes(POINTER)
    if places:
        assert main(["--query", str(path), "-o", str(tmp_path / "out"), "--no-verify"]) == 2
        assert f"{places[0]}: is a git-lfs pointer" in capsys.readouterr().err


def test_a_vocabulary_that_is_a_git_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(POINTER)
    with pytest.raises(CorruptModelError, match=r"words\.txt: is a git-lfs pointer"):
        read_asset(tmp_path / "words.txt")


def test_without_its_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from porting.port import main

    path = tmp_path / "model"
    shutil.copytree(PACKAGES / "query_model", path)
    shutil.rmtree(path / "variables")
    assert main(["--query", str(path), "-o", str(tmp_path / "out"), "--no-verify"]) == 2
    assert "variables/variables.index is missing; copy the whole folder" in capsys.readouterr().err


def test_a_proto_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "saved_model.pb").open("wb") as file:
        file.truncate(1 << 31)
    tracemalloc.start()
    with pytest.raises(CorruptModelError, match="2147483648 bytes, over the limit of 2147483647"):
        read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "saved_model.pb")
    with pytest.raises(CorruptModelError, match="regular"):
        read(tmp_path)


def test_binary_form_is_preferred(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)
    (path / "saved_model.pbtxt").write_text("not even text form {")
    assert read(path).default_entry() == "serve"


def test_every_truncated_proto_is_refused(tmp_path: Path) -> None:
    model = protos.message_class("SavedModel")()
    model.ParseFromString(message(["serve"]))
    node = model.meta_graphs[0].graph_def.node.add(name="c", op="Const")
    node.attr["dtype"].type = 1
    data = model.SerializeToString()
    for length in range(len(data)):
        (tmp_path / "saved_model.pb").write_bytes(data[:length])
        with pytest.raises(CorruptModelError):
            read(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(data)
    assert read(tmp_path).tags == ("serve",)


def test_tags(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(message(["serve"], ["serve", "gpu"], []))
    assert read(tmp_path).tags == ("serve",)
    assert read(tmp_path, tags=["gpu", "serve"]).tags == ("gpu", "serve")
    assert read(tmp_path, tags=[]).tags == ()
    with pytest.raises(PortingError, match=r"serve; gpu, serve; \(no tags\)"):
        read(tmp_path, tags=["tpu"])
    (tmp_path / "saved_model.pb").write_bytes(message(["transform"]))
    assert read(tmp_path).tags == ("transform",)


def test_verification_may_be_left_to_the_caller(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)
    shard = path / "variables" / "variables.data-00000-of-00001"
    good = bytearray(shard.read_bytes())
    good[0] ^= 1
    shard.write_bytes(good)
    with pytest.raises(CorruptModelError, match=r"variables\.data-00000-of-00001: .*'strings/"):
        read(path)
    model = read(path, verify=False)
    with pytest.raises(CorruptModelError, match="strings"):
        model.verify()


def test_every_cut_shard_is_refused(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)
    shard = path / "variables" / "variables.data-00000-of-00001"
    size = shard.stat().st_size
    for length in {*range(0, size, 4096), size - 1}:
        os.truncate(shard, length)
        with pytest.raises(CorruptModelError, match=r"shard|truncated"):
            read(path)
    shard.unlink()
    with pytest.raises(CorruptModelError, match=r"variables\.data-00000-of-00001: missing"):
        read(path)


@pytest.mark.parametrize("name", ["", "../vocabulary.txt", "/etc/passwd", "missing", "a\\b", "gs://x/y"])
def test_bad_asset_names(module_path: Path, copy: Callable[[Path], Path], name: str) -> None:
    path = copy(module_path)
    mutate(path, lambda meta: setattr(meta.asset_file_def[0], "filename", name))
    table = next(table for table in read(path).tables.values() if table.file is not None)
    with pytest.raises(CorruptModelError, match="asset"):
        len(table)


def test_a_missing_vocabulary(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)
    (path / "assets" / "vocabulary.txt").unlink()
    table = next(table for table in read(path).tables.values() if table.file is not None)
    with pytest.raises(CorruptModelError, match="missing"):
        len(table)


def test_tensorflow_and_the_network_are_not_touched(module_path: Path) -> None:
    """In a process of its own: reading imports no TensorFlow, opens no socket, and opens files of the model only, for reading."""
    program = f"""
import sys
import porting.saved_model as sm
opened = []
def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.system", "pickle.", "ctypes.dlopen")):
        raise SystemExit(f"{{event}} {{args}}")
    if event == "open" and isinstance(args[0], str):
        opened.append(args[:2])
sys.addaudithook(hook)
model = sm.read({str(module_path)!r})
for entry in model.entries():
    model.graph(entry)
for table in model.tables.values():
    len(table)
for variable in model.variables.values():
    variable.numpy() if variable.dtype == "string" else variable.tensor()
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
files = [(path, mode) for path, mode in opened if not path.endswith((".py", ".pyc", ".so", "op_definitions.jsonl"))]
assert files, opened
for path, mode in files:
    assert path.startswith({str(module_path)!r}) and mode in ("r", "rb", None), (path, mode)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == 0, done.stderr or done.stdout
