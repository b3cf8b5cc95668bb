"""Writers: an output format is one class that declares its needs, registered in `WRITERS`.

A writer gets the batches of one part, and returns the files that it wrote. To add a format: a class like
`ParquetWriter` (derive from `Writer`, override what differs), its line in `WRITERS`, and the help of `--format` in
`commands/embed.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job, Output
from torch_towers.bulk.vertex import VertexWriter
from torch_towers.bulk.writer import Writer
from torch_towers.checkpoint.folder import sync, writing
from torch_towers.extras import need
from torch_towers.formats.text_lines import to_lines

_GROUP = 16 << 20  # bytes of embeddings per row group


class ParquetWriter(Writer):
    """`id` (int64 or string), `embedding` (fixed_size_list<float32>)."""

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        path = folder / f"{name}.parquet"
        pa, parquet = need("pyarrow", "bulk"), need("pyarrow.parquet", "bulk")
        self._pa, self._path, self._dim = pa, path, dim
        kind = pa.int64() if id_type == "int64" else pa.string()
        self._schema = pa.schema([("id", kind), ("embedding", pa.list_(pa.float32(), dim))])
        # Embeddings do not compress: only the ids are compressed.
        self._writer = parquet.ParquetWriter(
            path, self._schema, use_dictionary=False, write_statistics=["id"],
            compression={"id": "zstd", "embedding.list.element": "none"},
        )  # fmt: skip
        self._held: list[Any] = []
        self._size = 0

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        pa = self._pa
        flat = pa.array(np.ascontiguousarray(embeddings).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, self._dim)
        self._held.append(pa.record_batch([pa.array(ids, self._schema.field("id").type), vectors], schema=self._schema))
        self._size += embeddings.nbytes
        if self._size >= _GROUP:
            self._flush()
        return {}

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._pa.Table.from_batches(self._held), row_group_size=1 << 30)
        self._held, self._size = [], 0

    def close(self) -> list[Path]:
        self._flush()
        self._writer.close()
        return [self._path]


class NumpyWriter(Writer):
    """The raw float32 of a part, and its ids; at the end one array of all parts."""

    joined = frozenset({"embeddings.npy", "ids.npy", "ids.txt"})

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        path = folder / name
        self._path, self._numbers = path, id_type == "int64"
        self._vectors: Any = path.with_suffix(".f32").open("wb")
        self._ids: Any = path.with_suffix(".ids").open("wb")

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        self._vectors.write(np.ascontiguousarray(embeddings).data)
        self._ids.write(np.asarray(ids, "<i8").tobytes() if self._numbers else to_lines(map(str.encode, ids)))
        return {}

    def close(self) -> list[Path]:
        self._vectors.close()
        self._ids.close()
        return [self._path.with_suffix(".f32"), self._path.with_suffix(".ids")]

    @staticmethod
    def is_result(file: str) -> bool:
        return False

    @staticmethod
    def finish(job: Job, parts: Sequence[Path], rows: int, dim: int, id_type: str) -> None:
        with writing(job.work / "embeddings.npy"):
            joined = join(parts, rows, dim, id_type, job.work)
        for path in joined:
            sync(path)
            os.replace(path, Path(job.folder) / path.name)
        sync(Path(job.folder))


def join(parts: Sequence[Path], rows: int, dim: int, id_type: str, folder: Path) -> list[Path]:
    """Joins the parts (paths without suffix) to `embeddings.npy` `[rows, dim]` and `ids.npy`, or `ids.txt` with an id
    per line."""
    vectors, ids = folder / "embeddings.npy", folder / ("ids.npy" if id_type == "int64" else "ids.txt")
    with vectors.open("wb") as file:
        _header(file, (rows, dim), "<f4")
        _append(file, [part.with_suffix(".f32") for part in parts])
    with ids.open("wb") as file:
        if id_type == "int64":
            _header(file, (rows,), "<i8")
        _append(file, [part.with_suffix(".ids") for part in parts])
    return [vectors, ids]


WRITERS: Mapping[str, type[Writer]] = {
    "parquet": ParquetWriter,
    "npy": NumpyWriter,
    "vertex-json": VertexWriter,
    "vertex-csv": VertexWriter,
    "vertex-avro": VertexWriter,
}
"""The output formats by their `--format` names."""


def writer_of(output: Output) -> type[Writer]:
    """The writer class of a format. Errors: `BulkError`."""
    if output.format not in WRITERS:
        raise BulkError(f"the format must be one of {', '.join(WRITERS)}, not {output.format!r}")
    return WRITERS[output.format]


def _header(file: Any, shape: tuple[int, ...], dtype: str) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def _append(file: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        with path.open("rb") as part:
            while data := part.read(1 << 20):
                file.write(data)
