"""Index: candidates, their ids, and search for the best ones; exact, or with FAISS for large sets."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor

from torch_towers.checkpoint.folder import Folder, writing
from torch_towers.checkpoint.graph_json import mapping, sequence, text
from torch_towers.checkpoint.recognize import recognized
from torch_towers.checkpoint.replacing import opened, replaced
from torch_towers.checkpoint.weights import Digest, Stored, parse_json, read_weights, write_weights
from torch_towers.errors import CheckpointError
from torch_towers.extras import need
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.text_lines import from_lines, to_lines
from torch_towers.graph.similarity import Similarity, check_similarity
from torch_towers.search.similarity import as_embeddings, top_k

Engine = Literal["exact", "flat", "ivf", "hnsw"]
"""exact: scores every candidate, blockwise. The others are FAISS's: flat is exact too, ivf and hnsw are approximate."""

FORMAT, VERSION = "torch_towers index", 1
META, WEIGHTS, IDS, ATTRIBUTES, FAISS = "index.json", "index.safetensors", "ids.txt", "attributes.json", "index.faiss"
_FILES = {META, WEIGHTS, IDS, ATTRIBUTES, FAISS}
_MAX_BYTES = 4 << 30  # of ids, and of attributes
_FREE_VALUES, _MOST_VALUES = 1 << 20, 4096  # of attributes: of all, and of each candidate
_RECALL_QUERIES, _RECALL_K = 1000, 10
_log = logging.getLogger(__name__)


class EncodesQueries(Protocol):
    """What an index needs of a model such as `TwoTower`: `n inputs of the query tower -> [n, dim]`."""

    def encode_query(self, inputs: Any, /) -> Tensor: ...


class Found(NamedTuple):
    """The result of a search: `scores` `[n, k]` float, best first, and `ids` `[n, k]`, a numpy array of int64 or of
    objects.

    If fewer than k candidates are left, the score is -inf and the id None (-1 if ids are integers).
    """

    scores: Tensor
    ids: np.ndarray[Any, Any]


