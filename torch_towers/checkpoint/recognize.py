"""Identifies unexpected files and folders, and says what to do with them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/"
MAX_POINTER = 1024
"""A git-lfs pointer replaces a large file until it is fetched; the git-lfs specification limits its size to this."""

FETCH = "is a git-lfs pointer, not the file itself: run `git lfs pull` in the repository, and copy again"

_EXPORT = "load it in Keras, save it with model.export(DIR), and port DIR"
_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", f"a Keras HDF5 file: {_EXPORT}"),
    (0, b"PK\x03\x04", f"a zip archive; if it is a .keras file, {_EXPORT}, else unpack it"),
    (4, b"TFL3", "a TensorFlow Lite model, which cannot be ported: take the SavedModel that it was made from"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it first"),
    (0, POINTER, FETCH.removeprefix("is ")),
)
_TENSORFLOW = "TensorFlow's weights without the graph: restore them into the model there, save it with tf.saved_model.save, and port that"
_HUGGING_FACE = {
    "modules.json", "config_sentence_transformers.json", "tokenizer_config.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack",
}  # fmt: skip


def recognized(path: Path, reader: str = "") -> str:
    """What `path` is and what to do, as ": this is ...", or nothing. A folder is identified by the names in it; no file
    is opened.

    `reader` is the calling function, which is not recommended again.
    """
    try:
        found = _folder(path, sorted(os.listdir(path))) if path.is_dir() else _file(path)
    except (OSError, ValueError):
        return ""
    return f": this is {found}" if found and not found.endswith(f": {reader} reads it") else ""


def _folder(path: Path, names: Sequence[str]) -> str:
    there = set(names)
    if there & {"saved_model.pb", "saved_model.pbtxt"}:
        return f"a TensorFlow SavedModel: port it first (torch-towers port --query {path} -o OUT), and load what that writes"
    if {"config.json", "model.safetensors", "vocabularies"} <= there:
        return "a checkpoint of torch_towers, which is ported already: torch_towers.load reads it"
    if {"index.json", "index.safetensors"} <= there:
        return "an index of torch_towers: torch_towers.Index.load reads it"
    if there & _HUGGING_FACE or {"config.json", "model.safetensors"} <= there:
        return _hugging_face(there)
    if {"config.json", "model.weights.h5"} <= there:
        return f"an unpacked .keras file: pack it again or fetch the whole one, {_EXPORT}"
    for name in names:
        if name.endswith((".keras", ".h5", ".hdf5")) and not name.endswith(".weights.h5"):
            return f"a folder with a Keras model, {name}: {_EXPORT}"
    if "checkpoint" in there or any(re.search(r"\.data-\d{5}-of-\d{5}$", name) for name in names):
        return f"a TensorFlow checkpoint: {_TENSORFLOW}"
    if any(name.endswith(".weights.h5") for name in names):
        return f"a folder with weights of a Keras model, and no graph: load them into the model, and {_EXPORT[8:]}"
    if "variables" in there:
        return "a part of a SavedModel, whose saved_model.pb is missing: copy the whole folder"
    return ""


def _hugging_face(names: set[str]) -> str:
    if "tf_model.h5" in names:
        return (
            "a Hugging Face model for TensorFlow: load it with its class in transformers, save it with "
            "save_pretrained(DIR, saved_model=True), and port DIR/saved_model/1"
        )
    return "a Hugging Face model: load it with transformers or sentence-transformers, it needs no port"


def _file(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    for offset, magic, what in _MAGIC:
        if head[offset:].startswith(magic):
            return what
    if path.name.endswith(".index") or re.search(r"\.data-\d{5}-of-\d{5}$", path.name) or path.name == "checkpoint":
        return f"a part of a TensorFlow checkpoint: {_TENSORFLOW}"
    return ""
