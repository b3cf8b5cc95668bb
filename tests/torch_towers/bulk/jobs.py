"""What tests of bulk jobs share: tables of rows, jobs over them, what they wrote."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.torch_towers.towers import DIM, WORDS
from torch_towers import load
from torch_towers.bulk import Job, Output
from torch_towers.bulk.sources import find_sources

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

ROOT = Path(__file__).parents[3]


TEXTS = [word.decode() for word in WORDS if word not in (b"\xff\xfe", b"new\nline")]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    choose = random.Random(seed)
    return [
        {"sku": f"s{i}", "word": choose.choice([*TEXTS, "other"]), "size": round(choose.uniform(-2, 2), 3), "color": "red", "n": i}
        for i in range(count)
    ]  # fmt: skip


def expected(checkpoint: Path, table: Sequence[dict[str, Any]]) -> Any:
    """Of the words and sizes, all at once: the tower works by rows."""
    found = load(checkpoint).encode_candidate({name: [row[name] for row in table] for name in ("word", "size")})
    return found.numpy()


def near(found: Any, wanted: Any) -> bool:
    """Equal but for rounding: a batch of one row takes another matrix product than a larger one."""
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-6, atol=1e-7)


def write(path: Path, table: Sequence[dict[str, Any]], **options: Any) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(table)), path, **options)
    elif ".jsonl" in path.suffixes:
        data = "".join(json.dumps(row) + "\n" for row in table).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    else:
        sep, quote = (",", '"') if ".csv" in path.suffixes else ("\t", "")
        lines = [sep.join(table[0])] + [sep.join(f"{quote}{value}{quote}" for value in row.values()) for row in table]
        data = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def job(checkpoint: Path, inputs: Path | Sequence[Path], folder: Path, **options: Any) -> Job:
    given: dict[str, Any] = {"id_column": "sku", "batch_size": 4, "rows_per_part": 12, **options}
    listed = [inputs] if isinstance(inputs, Path) else inputs
    digest = hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()
    sources = tuple(find_sources([str(path) for path in listed]))
    return Job(str(checkpoint), digest, "candidate", sources, str(folder), **given)


def result(folder: Path) -> tuple[list[Any], Any]:
    table = pq.read_table(folder)
    return table["id"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32).reshape(-1, DIM)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


VERTEX = Output(
    "vertex-json", restricts=(("color", "color"),), denies=(("shade", "color"),),
    numeric_restricts=(("n", "n", "int"), ("size", "size", "float"), ("wide", "size", "double")), crowding_tag="color",
)  # fmt: skip