class Index:
    """Candidates `[m, dim]` with ids, searched by embeddings or by the inputs of the query tower.

    `ids` are integers, or texts (str or bytes); by default positions. `attributes` are further columns, one value (str,
    number, bool, None or a list) per candidate. With "cosine" the candidates are stored normalized. FAISS's options are
    `lists` and `probes` (ivf), `links` and `effort` (hnsw); recall is measured and logged if the logger is enabled for
    INFO. Errors: `ValueError`.
    """

    def __init__(
        self, embeddings: Any, ids: Any = None, *, attributes: Mapping[str, Sequence[Any]] | None = None,
        similarity: Similarity = "dot", encode_query: Callable[[Any], Tensor] | None = None, engine: Engine = "exact",
        recall_queries: Any = None, quiet: bool = False,
        lists: int | None = None, probes: int | None = None, links: int | None = None, effort: int | None = None,
    ) -> None:  # fmt: skip
        if engine not in get_args(Engine):
            raise ValueError(f"engine must be one of {', '.join(get_args(Engine))}, not {engine!r}")
        check_similarity(similarity)
        vectors = as_embeddings(embeddings, "candidates").detach()
        self.embeddings = _unit(vectors) if similarity == "cosine" else vectors
        self.ids = _read_ids(ids, len(vectors))
        self.attributes = {name: list(column) for name, column in (attributes or {}).items()}
        for name, column in self.attributes.items():
            if len(column) != len(vectors):
                raise ValueError(f"the attribute {name!r} has {len(column)} values for {len(vectors)} candidates")
        self.similarity_function: Similarity = similarity
        self.engine: Engine = engine
        self._encode_query = encode_query
        self._positions: dict[Any, list[int]] | None = None
        self._faiss: Any = None
        said = {"lists": lists, "probes": probes, "links": links, "effort": effort}
        options = {name: value for name, value in said.items() if value is not None}
        if engine != "exact":
            self._faiss = _build(engine, self._numpy(), options)
            if not quiet and _log.isEnabledFor(logging.INFO):
                _log.info(self._recall_line(recall_queries))
        elif options:
            raise ValueError(f"the exact engine takes no option {next(iter(options))!r}")

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return int(self.embeddings.shape[1])

    def search(self, queries: Any, k: int = 10, exclude: Any = None) -> Found:
        """The best candidates of each query: `n queries -> scores [n, min(k, m)], ids [n, min(k, m)]`.

        `queries`: embeddings (a tensor, or a numpy array of floats, `[n, dim]` or `[dim]`), or inputs of the query
        tower. `exclude`: per query, ids to leave out (TFRS's `query_with_exclusions`); unknown ids are ignored. In
        exact engines, ties go to the lower position. Errors: `ValueError`, `InputError`.
        """
        vectors = self._vectors(queries)
        places = None if exclude is None else self._places(exclude, len(vectors))
        if self._faiss is None:
            scores, positions = top_k(vectors, self.embeddings, k, "dot", places)
        else:
            scores, positions = self._approximate(vectors, k, places)
        return Found(scores, self._named(positions.cpu().numpy()))

    def rows(self, ids: Any) -> dict[str, list[Any]]:
        """The attributes of candidates by id: `[k] -> {name: [k]}`; None for an unknown id."""
        known = self._by_id()
        places = [known.get(_key(name), [None])[0] for name in np.asarray(ids, dtype=object).reshape(-1).tolist()]
        return {
            name: [None if place is None else column[place] for place in places]
            for name, column in self.attributes.items()
        }

    # -- queries and ids --------------------------------------------------------------------------------------------------

    def _vectors(self, queries: Any) -> Tensor:
        if is_embeddings(queries):
            vectors = as_embeddings(queries, "queries")
        elif self._encode_query is None:
            raise ValueError("this index has no query tower: give embeddings, or load it with Index.load(path, towers)")
        else:
            vectors = self._encode_query(queries)
        if vectors.shape[1] != self.dim:
            raise ValueError(
                f"queries have {vectors.shape[1]} dimensions and candidates {self.dim}: they come from different models"
            )
        vectors = vectors.detach()
        if vectors.dtype != self.embeddings.dtype or vectors.device != self.embeddings.device:
            vectors = vectors.to(self.embeddings.device, self.embeddings.dtype)
        return _unit(vectors) if self.similarity_function == "cosine" else vectors

    def _by_id(self) -> dict[Any, list[int]]:
        if self._positions is None:
            positions: dict[Any, list[int]] = {}
            for place, name in enumerate(self.ids.tolist()):
                positions.setdefault(_key(name), []).append(place)
            self._positions = positions
        return self._positions

    def _places(self, exclude: Any, count: int) -> list[list[int]]:
        rows: list[Any] = exclude.tolist() if hasattr(exclude, "tolist") else list(exclude)
        if len(rows) != count or any(isinstance(row, (str, bytes, int)) for row in rows):
            raise ValueError(f"exclude must hold a list of ids for each of the {count} queries")
        known = self._by_id()
        return [[place for name in row for place in known.get(_key(name), ())] for row in rows]

    def _named(self, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if not positions.size or positions.min() >= 0:
            return self.ids[positions]
        found = self.ids[np.maximum(positions, 0)]
        nobody: Any = None if found.dtype == object else -1
        return np.where(positions < 0, nobody, found)

    # -- FAISS ------------------------------------------------------------------------------------------------------------

    def _numpy(self) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(self.embeddings.float().cpu().numpy())

    def _approximate(self, vectors: Tensor, k: int, places: list[list[int]] | None) -> tuple[Tensor, Tensor]:
        if type(k) is not int or k < 0:
            raise ValueError(f"k must be a nonnegative integer, not {k!r}")
        k = min(k, len(self))
        extra = max(map(len, places), default=0) if places else 0
        wanted = min(k + extra, len(self))
        if wanted == 0 or not len(vectors):
            return torch.zeros(len(vectors), k), torch.zeros(len(vectors), k, dtype=torch.int64)
        found, where = self._faiss.search(np.ascontiguousarray(vectors.float().cpu().numpy()), wanted)
        out = where < 0
        for row, named in enumerate(places or ()):
            out[row] |= np.isin(where[row], named)
        order = np.argsort(out, axis=1, kind="stable")[:, :k]  # kept candidates first, in order
        out = np.take_along_axis(out, order, 1)
        scores = np.where(out, -np.inf, np.take_along_axis(found, order, 1)).astype(np.float32)
        return torch.as_tensor(scores), torch.as_tensor(np.where(out, -1, np.take_along_axis(where, order, 1)))

    def recall(self, queries: Any = None, k: int = _RECALL_K) -> float:
        """The recall: the share of the exact top k that the engine finds, over `queries` (by default a sample of
        candidates)."""
        if queries is None:
            step = max(1, len(self) // _RECALL_QUERIES)
            vectors = self.embeddings[::step][:_RECALL_QUERIES]
        else:
            vectors = self._vectors(queries)
        k = min(k, len(self))
        if not len(vectors) or not k or self._faiss is None:
            return 1.0
        exact = top_k(vectors, self.embeddings, k, "dot")[1].cpu().numpy()
        found = self._approximate(vectors, k, None)[1].numpy()
        return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(exact, found, strict=True)]))

    def _recall_line(self, queries: Any) -> str:
        who = "some of the candidates as queries" if queries is None else "the given queries"
        return f"index: {self.engine} over {len(self):,} x {self.dim}: recall@{min(_RECALL_K, len(self))} {self.recall(queries):.4f} of the exact answer ({who})"

    # -- files ------------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder that `Index.load` reads: safetensors, ids, attributes as JSON, FAISS's own file. No pickle.

        Errors: `CheckpointError` for a folder with other contents or a full disk; `ValueError` for attributes that are
        not JSON.
        """
        kind = _ids_kind(self.ids)
        tensors = {"embeddings": self.embeddings.cpu().contiguous()}
        if kind == "int64":
            tensors["ids"] = torch.as_tensor(self.ids)
        try:
            attributes = json.dumps(self.attributes, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"attributes must be text, finite numbers, bool, None or lists of these: {error}"
            ) from error
        files = {ATTRIBUTES: attributes}
        if kind != "int64":
            files[IDS] = to_lines(name.encode() if isinstance(name, str) else name for name in self.ids.tolist())
        if self._faiss is not None:
            files[FAISS] = need("faiss", "faiss").serialize_index(self._faiss).tobytes()
        with replaced(path, own_files) as folder:
            digest = write_weights(folder / WEIGHTS, tensors)
            for name, data in files.items():
                with writing(folder / name):
                    (folder / name).write_bytes(data)
            meta = {
                "format": FORMAT, "version": VERSION, "similarity": self.similarity_function, "engine": self.engine,
                "shape": list(self.embeddings.shape), "dtype": str(self.embeddings.dtype)[6:], "ids": kind,
                "weights": {"size": digest.size, "sha256": digest.sha256, "header_sha256": digest.header_sha256},
                "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            }  # fmt: skip
            with writing(folder / META):
                (folder / META).write_text(json.dumps(meta, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], towers: EncodesQueries | None = None) -> Index:
        """Loads an index written by `save`; with `towers` it takes inputs of their query tower. All checksums are
        verified.

        Errors: `CheckpointError`.
        """
        return opened(path, lambda folder: cls._load(folder, towers))

    @classmethod
    def _load(cls, folder: Folder, towers: EncodesQueries | None) -> Index:
        meta = _meta(folder)
        shape = tuple(sequence(meta["shape"], META))
        table = {"embeddings": Stored(text(meta["dtype"], META), cast(Any, shape))}
        if meta["ids"] == "int64":
            table["ids"] = Stored("int64", (cast(Any, shape)[0],))
        said = mapping(meta["weights"], META, {"size", "sha256", "header_sha256"})
        with folder.open(WEIGHTS) as file:
            tensors = read_weights(file, str(folder.path / WEIGHTS), table, Digest(**said), True)
        most = {FAISS: _MAX_BYTES + 4 * said["size"]}  # the graph's links, plus the vectors
        files = {
            name: _verified(folder, name, digest, most.get(name, _MAX_BYTES))
            for name, digest in mapping(meta["files"], META).items()
        }
        index = cls.__new__(cls)
        index.embeddings = tensors["embeddings"]
        index.similarity_function, index.engine = meta["similarity"], meta["engine"]
        index.ids = (
            tensors["ids"].numpy() if meta["ids"] == "int64" else _ids_of(files, meta["ids"], len(index.embeddings))
        )
        index.attributes = _attributes(files[ATTRIBUTES], len(index.embeddings))
        index._encode_query = None if towers is None else towers.encode_query
        index._positions = None
        index._faiss = (
            _read_faiss(files[FAISS], meta["engine"], index.embeddings) if meta["engine"] != "exact" else None
        )
        return index

    def __repr__(self) -> str:
        return (
            f"Index({len(self):,} x {self.dim}, {self.similarity_function}, {self.engine}, ids: {_ids_kind(self.ids)})"
        )


def is_embeddings(value: Any) -> bool:
    """True for a float tensor or numpy array of floats; everything else counts as inputs of a tower."""
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, np.ndarray) and cast("np.ndarray[Any, Any]", value).dtype.kind == "f"


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _key(name: Any) -> Any:
    """Makes `"a"` and `b"a"` the same id."""
    return name.encode() if isinstance(name, str) else name


def _read_ids(ids: Any, count: int) -> np.ndarray[Any, Any]:
    if ids is None:
        return np.arange(count, dtype=np.int64)
    values: list[Any] = (
        ids.tolist() if hasattr(ids, "tolist") else ids.to_pylist() if hasattr(ids, "to_pylist") else list(ids)
    )
    if len(values) != count:
        raise ValueError(f"there are {len(values)} ids for {count} candidates")
    kinds = set(map(type, values))
    if kinds <= {int}:
        return np.array(values, dtype=np.int64)
    if kinds not in ({str}, {bytes}):
        raise ValueError(
            f"ids must be all integers, all str or all bytes, not {', '.join(sorted(k.__name__ for k in kinds))}"
        )
    return strings(values)


def _ids_kind(ids: np.ndarray[Any, Any]) -> str:
    return "int64" if ids.dtype != object else "bytes" if isinstance(ids[0], bytes) else "str"


def own_files(path: Path) -> set[str]:
    """The files of the index in a folder; empty if it is not an index."""
    try:
        with Folder(path) as folder:
            meta = parse_json(folder.read(META, 1 << 20), META)
        return {META, WEIGHTS, *meta["files"]} & _FILES if meta["format"] == FORMAT else set()
    except (CheckpointError, LookupError, TypeError):
        return set()


def _meta(folder: Folder) -> dict[str, Any]:
    where = str(folder.path / META)
    try:
        data = folder.read(META, 1 << 20)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{recognized(folder.path, 'torch_towers.Index.load')}") from error
    meta = mapping(parse_json(data, where), where)
    if meta.get("format") != FORMAT or meta.get("version") != VERSION:
        raise CheckpointError(f"{where}: is not an index of torch_towers that this version reads")
    mapping(meta, where, {"format", "version", "similarity", "engine", "shape", "dtype", "ids", "weights", "files"})
    shape = meta["shape"]
    wanted = (
        {ATTRIBUTES}
        | (set[str]() if meta["ids"] == "int64" else {IDS})
        | (set[str]() if meta["engine"] == "exact" else {FAISS})
    )
    if (
        meta["similarity"] not in ("dot", "cosine")
        or meta["engine"] not in get_args(Engine)
        or meta["ids"] not in ("int64", "str", "bytes")
        or meta["dtype"] not in ("float32", "float64", "float16", "bfloat16")
        or not isinstance(shape, list)
        or len(cast("list[Any]", shape)) != 2
        or not all(type(size) is int and 0 <= size < 1 << 40 for size in cast("list[Any]", shape))
        or mapping(meta["files"], where).keys() != wanted
    ):
        raise CheckpointError(f"{where}: holds values that an index cannot have: save the index again")
    return meta


def _verified(folder: Folder, name: str, digest: Any, limit: int) -> bytes:
    data = folder.read(name, limit)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{folder.path / name}: its sha256 differs from {META}: the file was changed or damaged")
    return data


def _ids_of(files: Mapping[str, bytes], kind: str, count: int) -> np.ndarray[Any, Any]:
    names = from_lines(files[IDS])
    if len(names) != count:
        raise CheckpointError(f"{IDS} has {len(names)} ids for {count} candidates")
    try:
        return strings([name.decode() for name in names.tolist()]) if kind == "str" else names
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{IDS}: an id is not UTF-8") from error


def _attributes(data: bytes, count: int) -> dict[str, list[Any]]:
    found = mapping(parse_json(data, ATTRIBUTES, _FREE_VALUES + _MOST_VALUES * count), ATTRIBUTES)
    columns = {name: list(sequence(column, ATTRIBUTES)) for name, column in found.items()}
    for name, column in columns.items():
        if len(column) != count:
            raise CheckpointError(f"{ATTRIBUTES}: {name!r} has {len(column)} values for {count} candidates")
    return columns


def _build(engine: Engine, vectors: np.ndarray[Any, Any], options: Mapping[str, int]) -> Any:
    """FAISS's index. It searches by inner product: with "cosine" the vectors are normalized."""
    faiss = need("faiss", "faiss")
    count, dim = vectors.shape
    known = {"flat": set[str](), "ivf": {"lists", "probes"}, "hnsw": {"links", "effort"}}[engine]
    if unknown := options.keys() - known:
        raise ValueError(f"the engine {engine!r} takes no option {min(unknown)!r}")
    if engine == "ivf" and count:
        lists = options.get(
            "lists", max(1, min(count // 39, int(4 * math.sqrt(count))))
        )  # FAISS recommends 39 points per list
        made = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        made.nprobe = options.get("probes", max(1, lists // 16))
        made.train(vectors)
    elif engine == "hnsw":
        made = faiss.IndexHNSWFlat(dim, options.get("links", 32), faiss.METRIC_INNER_PRODUCT)
        made.hnsw.efConstruction, made.hnsw.efSearch = 200, options.get("effort", 128)
    else:
        made = faiss.IndexFlatIP(dim)
    made.add(vectors)
    return made


def _read_faiss(data: bytes, engine: str, embeddings: Tensor) -> Any:
    faiss = need("faiss", "faiss")
    kinds = {"flat": faiss.IndexFlat, "ivf": (faiss.IndexIVFFlat, faiss.IndexFlat), "hnsw": faiss.IndexHNSWFlat}
    try:
        with _limited(faiss, len(data)):
            found = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise CheckpointError(f"{FAISS} is not an index that FAISS reads: {str(error).splitlines()[0]}") from error
    if (
        not isinstance(found, kinds[engine])
        or (found.ntotal, found.d) != tuple(embeddings.shape)
        or found.metric_type != faiss.METRIC_INNER_PRODUCT
    ):
        raise CheckpointError(f"{FAISS} is not the {engine} index of these candidates: save the index again")
    return found


class _limited:  # noqa: N801  (a context manager)
    """FAISS's own limits while it reads: no vector larger than the file."""

    def __init__(self, faiss: Any, size: int) -> None:
        self._faiss, self._size, self._before = faiss, size, 0

    def __enter__(self) -> None:
        if hasattr(self._faiss, "set_deserialization_vector_byte_limit"):
            self._before = self._faiss.get_deserialization_vector_byte_limit()
            self._faiss.set_deserialization_vector_byte_limit(max(self._size, 1 << 20))

    def __exit__(self, *error: object) -> None:
        if hasattr(self._faiss, "set_deserialization_vector_byte_limit"):
            self._faiss.set_deserialization_vector_byte_limit(self._before)
