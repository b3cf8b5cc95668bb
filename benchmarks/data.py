"""The input rows for all engines: plain Python and numpy, equal in each process, without TensorFlow."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
CITIES = [f"city {i}" for i in range(500)]
USERS, ITEMS, DIM = 20_000, 100_000, 64
HISTORY = 50
IMAGE = (32, 32, 3)
IMAGE_TOWERS = ("mobilenet v2", "efficientnet b0", "resnet50", "vit")


def packages() -> list[dict[str, str]]:
    """The rows of the demo's table."""
    with (ROOT / "examples" / "packages" / "packages.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _taken(rows: list[Any], count: int) -> list[Any]:
    return random.Random(count).choices(rows, k=count)


def queries(count: int) -> Columns:
    """Two or three words of a description."""
    pick = random.Random(count)
    texts = [row["description"].split() for row in _taken(packages(), count)]
    return {"text": [" ".join(pick.choices(words or ["tool"], k=pick.randint(2, 3))) for words in texts]}


def candidates(count: int) -> Columns:
    """Whole rows of the demo's table."""
    rows = _taken(packages(), count)
    columns: Columns = {name: [row[name] for row in rows] for name in ("name", "section", "description")}
    return {**columns, "size": [float(row["size"]) for row in rows]}


def users(count: int) -> Columns:
    """Ids, one in twenty of them unknown."""
    pick = random.Random(count)
    return {"user_id": [f"user-{pick.randrange(USERS + USERS // 20)}" for _ in range(count)]}


def features(count: int) -> Columns:
    """Two ids, a category, two numbers and a short text."""
    pick = random.Random(count)
    titles = [" ".join(row["description"].split()[:6]) for row in _taken(packages(), count)]
    return {
        **users(count),
        "device": [f"device-{pick.randrange(1_000_000)}" for _ in range(count)],
        "city": [pick.choice(CITIES) for _ in range(count)],
        "age": [pick.uniform(10, 90) for _ in range(count)],
        "price": [pick.lognormvariate(3, 1) for _ in range(count)],
        "title": titles,
    }


def descriptions(count: int) -> Columns:
    """Texts of about twenty words."""
    return {"text": [row["description"] for row in _taken(packages(), count)]}


def examples(count: int) -> Columns:
    """The features of `features` as serialized tf.Example messages."""
    columns = features(count)
    rows = zip(*columns.values(), strict=True)
    return {"examples": [_example(dict(zip(columns, row, strict=True))) for row in rows]}


def words(count: int) -> Columns:
    """Queries of one to twelve words, mostly short like real ones."""
    pick = random.Random(count)
    texts = [row["description"].split() or ["tool"] for row in _taken(packages(), count)]
    return {"text": [" ".join(pick.choices(text, k=min(pick.randint(1, 12), pick.randint(1, 12)))) for text in texts]}


def histories(count: int) -> Columns:
    """A user's history of 0 to 50 items, padded with 0, and two features of the user."""
    pick = np.random.default_rng(count)
    lengths = pick.integers(0, HISTORY + 1, (count, 1))
    items = pick.integers(1, ITEMS, (count, HISTORY))
    return {
        "items": np.where(np.arange(HISTORY) < lengths, items, 0),
        "age": pick.uniform(10, 90, count).astype(np.float32),
        "city": [CITIES[i] for i in pick.integers(0, len(CITIES), count)],
    }


def floats(count: int) -> Columns:
    """A hundred floats per row, as a numpy array."""
    return {"x": np.random.default_rng(count).standard_normal((count, 100), dtype=np.float32)}


def images(count: int) -> Columns:
    """Small images, as numbers from 0 to 255."""
    return {"image": np.random.default_rng(count).integers(0, 256, (count, *IMAGE)).astype(np.float32)}


INPUTS: dict[str, Callable[[int], Columns]] = {
    "packages query": queries,
    "packages candidate": candidates,
    "tfrs ids": users,
    "features": features,
    "sentencepiece": descriptions,
    "serialized examples": examples,
    "brute force": users,
    "mlp": floats,
    "bert 4x256": words,
    "bert 2x128": words,
    "bigru": words,
    "history": histories,
    **dict.fromkeys(IMAGE_TOWERS, images),
}
"""The inputs of each tower."""


def _example(row: dict[str, Any]) -> bytes:
    """One tf.Example, encoded by hand, since its readers are being measured. Source: example.proto."""
    return _field(
        1, b"".join(_field(1, _field(1, key.encode()) + _field(2, _feature(value))) for key, value in row.items())
    )


def _feature(value: Any) -> bytes:
    if isinstance(value, str):
        return _field(1, _field(1, value.encode()))
    return _field(2, _field(1, np.float32(value).tobytes()))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + _varint(value >> 7)
