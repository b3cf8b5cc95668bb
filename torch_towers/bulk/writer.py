"""Writer: what an output format is, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from torch_towers.bulk.features import Problems
from torch_towers.bulk.job import Job, Output


class Writer:
    """Writes the part `name` of a job; its files go into `folder`. What a format has no need of is as here."""

    takes_restricts: ClassVar[bool] = False
    """Whether restricts and crowding tags can be written."""

    joined: ClassVar[frozenset[str]] = frozenset()
    """Files of the output that `finish` makes of all parts."""

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        raise NotImplementedError

    def add(
        self, ids: Sequence[Any], embeddings: np.ndarray[Any, Any], extras: Mapping[str, Sequence[Any]]
    ) -> Problems:
        """Writes the rows that the format can hold, and gives the others, by position."""
        raise NotImplementedError

    def close(self) -> list[Path]:
        """The files that were written."""
        raise NotImplementedError

    @staticmethod
    def check(output: Output, files: int | None) -> None:
        """Refuses at once what could not be used at the end; `files`: how many the output will have, if known. Errors: `BulkError`."""

    @staticmethod
    def is_result(file: str) -> bool:
        """Whether a part's file belongs to the output; what only the job needs lies beside it."""
        return True

    @staticmethod
    def finish(job: Job, parts: Sequence[Path], rows: int, dim: int, id_type: str) -> None:
        """What is done when all parts are in place; `parts`: their files without suffix, in the job's folder. Errors: `BulkError`."""
