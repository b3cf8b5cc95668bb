"""TwoTower: query and candidate towers with the similarity that they were trained for; `load` reads one from a
folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from torch_towers.checkpoint.checkpoint import Candidates, Side, read_checkpoint, save_checkpoint
from torch_towers.errors import CheckpointError, TorchTowersError
from torch_towers.graph.dtypes import DTYPE_NAMES, FLOATS, TORCH_DTYPES
from torch_towers.graph.similarity import Similarity, check_similarity
from torch_towers.program.listing import model_card
from torch_towers.search import similarity as scores_of
from torch_towers.tower import Array, Tower

if TYPE_CHECKING:
    from torch_towers.search.index import Engine, Index


class TwoTower(nn.Module):
    """A query tower, a candidate tower, or both, and how to compare their embeddings: "dot" or "cosine".

    The towers are submodules: `to`, `half`, `train`, `parameters()` and `state_dict()` work as on any module.
    """

    query: Tower | None
    candidate: Tower | None

    def __init__(
        self,
        query: Tower | None = None,
        candidate: Tower | None = None,
        similarity: Similarity = "dot",
        source: Mapping[str, Any] | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        check_similarity(similarity)
        super().__init__()
        self.register_module("query", query)
        self.register_module("candidate", candidate)
        self.training = any(tower.training for tower in self.children())
        self.similarity_function: Similarity = similarity
        self.source = dict(source or {})
        self.candidates = candidates  # of the retrieval index that the query tower comes from

    @overload
    def encode_query(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[False] = False, normalize_embeddings: bool = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def encode_query(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[True], normalize_embeddings: bool = False,
    ) -> Array: ...  # fmt: skip
    @overload
    def encode_query(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: bool, normalize_embeddings: bool = False,
    ) -> Tensor | Array: ...  # fmt: skip
    def encode_query(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Tensor | Array:
        """The embeddings of queries: `n rows -> [n, dim]`. Options: those of `Tower.encode`."""
        return _tower(self.query, "query").encode(
            inputs, batch_size=batch_size, show_progress_bar=show_progress_bar,
            convert_to_numpy=convert_to_numpy, normalize_embeddings=normalize_embeddings,
        )  # fmt: skip

    @overload
    def encode_candidate(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[False] = False, normalize_embeddings: bool = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def encode_candidate(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[True], normalize_embeddings: bool = False,
    ) -> Array: ...  # fmt: skip
    @overload
    def encode_candidate(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: bool, normalize_embeddings: bool = False,
    ) -> Tensor | Array: ...  # fmt: skip
    def encode_candidate(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Tensor | Array:
        """The embeddings of candidates: `n rows -> [n, dim]`. Options: those of `Tower.encode`."""
        return _tower(self.candidate, "candidate").encode(
            inputs, batch_size=batch_size, show_progress_bar=show_progress_bar,
            convert_to_numpy=convert_to_numpy, normalize_embeddings=normalize_embeddings,
        )  # fmt: skip

    @overload
    def encode_document(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[False] = False, normalize_embeddings: bool = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def encode_document(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: Literal[True], normalize_embeddings: bool = False,
    ) -> Array: ...  # fmt: skip
    @overload
    def encode_document(
        self, inputs: Any, *, batch_size: int | None = None, show_progress_bar: bool = False,
        convert_to_numpy: bool, normalize_embeddings: bool = False,
    ) -> Tensor | Array: ...  # fmt: skip
    def encode_document(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
        convert_to_numpy: bool = False,
        normalize_embeddings: bool = False,
    ) -> Tensor | Array:
        """`encode_candidate` under the name that sentence-transformers uses."""
        return self.encode_candidate(
            inputs, batch_size=batch_size, show_progress_bar=show_progress_bar,
            convert_to_numpy=convert_to_numpy, normalize_embeddings=normalize_embeddings,
        )  # fmt: skip

    def similarity(self, queries: Any, candidates: Any) -> Tensor:
        """The score of every query with every candidate: `[n, dim], [m, dim] -> [n, m]`."""
        return scores_of.similarity(queries, candidates, self.similarity_function)

    def similarity_pairwise(self, queries: Any, candidates: Any) -> Tensor:
        """The score of each query with the candidate of the same row: `[n, dim], [n, dim] -> [n]`."""
        return scores_of.similarity_pairwise(queries, candidates, self.similarity_function)

    def top_k(self, queries: Any, candidates: Any, k: int, exclude: Any = None) -> tuple[Tensor, Tensor]:
        """The best candidates of each query, best first: `[n, dim], [m, dim] -> scores [n, k], indices [n, k]`.

        Exact; ties go to the lower index. See `torch_towers.search.similarity.top_k` for NaN, large k and `exclude`.
        """
        return scores_of.top_k(queries, candidates, k, self.similarity_function, exclude)

    def index(
        self,
        candidates: Any = None,
        ids: Any = None,
        *,
        attributes: Mapping[str, Sequence[Any]] | None = None,
        engine: Engine = "exact",
        recall_queries: Any = None,
        quiet: bool = False,
        lists: int | None = None,
        probes: int | None = None,
        links: int | None = None,
        effort: int | None = None,
    ) -> Index:
        """An index of `candidates` (embeddings, or inputs of the candidate tower): `index.search(queries, k) -> scores,
        ids`.

        Without candidates, it holds those of the checkpoint, if that was ported from a retrieval index. Options and
        errors are those of `torch_towers.Index` (`engine="hnsw"`).
        """
        from torch_towers.search.index import Index, is_embeddings

        if candidates is None:
            if self.candidates is None:
                raise CheckpointError("this checkpoint holds no candidates: pass them, as embeddings or as inputs")
            candidates, ids = self.candidates.embeddings, _known(self.candidates.ids) if ids is None else ids
        vectors = candidates if is_embeddings(candidates) else self.encode_candidate(candidates)
        encode = self.encode_query if self.query is not None else None
        return Index(
            vectors, ids, attributes=attributes, similarity=self.similarity_function, encode_query=encode, engine=engine,
            recall_queries=recall_queries, quiet=quiet, lists=lists, probes=probes, links=links, effort=effort,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the towers in their current state, fine-tuned or not, as a checkpoint that `load` reads.

        Parity results of the port are dropped: they hold for the original weights. Errors: `CheckpointError`.
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
    skip_padding: bool = True,
) -> TwoTower:
    """Loads the towers of a checkpoint folder. Weights are memory-mapped, not copied.

    `dtype` ("bfloat16", `torch.float16`, ...) replaces float32 in the encoders. `verify`: whether to check the sha256
    of all weights; None checks up to 64 MiB (vocabularies, config.json and the header of the weights are always
    checked). `skip_padding=False` computes padding too (see `Tower`). Errors: `CheckpointError` names the invalid file
    and the reason.
    """
    _check_device(device)
    found = read_checkpoint(path, verify=verify)
    try:
        query, candidate = (
            None if side is None else Tower(side.spec, side.store, frozen=side.frozen, skip_padding=skip_padding)
            for side in (found.query, found.candidate)
        )
    except TorchTowersError:
        raise
    except Exception as error:  # a module's constructor refuses its arguments
        raise CheckpointError(
            f"{os.fspath(path)}: the towers cannot be built: {type(error).__name__}: {error}"
        ) from error
    wanted = TORCH_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and (wanted is None or DTYPE_NAMES.get(wanted) not in FLOATS):
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(FLOATS)}")
    return TwoTower(query, candidate, found.similarity, found.source, found.candidates).to(device, wanted)


def _check_device(device: str | torch.device) -> None:
    """Refuses an unavailable device before anything is read. `ValueError`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # the type depends on torch's build and the device
        why = str(error).splitlines()[0]
        raise ValueError(f"the device {str(device)!r} cannot be used on this machine: {why}") from error


def _known(ids: Any) -> Any:
    """The ids of an export for users: `str` if all of them are text, else bytes."""
    if isinstance(ids, Tensor) or ids is None:
        return ids
    try:
        return [item.decode() for item in ids.tolist()]
    except UnicodeDecodeError:
        return ids


def _tower(tower: Tower | None, name: str) -> Tower:
    if tower is None:
        raise CheckpointError(f"this checkpoint has no {name} tower")
    return tower
