"""Writers: the files of one part. A writer gets batches of rows, and gives the files that it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job
from torch_towers.bulk.vertex import SUFFIXES, VertexWriter
from torch_towers.extras import need
from torch_towers.formats.text_lines import to_lines

_GROUP = 16 << 20  # bytes of embeddings in a row group


class Writer(Protocol):
    """What the formats have in common."""

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        """Writes the rows that the format can hold, and gives the others, by position."""
        ...

    def close(self) -> list[Path]: ...


def writer(job: Job, folder: Path, name: str, dim: int, id_type: str) -> Writer:
    """The writer of the part `name`, whose files go into `folder`."""
    if job.output.format == "parquet":
        return ParquetWriter(folder / f"{name}.parquet", dim, id_type)
    if job.output.format == "npy":
        return NumpyWriter(folder / name, id_type)
    return VertexWriter(job, folder / f"{name}{SUFFIXES[job.output.format]}", folder / f"{name}.ids", dim)


class ParquetWriter:
    """`id` (int64 or string), `embedding` (fixed_size_list<float32>)."""

    def __init__(self, path: Path, dim: int, id_type: str) -> None:
        pa, parquet = need("pyarrow", "bulk"), need("pyarrow.parquet", "bulk")
        self._pa, self._path, self._dim = pa, path, dim
        kind = pa.int64() if id_type == "int64" else pa.string()
        self._schema = pa.schema([("id", kind), ("embedding", pa.list_(pa.float32(), dim))])
        # Embeddings are noise to a compressor: only the ids are packed.
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


class NumpyWriter:
    """The bare float32 of a part, and its ids; `join` makes one array of all parts."""

    def __init__(self, path: Path, id_type: str) -> None:
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


def join(parts: Sequence[Path], rows: int, dim: int, id_type: str, folder: Path) -> list[Path]:
    """The parts (paths without suffix) as `embeddings.npy` `[rows, dim]` and `ids.npy`, or `ids.txt` with a line for each id."""
    vectors, ids = folder / "embeddings.npy", folder / ("ids.npy" if id_type == "int64" else "ids.txt")
    with vectors.open("wb") as file:
        _header(file, (rows, dim), "<f4")
        _append(file, [part.with_suffix(".f32") for part in parts])
    with ids.open("wb") as file:
        if id_type == "int64":
            _header(file, (rows,), "<i8")
        _append(file, [part.with_suffix(".ids") for part in parts])
    return [vectors, ids]


def _header(file: Any, shape: tuple[int, ...], dtype: str) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def _append(file: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        with path.open("rb") as part:
            while data := part.read(1 << 20):
                file.write(data)
