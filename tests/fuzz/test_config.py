"""`config.json` of a checkpoint, with a fixed checksum, through `load` and a call."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_json
from tests.torch_towers import towers
from torch_towers import load

ZEROS = b"0" * 64


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Two small towers; the folder lives as long as the process."""
    made = tempfile.TemporaryDirectory()
    towers.two_towers().save(Path(made.name) / "towers")
    return made


def seeds() -> list[bytes]:
    return [(Path(folder().name) / "towers" / "config.json").read_bytes()]


def mutated(data: bytes, random: Random) -> bytes:
    return of_json(data, random)


def sealed(data: bytes) -> bytes:
    """`data` with its own sha256, so that it is read further."""
    data = re.sub(rb'("sha256": ?")[0-9a-f]{64}"', rb"\g<1>" + ZEROS + b'"', data, count=1)
    return data.replace(ZEROS, hashlib.sha256(data).hexdigest().encode(), 1)


def attempt(data: bytes) -> None:
    path = Path(folder().name) / "towers"
    (path / "config.json").write_bytes(sealed(data))
    loaded = load(path)
    repr(loaded)
    if loaded.query is not None:
        loaded.encode_query(towers.ROWS)
    if loaded.candidate is not None:
        loaded.encode_candidate({"id": [1, 2]})


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
