"""Candidates from files, in blocks: rows that are embedded on the fly, or embeddings written by `embed`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.bulk.ahead import ahead
from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job
from torch_towers.bulk.manifest import is_unfinished
from torch_towers.bulk.read import READING, column_names, parquet_file, read_blocks
from torch_towers.bulk.run import check_columns
from torch_towers.bulk.sources import MAX_LINE, MAX_RATIO, Source, find_sources
from torch_towers.bulk.worker import Worker
from torch_towers.extras import need
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.text_lines import unescape
from torch_towers.search.index import Found, Index
from torch_towers.search.similarity import top_k
from torch_towers.two_tower import TwoTower

Piece = tuple[np.ndarray[Any, Any], list[Any]]
"""Embeddings `[n, dim]` float32, and their ids."""

_BLOCK = 16 << 20  # bytes of embeddings per block


def read_candidates(
    towers: TwoTower, inputs: Sequence[str], id_column: str | None = None, columns: Mapping[str, str] | None = None,
    *, max_line: int = MAX_LINE, max_ratio: int = MAX_RATIO,
) -> Generator[Piece]:  # fmt: skip
    """The candidates in files, in order: rows for the candidate tower, or Parquet or `.npy` written by `embed`.

    Memory does not grow with the files. `max_line` and `max_ratio` limit each file (`bulk/sources.py`). Errors:
    `BulkError` with the file and, if a row is invalid, the row.
    """
    for item in inputs:
        if is_unfinished(Path(item)):
            raise BulkError(f"{item}: is not finished: run the same embed command again to resume it")
    folder = Path(inputs[0])
    if len(inputs) == 1 and (folder / "embeddings.npy").is_file():
        return ahead(_numpy(folder))
    sources = find_sources(inputs, max_line, max_ratio)
    if all(source.kind == "parquet" and column_names(source) == ["id", "embedding"] for source in sources):
        return ahead(_parquet(sources))
    return _embedded(towers, sources, id_column, columns or {})


def read_index(towers: TwoTower, candidates: Generator[Piece]) -> Index:
    """An in-memory index of the candidates."""
    vectors: list[np.ndarray[Any, Any]] = []
    ids: list[Any] = []
    for found, names in candidates:
        vectors.append(found)
        ids += names
    if not vectors:
        raise BulkError("the files hold no candidates")
    whole = np.concatenate(vectors)
    vectors.clear()  # the index may make its own copy
    return towers.index(whole, ids)


def search(towers: TwoTower, queries: Any, candidates: Generator[Piece], k: int) -> Found:
    """The best candidates of each query, like `Index.search`, without keeping the candidates in memory.

    `queries`: inputs of the query tower. Ties go to the candidate that comes first in the files.
    """
    vectors: Tensor = towers.encode_query(queries)
    scores = torch.empty(len(vectors), 0)
    ids = np.empty((len(vectors), 0), object)
    with closing(candidates):
        for block, names in candidates:
            found, places = top_k(vectors, block, k, towers.similarity_function)
            scores, order = torch.cat([scores, found.cpu()], 1).sort(dim=1, descending=True, stable=True)
            scores, order = scores[:, :k], order[:, :k].numpy()
            ids = np.concatenate([ids, strings(names)[places.cpu().numpy()]], axis=1)
            ids = np.take_along_axis(ids, order, 1)
    return Found(scores, ids)


def _numpy(folder: Path) -> Generator[Piece]:
    place, numbers, texts = folder / "embeddings.npy", folder / "ids.npy", folder / "ids.txt"
    named = numbers if numbers.is_file() else texts
    try:
        with place.open("rb") as file, named.open("rb") as ids:
            rows, dim = _shape(file, place, "float32", 2)
            if named is numbers and _shape(ids, numbers, "int64", 1) != (rows,):
                raise BulkError(f"{numbers}: does not hold an id for each of the {rows} embeddings")
            step = _step(dim)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                # Read instead of mapped: mapped pages count as this process's memory until they are evicted.
                vectors = np.fromfile(file, "<f4", count * dim)
                names = _id_numbers(ids, count) if named is numbers else _id_lines(ids, count)
                if vectors.size != count * dim or len(names) != count:
                    raise BulkError(f"{place if vectors.size != count * dim else named}: ends before its {rows} rows")
                yield vectors.reshape(count, dim), names
    except READING as error:
        raise BulkError(f"{folder}: cannot be read: {error}") from error


def _shape(file: Any, place: Path, dtype: str, rank: int) -> tuple[int, ...]:
    """Reads the header of a .npy file and returns the shape."""
    npy = np.lib.format
    version = npy.read_magic(file)
    shape, fortran, found = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if found != np.dtype(dtype) or len(shape) != rank or (fortran and rank > 1):
        raise BulkError(f"{place}: holds {found} {list(shape)}, but embed writes {dtype} of rank {rank}")
    return tuple(shape)


def _id_numbers(file: Any, count: int) -> list[Any]:
    return cast("list[Any]", np.fromfile(file, "<i8", count).tolist())


def _id_lines(file: Any, count: int) -> list[Any]:
    return [unescape(line.rstrip(b"\n")).decode() for line in islice(file, count)]


def _step(dim: int) -> int:
    return max(1, _BLOCK // (4 * max(dim, 1)))


def _parquet(sources: Sequence[Source]) -> Generator[Piece]:
    pa = need("pyarrow", "bulk")
    for source in sources:
        file = parquet_file(source)
        kind = file.schema_arrow.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
            raise BulkError(f"{source.path}: its embeddings are {kind}, not lists of float32 of one length")
        try:
            for batch in file.iter_batches(batch_size=_step(kind.list_size), use_threads=False):
                ids, vectors = batch.columns
                flat = vectors.flatten()
                if ids.null_count or vectors.null_count or flat.null_count:
                    raise BulkError(f"{source.path}: holds nulls, which embed does not write")
                yield np.array(flat).reshape(-1, kind.list_size), ids.to_pylist()
        except READING as error:
            raise BulkError(f"{source.path}: cannot be read: {error}") from error


def _embedded(
    towers: TwoTower, sources: Sequence[Source], id_column: str | None, columns: Mapping[str, str]
) -> Generator[Piece]:
    if towers.candidate is None:
        raise BulkError("this checkpoint has no candidate tower")
    job = Job(
        checkpoint="", checkpoint_sha256="", tower="candidate", sources=tuple(sources), folder=".",
        id_column=id_column, columns=tuple(columns.items()),
    )  # fmt: skip
    worker = Worker(job, towers.candidate)
    check_columns(job, worker)
    for source in sources:
        blocks = read_blocks(source, worker.wanted, job.batch_size, lambda index: False)
        with closing(worker.embedded(blocks)) as embedded:
            for _, (names, found, _, bad) in embedded:
                if bad:
                    raise BulkError(f"{source.path}, row {min(bad)[0]}: {min(bad)[1]}")
                yield found, cast("list[Any]", names)
