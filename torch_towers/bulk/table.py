"""Tables: files of candidates as an index, in memory: rows that are embedded here, or embeddings that `embed` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job
from torch_towers.bulk.read import column_names, read_blocks
from torch_towers.bulk.run import check_columns
from torch_towers.bulk.sources import Source, find_sources
from torch_towers.bulk.worker import Worker
from torch_towers.extras import need
from torch_towers.index import Index
from torch_towers.text_lines import from_lines
from torch_towers.two_tower import TwoTower


def read_index(
    towers: TwoTower, inputs: Sequence[str], id_column: str | None = None, columns: Mapping[str, str] | None = None
) -> Index:
    """The index of the candidates in files: rows for the candidate tower, or what `embed` wrote as Parquet or `.npy`.

    Errors: `BulkError`, which names the row.
    """
    folder = Path(inputs[0])
    if len(inputs) == 1 and (folder / "embeddings.npy").is_file():
        return towers.index(*_numpy(folder))
    sources = find_sources(inputs)
    if all(source.kind == "parquet" and column_names(source) == ["id", "embedding"] for source in sources):
        return towers.index(*_parquet(sources))
    return towers.index(*_embedded(towers, sources, id_column, columns or {}))


def _numpy(folder: Path) -> tuple[Any, Any]:
    vectors = np.load(folder / "embeddings.npy", allow_pickle=False)
    numbers = folder / "ids.npy"
    if numbers.is_file():
        return vectors, np.load(numbers, allow_pickle=False)
    return vectors, [name.decode() for name in from_lines((folder / "ids.txt").read_bytes())]


def _parquet(sources: Sequence[Source]) -> tuple[Any, Any]:
    pa, parquet = need("pyarrow", "bulk"), need("pyarrow.parquet", "bulk")
    table = pa.concat_tables([parquet.read_table(source.path) for source in sources]).combine_chunks()
    vectors = table.column("embedding").combine_chunks()
    if not pa.types.is_fixed_size_list(vectors.type) or vectors.type.value_type != pa.float32() or vectors.null_count:
        raise BulkError(f"{sources[0].path}: its embeddings are {vectors.type}, not lists of float32 of one length")
    flat = np.array(vectors.flatten()).reshape(-1, vectors.type.list_size)
    return flat, table.column("id").to_pylist()


def _embedded(
    towers: TwoTower, sources: Sequence[Source], id_column: str | None, columns: Mapping[str, str]
) -> tuple[Any, Any]:
    job = Job(
        checkpoint="", checkpoint_sha256="", tower="candidate", sources=tuple(sources), folder=".",
        id_column=id_column, columns=tuple(columns.items()),
    )  # fmt: skip
    if towers.candidate is None:
        raise BulkError("this checkpoint has no candidate tower")
    worker = Worker(job, towers.candidate)
    check_columns(job, worker)
    ids: list[Any] = []
    vectors: list[np.ndarray[Any, Any]] = []
    for source in sources:
        for block in read_blocks(source, worker.wanted, job.batch_size, lambda index: False):
            names, found, _, bad = worker.embed(block)
            if bad:
                raise BulkError(f"{source.path}, row {min(bad)[0]}: {min(bad)[1]}")
            ids += cast("list[Any]", names)
            vectors.append(found)
    return (np.concatenate(vectors) if vectors else np.zeros((0, worker.dim), np.float32)), ids
