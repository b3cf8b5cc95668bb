"""Files of rows for a bulk job: CSV, TSV and JSON lines, compressed or not."""

from __future__ import annotations

import bz2
import functools
import gzip
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_json
from torch_towers.bulk.read import Wanted, column_names, read_blocks
from torch_towers.bulk.sources import source

PACK = {"gz": lambda data: gzip.compress(data, mtime=0), "bz2": bz2.compress}
CSV = b'id,name,price\n1,red,2.5\n2,"a ""quoted"", one",\n\n3,\xc3\xa9,-1e9\n'
LINES = b'{"id": 1, "name": "red", "price": 2.5}\n{"id": 2, "name": {"b64": "YQ=="}, "price": null}\n{"instance": {"id": 3}, "prediction": [1]}\n'


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """The folder of the files; it lives as long as the process."""
    return tempfile.TemporaryDirectory()


def seeds() -> list[bytes]:
    """A file each: its ending on the first line. After a "=" stands the file itself, not what is compressed."""
    return [
        b"csv\n" + CSV,
        b"tsv\n" + CSV.replace(b",", b"\t"),
        b"jsonl\n" + LINES,
        b"csv.gz\n" + CSV,
        b"jsonl.bz2\n" + LINES,
    ]


def mutated(data: bytes, random: Random) -> bytes:
    ending, _, content = data.partition(b"\n")
    if ending.startswith(b"json") and random.random() < 0.7:
        lines = content.split(b"\n")
        at = random.randrange(len(lines))
        lines[at] = of_json(lines[at], random)
        return ending + b"\n" + b"\n".join(lines)
    return ending + b"\n" + of_bytes(content, random)


def attempt(data: bytes) -> None:
    ending, _, content = data.partition(b"\n")
    kind, _, packed = ending.decode(errors="replace").partition(".")
    packed, itself, _ = packed.partition("=")
    kind = kind if kind in ("csv", "tsv", "jsonl") else "jsonl"
    if packed in PACK:
        whole = content if itself else PACK[packed](content)  # mutates the compressed file if its content says so
        content = of_bytes(whole, Random(len(content))) if content[:1] == b"\xff" else whole
    else:
        packed = ""
    path = Path(folder().name) / f"rows.{kind}{'.' if packed else ''}{packed}"
    path.write_bytes(content)
    file = source(path)
    column_names(file)
    for block in read_blocks(file, Wanted(("id", "name", "price"), frozenset(), "query"), 2, lambda _: False):
        assert len(block.numbers) == len(block)


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
