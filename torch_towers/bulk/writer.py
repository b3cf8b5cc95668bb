"""The base class of output formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job, Output


class Writer:
    """Writes the part `name` of a job into `folder`. Subclasses override what differs from these defaults."""

    takes_restricts: ClassVar[bool] = False
    """Whether the format has restricts and crowding tags."""

    joined: ClassVar[frozenset[str]] = frozenset()
    """Output files that `finish` makes of all parts."""

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        raise NotImplementedError

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        """Writes the rows that the format can represent, and returns the problems of the others, by position."""
        raise NotImplementedError

    def close(self) -> list[Path]:
        """The files written."""
        raise NotImplementedError

    @staticmethod
    def check(output: Output, files: int | None) -> None:
        """Refuses early what would fail at the end; `files`: the number of output files, if known. Errors:
        `BulkError`."""

    @staticmethod
    def is_result(file: str) -> bool:
        """Whether a part's file belongs to the output; files that only the job needs stay beside it."""
        return True

    @staticmethod
    def finish(job: Job, parts: Sequence[Path], rows: int, dim: int, id_type: str) -> None:
        """Runs when all parts are in place; `parts`: their files without suffix, in the job's folder. Errors:
        `BulkError`."""
