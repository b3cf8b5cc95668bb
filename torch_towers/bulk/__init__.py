"""Bulk embedding: files of rows in, files of embeddings out, in bounded memory, and resumed after a kill.

The rows of a file are numbered from 0 and cut into parts of `rows_per_part`; a part is computed, written and renamed into place by
itself, whatever engine runs it, so every engine and every resumed run gives the same bytes.
"""

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job, Output
from torch_towers.bulk.run import Summary, run

__all__ = ["BulkError", "Job", "Output", "Summary", "run"]
