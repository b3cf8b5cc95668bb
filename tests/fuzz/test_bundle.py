"""The tensor bundle's index, with fixed checksums, over the demo's weights."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from random import Random

from porting.errors import PortingError
from porting.saved_model import protos
from porting.saved_model.bundle import Bundle
from porting.saved_model.sstable import read_table
from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_message
from tests.porting.saved_model.tables import block, entry, table
from tests.torch_towers.ports import PACKAGES

VARIABLES = PACKAGES / "query_model" / "variables"


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """The weights; it lives as long as the process."""
    made = tempfile.TemporaryDirectory()
    shutil.copytree(VARIABLES, made.name, dirs_exist_ok=True)
    return made


def seeds() -> list[bytes]:
    folder()
    return [(VARIABLES / "variables.index").read_bytes()]


def mutated(data: bytes, random: Random) -> bytes:
    try:
        entries = read_table(data, "")
    except PortingError:
        return of_bytes(data, random)
    if not entries or random.random() < 0.2:
        return of_bytes(data, random)
    key = random.choice(list(entries))
    kind = "BundleEntryProto" if key else "BundleHeaderProto"
    try:
        message = protos.parse(kind, entries[key], "")
    except PortingError:
        message = protos.message_class(kind)()
    of_message(message, random)
    value = of_bytes(entries[key], random) if random.random() < 0.2 else message.SerializeToString(deterministic=True)
    if random.random() < 0.1:
        del entries[key]
        key = of_bytes(key, random)
    entries[key] = value
    return table(block(b"".join(entry(name, entries[name]) for name in sorted(entries))))


def attempt(data: bytes) -> None:
    path = Path(folder().name)
    (path / "variables.index").write_bytes(data)
    bundle = Bundle(path / "variables")
    bundle.verify()
    for key in bundle.entries:
        bundle.tensor(key) if bundle.entries[key].dtype.torch is not None else bundle.numpy(key)


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
