"""A tower's outputs for a batch as numpy, by the names of TensorFlow's outputs, or the message of its refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch_towers.checkpoint.checkpoint import Candidates
from torch_towers.errors import InputError
from torch_towers.formats.npz import to_numpy
from torch_towers.search.similarity import top_k
from torch_towers.tower import Tower

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A retrieval index on top of a query tower: its candidates, and the names of its outputs."""

    candidates: Candidates
    scores: str | None
    ids: str | None


def answer(tower: Tower, batch: Arrays, ranking: Ranking | None = None) -> dict[str, np.ndarray[Any, Any]] | str:
    """Every output of the tower for one batch, or the message if it refuses the batch.

    With a ranking, the index's outputs for the tower's embedding.
    """
    try:
        with torch.inference_mode():
            found = tower(dict(batch))
            if ranking is None:
                return {name: to_numpy(value) for name, value in found.items()}
            return _ranked(found[tower.embedding], ranking)
    except InputError as error:
        return str(error)


def _ranked(embedding: Any, ranking: Ranking) -> dict[str, np.ndarray[Any, Any]]:
    """Scores and identifiers of the best candidates, as the index returns them."""
    held = ranking.candidates
    scores, rows = top_k(embedding, held.embeddings.to(embedding), held.k)
    ids = rows.to(torch.int32) if held.ids is None else held.ids[to_numpy(rows)]
    found = {ranking.scores: to_numpy(scores), ranking.ids: to_numpy(ids)}
    return {name: value for name, value in found.items() if name is not None}
