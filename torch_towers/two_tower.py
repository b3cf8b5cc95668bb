"""TwoTower: query and candidate towers with the similarity that they were trained for; `load` reads one from a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torch_towers import similarity as scores_of
from torch_towers.checkpoint import Candidates, Side, Similarity, read_checkpoint, save_checkpoint
from torch_towers.errors import CheckpointError, TorchTowersError
from torch_towers.listing import model_card
from torch_towers.tower import Tower

if TYPE_CHECKING:
    from torch_towers.index import Index


class TwoTower:
    """A query tower, a candidate tower, or both, and how their embeddings are compared: "dot" or "cosine"."""

    def __init__(
        self,
        query: Tower | None = None,
        candidate: Tower | None = None,
        similarity: Similarity = "dot",
        source: Mapping[str, Any] | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        self.query = query
        self.candidate = candidate
        self.similarity_function: Similarity = similarity
        self.source = dict(source or {})
        self.candidates = candidates  # of the retrieval index that the query tower was cut from

    def encode_query(self, inputs: Any, **options: Any) -> Any:
        """The embeddings of queries: `n rows -> [n, dim]`. Options: those of `Tower.encode`."""
        return _tower(self.query, "query").encode(inputs, **options)

    def encode_candidate(self, inputs: Any, **options: Any) -> Any:
        """The embeddings of candidates: `n rows -> [n, dim]`. Options: those of `Tower.encode`."""
        return _tower(self.candidate, "candidate").encode(inputs, **options)

    def encode_document(self, inputs: Any, **options: Any) -> Any:
        """`encode_candidate` by the name that sentence-transformers gives it."""
        return self.encode_candidate(inputs, **options)

    def similarity(self, queries: Any, candidates: Any) -> Tensor:
        """The score of every query with every candidate: `[n, dim], [m, dim] -> [n, m]`."""
        return scores_of.similarity(queries, candidates, self.similarity_function)

    def similarity_pairwise(self, queries: Any, candidates: Any) -> Tensor:
        """The score of each query with the candidate of the same row: `[n, dim], [n, dim] -> [n]`."""
        return scores_of.similarity_pairwise(queries, candidates, self.similarity_function)

    def top_k(self, queries: Any, candidates: Any, k: int, exclude: Any = None) -> tuple[Tensor, Tensor]:
        """The best candidates of each query, best first: `[n, dim], [m, dim] -> scores [n, k], indices [n, k]`.

        Exact; of equal scores the lower index comes first; see `torch_towers.similarity.top_k` for NaN, large k and `exclude`.
        """
        return scores_of.top_k(queries, candidates, k, self.similarity_function, exclude)

    def index(
        self,
        candidates: Any = None,
        ids: Any = None,
        *,
        attributes: Mapping[str, Sequence[Any]] | None = None,
        **options: Any,
    ) -> Index:
        """The index of `candidates` (embeddings, or inputs of the candidate tower): `index.search(queries, k) -> scores, ids`.

        Without candidates: of those that the checkpoint holds, where it was ported from a retrieval index. Options and errors: those
        of `torch_towers.Index` (`engine="hnsw"`).
        """
        from torch_towers.index import Index, is_embeddings

        if candidates is None:
            if self.candidates is None:
                raise CheckpointError("this checkpoint holds no candidates: give them, as embeddings or as inputs")
            candidates, ids = self.candidates.embeddings, _known(self.candidates.ids) if ids is None else ids
        vectors = candidates if is_embeddings(candidates) else self.encode_candidate(candidates)
        encode = self.encode_query if self.query is not None else None
        return Index(
            vectors, ids, attributes=attributes, similarity=self.similarity_function, encode_query=encode, **options
        )

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> TwoTower:
        """Moves both encoders, and gives the towers themselves. `dtype` stands for float32 in the encoders."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        for tower in (self.query, self.candidate):
            if tower is not None:
                tower.to(device, dtype)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the towers as they are now, fine-tuned or not, as a checkpoint that `load` reads.

        What the port measured is not carried over: it was measured on other weights. Errors: `CheckpointError`.
        """
        sides: dict[str, Side | None] = {
            "query": self.query.side() if self.query else None,
            "candidate": self.candidate.side() if self.candidate else None,
        }
        towers = {name: tower for name, tower in (("query", self.query), ("candidate", self.candidate)) if tower}
        parity = (
            b'{"compared": false, "reason": "saved by TwoTower.save: the weights may have changed since the port"}\n'
        )
        extra = {"MODEL.md": model_card(towers, self.similarity_function).encode(), "parity.json": parity}
        save_checkpoint(
            path, query=sides["query"], candidate=sides["candidate"],
            candidates=self.candidates, similarity=self.similarity_function, source=self.source, extra_files=extra,
        )  # fmt: skip

    def __repr__(self) -> str:
        parts = [f"TwoTower, similarity: {self.similarity_function}"]
        parts += [
            f"{name}: {tower!r}" for name, tower in (("query", self.query), ("candidate", self.candidate)) if tower
        ]
        return "\n\n".join(parts)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    verify: bool | None = None,
) -> TwoTower:
    """The towers of a checkpoint folder, ready to run. Weights are mapped from the file, not copied.

    `dtype` ("bfloat16", `torch.float16`, ...) stands for float32 in the encoders. `verify`: whether the sha256 of all weights is
    checked; None: where they have at most 64 MiB (vocabularies, config.json and the table of the weights always are).
    Errors: `CheckpointError` says which file is wrong, and how.
    """
    found = read_checkpoint(path, verify=verify)
    try:
        query, candidate = (
            None if side is None else Tower(side.spec, side.store, frozen=side.frozen)
            for side in (found.query, found.candidate)
        )
    except TorchTowersError:
        raise
    except Exception as error:  # a module's constructor, given arguments that its own checks refuse
        raise CheckpointError(
            f"{os.fspath(path)}: the towers cannot be built: {type(error).__name__}: {error}"
        ) from error
    wanted = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not isinstance(wanted, torch.dtype):
        raise ValueError(f"dtype must be a torch.dtype or its name, not {dtype!r}")
    return TwoTower(query, candidate, found.similarity, found.source, found.candidates).to(device, wanted)


def _known(ids: Any) -> Any:
    """The ids of an export as the user knows them: text where all of them are, bytes as they are."""
    if not isinstance(ids, np.ndarray):
        return ids
    try:
        return [item.decode() for item in ids.tolist()]
    except UnicodeDecodeError:
        return ids


def _tower(tower: Tower | None, name: str) -> Tower:
    if tower is None:
        raise CheckpointError(f"this checkpoint has no {name} tower")
    return tower
