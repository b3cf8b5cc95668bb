"""A vocabulary's lines, with the checksum that config.json has of them, through `load` and a call."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes
from tests.fuzz.test_config import folder, sealed
from tests.torch_towers import towers
from torch_towers import load

NAME = "query.table.keys"


def seeds() -> list[bytes]:
    return [
        (Path(folder().name) / "towers" / "vocabularies" / f"{NAME}.txt").read_bytes(),
        b"a\nb\\x00\nc\nd\ne\nf\n\n\\n\n",
    ]


def mutated(data: bytes, random: Random) -> bytes:
    return of_bytes(data, random)


def attempt(data: bytes) -> None:
    path = Path(folder().name) / "towers"
    config = json.loads((path / "config.json").read_text())
    config["vocabularies"][NAME].update(sha256=hashlib.sha256(data).hexdigest(), shape=[data.count(b"\n")])
    (path / "vocabularies" / f"{NAME}.txt").write_bytes(data)
    (path / "config.json").write_bytes(sealed(json.dumps(config).encode()))
    load(path).encode_query(towers.ROWS)


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
