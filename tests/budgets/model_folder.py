"""A SavedModel's whole folder as one input, a tar: its port, the checkpoint saved and loaded, and a call."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from porting.saved_model import protos, read
from porting.tower import port_tower
from tests.porting.graphs import const, node, save
from tests.porting.saved_model.tables import index_of, mask, varint
from torch_towers import TwoTower, load

FLOATS = {"T": "float32"}


def archived(files: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def _graph(nodes: list[Any], output: str, dtype: str, inputs: Mapping[str, Any], asset: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), nodes, {"y": (dtype, output)}, (), inputs)
        data = (Path(folder) / "saved_model.pb").read_bytes()
    message = protos.parse("SavedModel", data, "")
    if asset:
        meta = message.meta_graphs[0]
        made = meta.asset_file_def.add(filename=asset)
        made.tensor_info.name = "path:0"
        meta.collection_def["saved_model_main_op"].node_list.value.append("fill")
    return message.SerializeToString()


def entry(
    data: bytes, dtype: int = 1, shape: tuple[int, ...] = (2, 3), checksum: int | None = None, offset: int = 0
) -> Any:
    """The entry of a tensor in the index; by default a float32 [2, 3]."""
    checksum = crc32c(data) if checksum is None else checksum
    made = protos.message_class("BundleEntryProto")(dtype=dtype, size=len(data), crc32c=mask(checksum), offset=offset)
    for size in shape:
        made.shape.dim.add(size=size)
    return made


def with_variables(entries: Mapping[bytes, Any], shard: bytes, read_as: str = "float32", **declared: Any) -> bytes:
    """x + the variable `v`, whose graph says what is `declared`."""
    attrs = {"dtype": "float32", "shape": (2, 3), "shared_name": b"v"} | declared
    kept = {name: value for name, value in attrs.items() if value is not None}
    nodes = [node("v", "VarHandleOp", **kept), node("r", "ReadVariableOp", "v", dtype=read_as)]
    if read_as == "float32":
        nodes.append(node("y", "AddV2", "x", "r", **FLOATS))
    graph = _graph(nodes, "y:0" if read_as == "float32" else "r:0", read_as, {"x": ("float32", (-1, 2, 3))})
    return archived(
        {
            "saved_model.pb": graph,
            "variables/variables.index": index_of(entries),
            "variables/variables.data-00000-of-00001": shard,
        }
    )


def with_strings(lengths: np.ndarray, texts: bytes, wrong: int = 0) -> bytes:
    """A variable of strings that no output reads; `wrong` is added to its checksum. The lengths are below 128, or one."""
    packed = lengths.astype(np.uint8).tobytes() if lengths.max() < 128 else b"".join(map(varint, lengths.tolist()))
    of_lengths = crc32c(lengths.astype("<u4").tobytes())
    tail = mask(of_lengths).to_bytes(4, "little") + texts
    shard = packed + tail
    good = np.zeros(6, np.float32).tobytes()
    made = entry(shard, 7, (len(lengths),), crc32c(tail, of_lengths) + wrong, len(good))
    return with_variables({b"v": entry(good), b"words": made}, good + shard)


def with_vocabulary(
    lines: bytes,
    key_index: int = -2,
    key_dtype: str = "string",
    vocab_size: int = -1,
    asked: str = "",
    default: Any = None,
) -> bytes:
    """The line numbers of the words of an asset, by TensorFlow's rules for its lines; `asked` for other keys than it has."""
    asked, default = asked or key_dtype, np.int64(-1) if default is None else default
    found = default.dtype.name
    nodes = [
        const("path", np.array(b"words.txt", object)),
        node("table", "HashTableV2", key_dtype=key_dtype, value_dtype="int64", shared_name=b"words"),
        node(
            "fill", "InitializeTableFromTextFileV2", "table", "path", key_index=key_index, value_index=-1, vocab_size=vocab_size,
            delimiter=b"\t", offset=0,
        ),
        const("none", default),
        node("y", "LookupTableFindV2", "table", "x", "none", Tin=asked, Tout=found),
    ]  # fmt: skip
    graph = _graph(nodes, "y:0", found, {"x": (asked, (-1,))}, "words.txt")
    return archived({"saved_model.pb": graph, "assets/words.txt": lines})


def seeds() -> list[bytes]:
    data = np.arange(6, dtype="<f4").tobytes()
    return [
        with_variables({b"v": entry(data)}, data),
        with_strings(np.array([1, 0, 2]), b"abc"),
        with_vocabulary(b"a\nb\n"),
    ]


def attempt(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(folder / "model", filter="data")
        TwoTower(port_tower(read(folder / "model")).tower()).save(folder / "towers")
        shutil.rmtree(folder / "model")
        tower = load(folder / "towers").query
        assert tower is not None
        dtype = tower.inputs[0].dtype
        rows = (
            np.array([b"a", b"unknown"], object)
            if dtype == "string"
            else np.zeros((2, 2, 3) if dtype == "float32" else 2, dtype)
        )
        tower({"x": rows})
