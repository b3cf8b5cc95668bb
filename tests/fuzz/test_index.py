"""The files of a search index, with the checksums that its index.json has of them, through `Index.load` and a search."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_json
from torch_towers import Index

FILES = ("index.json", "ids.txt", "attributes.json")


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """An index of texts; the folder lives as long as the process."""
    made = tempfile.TemporaryDirectory()
    vectors = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    Index(vectors, ["a", "b", "é", "new\nline", ""], attributes={"price": [1, 2.5, None, "x", [1]]}).save(
        Path(made.name) / "index"
    )
    return made


@functools.cache
def good() -> dict[str, bytes]:
    return {name: (Path(folder().name) / "index" / name).read_bytes() for name in FILES}


def seeds() -> list[bytes]:
    """A file each: its name on the first line."""
    return [name.encode() + b"\n" + data for name, data in good().items()]


def mutated(data: bytes, random: Random) -> bytes:
    name, _, content = data.partition(b"\n")
    change = of_json if name.endswith(b"json") else of_bytes
    return name + b"\n" + change(content, random)


def attempt(data: bytes) -> None:
    name, _, content = data.partition(b"\n")
    files = dict(good())
    if name.decode(errors="replace") in files:
        files[name.decode()] = content
    if name != b"index.json":
        meta = json.loads(files["index.json"])
        meta["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in FILES[1:]}
        files["index.json"] = json.dumps(meta).encode()
    path = Path(folder().name) / "index"
    for file, written in files.items():
        (path / file).write_bytes(written)
    index = Index.load(path)
    found = index.search(np.ones((1, index.dim), np.float32), 2)
    index.rows(found.ids)
    repr(index)


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
