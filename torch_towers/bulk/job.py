"""The job: everything that determines the bytes of a bulk embedding; sent to workers and saved in the manifest as
JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.sources import Source

NumericKind = Literal["int", "float", "double"]


@dataclass(frozen=True, slots=True)
class Output:
    """The output format: `format` is a name in `write.WRITERS`. `restricts`: Vector Search namespaces and their
    columns."""

    format: str = "parquet"
    restricts: tuple[tuple[str, str], ...] = ()
    denies: tuple[tuple[str, str], ...] = ()
    numeric_restricts: tuple[tuple[str, str, NumericKind], ...] = ()
    crowding_tag: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it needs besides the features."""
        tag = () if self.crowding_tag is None else (self.crowding_tag,)
        pairs = [column for _, column in (*self.restricts, *self.denies)]
        return tuple(dict.fromkeys((*pairs, *(column for _, column, _ in self.numeric_restricts), *tag)))


@dataclass(frozen=True, slots=True)
class Job:
    """One bulk embedding. `columns`: (feature, column) where the names differ. `id_column` None: ids are row
    numbers."""

    checkpoint: str
    checkpoint_sha256: str
    tower: Literal["query", "candidate"]
    sources: tuple[Source, ...]
    folder: str
    output: Output = Output()
    id_column: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    batch_size: int = 1024
    rows_per_part: int = 102_400
    normalize: bool = False
    device: str = "cpu"
    dtype: str | None = None
    on_error: Literal["fail", "skip"] = "fail"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.rows_per_part < self.batch_size or self.rows_per_part % self.batch_size:
            raise BulkError(
                f"a part must be a whole number of batches: {self.rows_per_part} rows are not a multiple of {self.batch_size}"
            )

    @property
    def work(self) -> Path:
        """The folder of the manifest and unfinished files: beside the output, which holds only results."""
        return work_of(Path(self.folder))

    def identity(self) -> dict[str, Any]:
        """What a resuming run must have in common with the first. Paths and the handling of bad rows may differ."""
        data = dataclasses.asdict(self)
        for name in ("checkpoint", "folder", "on_error"):
            del data[name]
        data["sources"] = [source.identity() for source in self.sources]
        return cast("dict[str, Any]", json.loads(json.dumps(data)))

    def to_json(self) -> str:
        """The job as JSON text, the inverse of `Job.from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        data: dict[str, Any] = json.loads(text)
        output: dict[str, Any] = data.pop("output")
        for name in ("restricts", "denies", "numeric_restricts"):
            output[name] = tuple(tuple(item) for item in output[name])
        data["output"] = Output(**output)
        data["sources"] = tuple(Source(**source) for source in data["sources"])
        data["columns"] = tuple(tuple(item) for item in data["columns"])
        return cls(**data)


def work_of(folder: Path) -> Path:
    """The manifest's folder for an output folder."""
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder.with_name(folder.name + ".job")
