"""`saved_model.pb`: its bytes, and its messages, through reading, conversion and lifting."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from random import Random

from porting.errors import PortingError
from porting.saved_model import protos, read
from porting.tower import port_tower
from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_message
from tests.torch_towers.ports import PACKAGES

MODEL = PACKAGES / "query_model"


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """The demo's query tower; it lives as long as the process."""
    made = tempfile.TemporaryDirectory()
    shutil.copytree(MODEL, made.name, dirs_exist_ok=True)
    return made


def seeds() -> list[bytes]:
    folder()
    return [(MODEL / "saved_model.pb").read_bytes()]


def mutated(data: bytes, random: Random) -> bytes:
    try:
        message = protos.parse("SavedModel", data, "")
    except PortingError:
        return of_bytes(data, random)
    if random.random() < 0.1:
        return of_bytes(data, random)
    of_message(message, random)
    return message.SerializeToString(deterministic=True)


def attempt(data: bytes) -> None:
    path = Path(folder().name)
    (path / "saved_model.pb").write_bytes(data)
    port_tower(read(path))


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
