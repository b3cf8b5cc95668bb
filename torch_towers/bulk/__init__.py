"""Bulk embedding: files of rows to files of embeddings, in bounded memory, resumable after a kill.

The rows of a file are numbered from 0 and split into parts of `rows_per_part`. Each part is computed, written and
renamed into place on its own, so every engine and every resumed run writes the same bytes.
"""

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job, Output
from torch_towers.bulk.run import Summary, run

__all__ = ["BulkError", "Job", "Output", "Summary", "run"]
