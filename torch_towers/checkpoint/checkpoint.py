"""A checkpoint folder: config.json, model.safetensors and vocabularies, written atomically and read without trust.

    shop/
        config.json                               the graphs, the signatures, the dtype and shape of each tensor, hashes
        model.safetensors                         "query.dense.weight", ..., mapped into memory
        vocabularies/query.words.vocabulary.txt   one string a line, escaped
        samples.npz, parity.json, MODEL.md, report.html    evidence, which `load` never opens

`save_checkpoint` gives each tower to a `_Writer`, which says in JSON what a tower names and collects the values, then writes both.
`read_checkpoint` goes the other way: config.json says which tensors and vocabularies there are, the graphs may name only those, and
only then are the values read.

config.json is exact and for machines. It holds its own sha256 (over itself, with that value as zeros), those of every vocabulary,
and that of model.safetensors. All of them are verified at each load, except that weights above `SMALL` bytes are read whole
only when asked (`verify=True`): a map of 500 MB is ready in milliseconds, and its sha256 takes the third of a second.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from torch_towers.checkpoint.folder import Folder, writing
from torch_towers.checkpoint.graph_json import (
    NAME,
    GraphReader,
    Kind,
    graph_to_json,
    label,
    mapping,
    sequence,
    spec_from_json,
    spec_to_json,
    text,
)
from torch_towers.checkpoint.recognize import recognized
from torch_towers.checkpoint.replacing import opened, replaced
from torch_towers.checkpoint.weights import Digest, Stored, parse_json, read_weights, stored, write_weights
from torch_towers.errors import CheckpointError
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.text_lines import escape, from_lines, to_lines, unescape
from torch_towers.graph.dtypes import ROW_DTYPES, TORCH_DTYPES
from torch_towers.graph.graph import Graph
from torch_towers.graph.registry import Strings
from torch_towers.graph.similarity import Similarity, check_similarity
from torch_towers.graph.spec import Padding, TowerSpec
from torch_towers.program.binding import Store
from torch_towers.program.program import used_names, walk

FORMAT, VERSION = "torch_towers", 1
CONFIG, WEIGHTS, VOCABULARIES, SAMPLES = "config.json", "model.safetensors", "vocabularies", "samples.npz"
REPORTS = ("MODEL.md", "parity.json", "report.html")  # written next to the weights, never opened by `load`
SMALL = 64 << 20  # bytes of weights whose sha256 every load verifies: 40 ms
MAX_CONFIG, MAX_VOCABULARY, MAX_SAMPLES = 256 << 20, 4 << 30, 64 << 20
MAX_VALUES = 4 << 20  # JSON values in config.json, about 100 bytes each: a large tower has a hundred thousand
INLINE_COUNT, INLINE_BYTES = (
    4,
    1024,
)  # string constants up to this size (messages of assertions) get no file of their own
_INDEX, _INDEX_IDS = "index.candidates", "index.ids"
_ZEROS = "0" * 64
_TENSOR: Kind = "tensor"
_STRINGS: Kind = "strings"


@dataclass(frozen=True, slots=True)
class Side:
    """One tower as data: its graphs, their store, and the frozen weights."""

    spec: TowerSpec
    store: Store
    frozen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of a retrieval index: `embeddings` [n, dim], their `ids` [n] (None: row numbers), and the index's
    own k."""

    embeddings: Tensor
    ids: Tensor | Strings | None = None
    k: int = 10


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The contents of a checkpoint folder."""

    query: Side | None
    candidate: Side | None
    similarity: Similarity
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    candidates: Candidates | None = None


# -- writing ------------------------------------------------------------------------------------------------------------


def save_checkpoint(
    path: str | os.PathLike[str],
    *,
    query: Side | None = None,
    candidate: Side | None = None,
    candidates: Candidates | None = None,
    similarity: Similarity = "dot",
    source: Mapping[str, Any] | None = None,
    samples: bytes | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a checkpoint folder atomically.

    `candidates` are those of a retrieval index, for `TwoTower.index`. A tensor or vocabulary that both towers use is
    stored once. `source` is JSON that describes the towers' origin; `samples` is a file of recorded batches
    (`recorded.pack`); `extra_files` are the reports: "MODEL.md", "parity.json", "report.html". Errors:
    `CheckpointError` for contents that could not be loaded again, a folder with other contents, or a full disk.
    """
    if strange := sorted({*(extra_files or {})} - set(REPORTS)):
        raise CheckpointError(f"{strange[0]!r} is not a file of a checkpoint: the reports are {', '.join(REPORTS)}")
    check_similarity(similarity)
    sides = {name: side for name, side in (("query", query), ("candidate", candidate)) if side is not None}
    writer = _Writer()
    towers = {name: writer.tower(name, side) for name, side in sides.items()}
    index = {} if candidates is None else {"index": writer.index(candidates)}
    with replaced(path, own_files) as folder:
        digest = write_weights(folder / WEIGHTS, writer.tensors)
        (folder / VOCABULARIES).mkdir()
        vocabularies = {
            name: _write_vocabulary(folder, name, values, name in writer.constants)
            for name, values in writer.vocabularies.items()
        }
        config = {
            "format": FORMAT,
            "version": VERSION,
            "sha256": _ZEROS,
            "similarity": similarity,
            "source": dict(source or {}),
            "towers": towers,
            **index,
            **(
                {} if samples is None else {"samples": {"file": SAMPLES, "sha256": hashlib.sha256(samples).hexdigest()}}
            ),
            "weights": {"size": digest.size, "sha256": digest.sha256, "header_sha256": digest.header_sha256},
            "tensors": {
                name: {"dtype": entry.dtype, "shape": list(entry.shape), "trainable": entry.trainable}
                for name, entry in writer.table.items()
            },
            "vocabularies": vocabularies,
        }
        data = (_pretty(config) + "\n").encode()
        sealed = data.replace(_ZEROS.encode(), hashlib.sha256(data).hexdigest().encode(), 1)
        _write(folder / CONFIG, sealed)
        os.chmod(folder / WEIGHTS, (folder / CONFIG).stat().st_mode & 0o777)  # safetensors creates it with mode 0600
        for name, content in {**({} if samples is None else {SAMPLES: samples}), **(extra_files or {})}.items():
            _write(folder / name, content)


def own_files(path: Path) -> set[str]:
    """The files and folders that a checkpoint lists as its own; empty if the folder is not a checkpoint."""
    try:
        with Folder(path) as folder:
            config = parse_json(folder.read(CONFIG, MAX_CONFIG), CONFIG, MAX_VALUES)
        if config["format"] != FORMAT:
            return set()
        files = [item["file"] for item in config["vocabularies"].values() if "file" in item]
    except (CheckpointError, LookupError, TypeError, AttributeError):
        return set()
    return {CONFIG, WEIGHTS, SAMPLES, *REPORTS, f"{VOCABULARIES}/", *(file for file in files if _is_vocabulary(file))}


def _is_vocabulary(file: Any) -> bool:
    return isinstance(file, str) and bool(re.fullmatch(VOCABULARIES + r"/[A-Za-z0-9_][A-Za-z0-9_.]*\.(txt|bin)", file))


def _write(path: Path, data: bytes) -> None:
    with writing(path):
        path.write_bytes(data)


class _Writer:
    """Collects the tensors and vocabularies of both towers, deduplicated."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.table: dict[str, Stored] = {}
        self.vocabularies: dict[str, Strings] = {}
        self.constants: set[str] = set()  # string constants that are not a table or tokenizer
        self._seen: dict[Any, str] = {}

    def tower(self, side: str, tower: Side) -> Any:
        """The tower as JSON."""
        spec = tower.spec
        graphs = {"preprocess": spec.preprocess, "encoder": spec.encoder}
        if spec.postprocess is not None:
            graphs["postprocess"] = spec.postprocess
        used = sorted({*spec.defaults.values()}.union(*map(used_names, graphs.values())))
        constants = {str(n.attrs["tensor"]) for graph in graphs.values() for n in walk(graph) if n.op == "constant"}
        if missing := [name for name in used if name not in tower.store]:
            raise CheckpointError(f"the {side} tower names {missing[0]!r}, which its store lacks")
        names = {name: self._add(side, name, tower, name in constants) for name in used}
        kinds: dict[str, Kind] = {n: _TENSOR if isinstance(tower.store[n], Tensor) else _STRINGS for n in used}
        written = {part: graph_to_json(graph) for part, graph in graphs.items()}
        for part, data in written.items():  # refuse to save what could not be loaded
            GraphReader(kinds).graph(data, f"{side}.{part}")
        return {
            "inputs": [spec_to_json(item) for item in spec.inputs],
            "outputs": [spec_to_json(item) for item in spec.outputs],
            "embedding": spec.embedding,
            "defaults": dict(spec.defaults),
            "shared": {name: key for name, key in names.items() if key != f"{side}.{name}"},
            "names": used,
            **written,
            **({"padding": [asdict(item) for item in spec.padding]} if spec.padding else {}),
        }

    def index(self, candidates: Candidates) -> Any:
        """The candidates as JSON: names of the stored tensors."""
        embeddings, ids = candidates.embeddings.detach(), candidates.ids
        if embeddings.ndim != 2 or not embeddings.is_floating_point():
            raise CheckpointError(
                f"candidates must be floats of shape [n, dim], not {embeddings.dtype} {[*embeddings.shape]}"
            )
        if ids is not None and tuple(ids.shape) != (len(embeddings),):
            raise CheckpointError(f"{len(embeddings)} candidates have ids of shape {[*ids.shape]}: each needs one")
        if isinstance(ids, Tensor):
            self.tensors[_INDEX_IDS], self.table[_INDEX_IDS] = ids, stored(ids, False)
        elif ids is not None:
            self.vocabularies[_INDEX_IDS] = ids
        self.tensors[_INDEX], self.table[_INDEX] = embeddings, stored(embeddings, False)
        return {"candidates": _INDEX, "ids": None if ids is None else _INDEX_IDS, "k": candidates.k}

    def _add(self, side: str, name: str, tower: Side, constant: bool) -> str:
        key, value = f"{side}.{name}", tower.store[name]
        if not NAME.fullmatch(name):
            raise CheckpointError(f"{key!r} is not a name that a checkpoint can hold")
        if not isinstance(value, Tensor):
            known = self._seen.setdefault(("strings", id(value)), key)
            if known == key:
                self.vocabularies[key] = value
                self.constants |= {key} if constant else set()
            return known
        trainable = not constant and name not in tower.frozen and value.is_floating_point()
        if isinstance(value, nn.Parameter) or value.numel():
            same = (value.data_ptr(), value.dtype, value.shape, value.stride(), trainable)
            known = self._seen.setdefault(same, key)
            if known != key:
                return known
        self.tensors[key], self.table[key] = value, stored(value, trainable)
        return key


def _write_vocabulary(folder: Path, name: str, values: Strings, constant: bool) -> Any:
    """One token per line. A single long value (a SentencePiece model) is written as raw bytes, a small constant
    inline."""
    tokens: list[bytes] = values.reshape(-1).tolist()
    if constant and len(tokens) <= INLINE_COUNT and sum(map(len, tokens)) < INLINE_BYTES:
        return {"values": [escape(token).decode() for token in tokens], "shape": list(values.shape)}
    whole = values.ndim == 0 and len(values.item()) >= 1024
    data = values.item() if whole else to_lines(tokens)
    file = f"{VOCABULARIES}/{name}{'.bin' if whole else '.txt'}"
    if len(name) > 200 or os.path.lexists(folder / file):  # on some systems, names that differ only in case collide
        file = f"{VOCABULARIES}/{hashlib.sha256(name.encode()).hexdigest()[:32]}{'.bin' if whole else '.txt'}"
    _write(folder / file, data)
    return {"file": file, "shape": list(values.shape), "sha256": hashlib.sha256(data).hexdigest()}


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with one node per line where it fits."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if len(line) + len(indent) <= 140 or not isinstance(value, (dict, list)) or not value:
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_pretty(item, deeper)}" for key, item in value.items()]  # type: ignore[reportUnknownVariableType]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    if all(isinstance(item, (int, float, str)) or item is None for item in value):  # type: ignore[reportUnknownVariableType]
        return line
    return "[\n" + ",\n".join(deeper + _pretty(item, deeper) for item in value) + f"\n{indent}]"  # type: ignore[reportUnknownVariableType]


# -- reading ------------------------------------------------------------------------------------------------------------


def read_checkpoint(path: str | os.PathLike[str], *, verify: bool | None = None) -> Checkpoint:
    """Reads a checkpoint folder; weights are memory-mapped. Errors: `CheckpointError`.

    `verify`: whether to verify the sha256 of all weights; None verifies up to 64 MiB.
    """
    return opened(path, lambda folder: _read(folder, verify))


def read_samples(path: str | os.PathLike[str]) -> bytes | None:
    """A checkpoint's file of recorded batches, its sha256 verified; None if absent. Errors: `CheckpointError`."""
    with Folder(path) as folder:
        config = _config(folder)
        if "samples" not in config:
            return None
        fields = mapping(config["samples"], f"{CONFIG}: samples", {"file", "sha256"})
        if fields["file"] != SAMPLES:
            raise CheckpointError(f"{CONFIG}: samples: the file must be {SAMPLES}, not {fields['file']!r}")
        content = folder.read(SAMPLES, MAX_SAMPLES)
    if hashlib.sha256(content).hexdigest() != fields["sha256"]:
        raise CheckpointError(
            f"{folder.path / SAMPLES}: its sha256 differs from {CONFIG}: the file was changed or damaged"
        )
    return content


def _read(folder: Folder, verify: bool | None) -> Checkpoint:
    config = _config(folder)
    weights = mapping(config["weights"], f"{CONFIG}: weights", {"size", "sha256", "header_sha256"})
    if type(weights["size"]) is not int:
        raise CheckpointError(f"{CONFIG}: weights.size must be an integer, not {weights['size']!r}")
    digest = Digest(weights["size"], text(weights["sha256"], CONFIG), text(weights["header_sha256"], CONFIG))
    table = {name: _stored(item, name) for name, item in mapping(config["tensors"], f"{CONFIG}: tensors").items()}
    strings = mapping(config["vocabularies"], f"{CONFIG}: vocabularies")
    kinds: dict[str, Kind] = {**dict.fromkeys(table, _TENSOR), **dict.fromkeys(strings, _STRINGS)}
    towers = mapping(config["towers"], f"{CONFIG}: towers", set(), {"query", "candidate"})
    read = {side: _tower(data, side, kinds) for side, data in towers.items()}
    index = _index(config["index"], kinds) if "index" in config else None
    used = {key for _, names in read.values() for key in names.values()}.union([] if index is None else index[:2])
    if unused := sorted((table.keys() | strings.keys()) - used):
        raise CheckpointError(f"{CONFIG}: no tower uses {unused[0]!r}")
    whole = digest.size <= SMALL if verify is None else verify
    with folder.open(WEIGHTS) as file:
        values: dict[str, Any] = dict(read_weights(file, str(folder.path / WEIGHTS), table, digest, whole))
    for name, entry in table.items():
        if entry.trainable:
            values[name] = nn.Parameter(
                values[name]
            )  # one object, so that towers which share it train the same parameter
    for name, item in strings.items():
        values[name] = _read_vocabulary(folder, name, item)
    sides = {side: _side(spec, names, values, table) for side, (spec, names) in read.items()}
    candidates = None if index is None else _candidates(*index, values)
    return Checkpoint(sides.get("query"), sides.get("candidate"), config["similarity"], config["source"], candidates)


_KEYS = {"format", "version", "sha256", "similarity", "source", "towers", "weights", "tensors", "vocabularies"}


def _config(folder: Folder) -> dict[str, Any]:
    where = str(folder.path / CONFIG)
    try:
        data = folder.read(CONFIG, MAX_CONFIG)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{recognized(folder.path, 'torch_towers.load')}") from error
    config = mapping(parse_json(data, where, MAX_VALUES), where)
    if config.get("format") != FORMAT or type(config.get("version")) is not int:
        raise CheckpointError(
            f"{where}: is not the config.json of a torch_towers checkpoint{recognized(folder.path, 'torch_towers.load')}"
        )
    if config["version"] != VERSION:
        raise CheckpointError(
            f"{where}: has version {config['version']}, and this torch_towers reads version {VERSION}: "
            f"{'update torch_towers' if config['version'] > VERSION else 'port the model again'}"
        )
    mapping(config, where, _KEYS, {"index", "samples"})
    said = text(config["sha256"], where)
    if (
        data.count(said.encode()) != 1
        or said != hashlib.sha256(data.replace(said.encode(), _ZEROS.encode())).hexdigest()
    ):
        raise CheckpointError(f"{where}: its sha256 is not the one that it says: the file was changed or damaged")
    if config["similarity"] not in ("dot", "cosine"):
        raise CheckpointError(f"{where}: the similarity is {config['similarity']!r}, neither 'dot' nor 'cosine'")
    mapping(config["source"], f"{where}: source")
    return config


def _stored(data: Any, name: str) -> Stored:
    where = f"{CONFIG}: tensors[{name!r}]"
    _check_name(name, where)
    fields = mapping(data, where, {"dtype", "shape", "trainable"})
    shape = sequence(fields["shape"], where)
    if (
        text(fields["dtype"], where) not in TORCH_DTYPES
        or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
        or len(shape) > 32
    ):
        raise CheckpointError(f"{where} has the dtype {fields['dtype']!r} and the shape {shape}")
    floats = TORCH_DTYPES[fields["dtype"]].is_floating_point
    if type(fields["trainable"]) is not bool or (fields["trainable"] and not floats):
        raise CheckpointError(f"{where}: `trainable` must be true or false, and true only for floats")
    return Stored(fields["dtype"], tuple(shape), fields["trainable"])


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or len(name) > 4096:
        raise CheckpointError(f"{where}: this is not a name (dotted parts of letters, digits and underscores)")


_TOWER = {"inputs", "outputs", "embedding", "defaults", "shared", "names", "preprocess", "encoder"}


def _tower(data: Any, side: str, kinds: Mapping[str, Kind]) -> tuple[TowerSpec, dict[str, str]]:
    """One tower, and the store name of each of its names."""
    where = f"{CONFIG}: towers.{side}"
    fields = mapping(data, where, _TOWER, {"postprocess", "padding"})
    shared = mapping(fields["shared"], f"{where}.shared")
    names: dict[str, str] = {}
    for item in sequence(fields["names"], f"{where}.names"):
        name = text(item, f"{where}.names")
        names[name] = text(shared.get(name, f"{side}.{name}"), f"{where}.shared")
        if names[name] not in kinds:
            raise CheckpointError(f"{where}: {name!r} is stored as {names[name]!r}, which is not in the checkpoint")
    reader = GraphReader({name: kinds[key] for name, key in names.items()})

    def graph(part: str) -> Graph:
        return reader.graph(fields[part], f"{where}.{part}")

    spec = TowerSpec(
        preprocess=graph("preprocess"),
        encoder=graph("encoder"),
        postprocess=graph("postprocess") if "postprocess" in fields else None,
        inputs=tuple(
            spec_from_json(item, f"{where}.inputs", ROW_DTYPES)
            for item in sequence(fields["inputs"], f"{where}.inputs")
        ),
        outputs=tuple(
            spec_from_json(item, f"{where}.outputs") for item in sequence(fields["outputs"], f"{where}.outputs")
        ),
        embedding=None if fields["embedding"] is None else label(fields["embedding"], f"{where}.embedding"),
        defaults={
            label(key, f"{where}.defaults"): text(value, f"{where}.defaults")
            for key, value in mapping(fields["defaults"], f"{where}.defaults").items()
        },
        padding=tuple(
            _padding(item, f"{where}.padding") for item in sequence(fields.get("padding", []), f"{where}.padding")
        ),
    )
    if missing := sorted({*spec.defaults.values()} - names.keys()):
        raise CheckpointError(f"{where}.defaults: the checkpoint has no {missing[0]!r}")
    return spec, names


def _padding(data: Any, where: str) -> Padding:
    """Where the rows of the encoder's inputs end."""
    fields = mapping(data, where, {"input", "value", "along", "outputs"})
    value = fields["value"]
    if not isinstance(value, (bool, int, float)):
        raise CheckpointError(f"{where}: the value behind the end of a row must be a number, not {value!r}")
    along, outputs = (
        tuple(label(item, where) for item in sequence(fields[key], where)) for key in ("along", "outputs")
    )
    return Padding(label(fields["input"], where), value, along, outputs)


def _index(data: Any, kinds: Mapping[str, Kind]) -> tuple[str, str | None, int]:
    """The store names of the candidates and their ids, and k."""
    where = f"{CONFIG}: index"
    fields = mapping(data, where, {"candidates", "ids", "k"})
    embeddings, ids, k = fields["candidates"], fields["ids"], fields["k"]
    if kinds.get(text(embeddings, where)) != _TENSOR or (ids is not None and text(ids, where) not in kinds):
        raise CheckpointError(f"{where}: the checkpoint does not hold {embeddings!r} or {ids!r}")
    if type(k) is not int or not 0 < k < 1 << 48:
        raise CheckpointError(f"{where}: k must be a positive integer, not {k!r}")
    return embeddings, ids, k


def _candidates(embeddings: str, ids: str | None, k: int, values: Mapping[str, Any]) -> Candidates:
    matrix, names = values[embeddings], None if ids is None else values[ids]
    if matrix.ndim != 2 or not matrix.is_floating_point() or (names is not None and names.shape != matrix.shape[:1]):
        shape = None if names is None else list(names.shape)
        raise CheckpointError(
            f"{CONFIG}: index: candidates {list(matrix.shape)} of {matrix.dtype} and ids {shape} do not fit"
        )
    return Candidates(matrix.detach(), names, k)


def _read_vocabulary(folder: Folder, name: str, data: Any) -> Strings:
    where = f"{CONFIG}: vocabularies[{name!r}]"
    _check_name(name, where)
    if "values" in mapping(data, where):
        return _inline(mapping(data, where, {"values", "shape"}), where)
    fields = mapping(data, where, {"file", "shape", "sha256"})
    file, shape = text(fields["file"], where), sequence(fields["shape"], where)
    if not _is_vocabulary(file):
        raise CheckpointError(f"{where}: {file!r} is not a file in {VOCABULARIES}/")
    content = folder.read(file, MAX_VOCABULARY)
    if hashlib.sha256(content).hexdigest() != fields["sha256"]:
        raise CheckpointError(
            f"{folder.path / file}: its sha256 differs from {CONFIG}: the file was changed or damaged"
        )
    try:
        tokens = strings([content]) if file.endswith(".bin") else from_lines(content)
    except CheckpointError as error:
        raise CheckpointError(f"{folder.path / file}: {error}") from error
    return _shaped(tokens, shape, str(folder.path / file))


def _inline(fields: Mapping[str, Any], where: str) -> Strings:
    """A small constant stored in config.json."""
    try:
        tokens = [unescape(text(item, where).encode()) for item in sequence(fields["values"], where)]
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{where}: a value is not UTF-8: {error}") from error
    return _shaped(strings(tokens), sequence(fields["shape"], where), where)


def _shaped(tokens: Strings, shape: list[Any], where: str) -> Strings:
    if len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(tokens):
        raise CheckpointError(f"{where} has {len(tokens)} tokens; {CONFIG} says {shape}")
    return tokens.reshape(shape)


def _side(spec: TowerSpec, names: Mapping[str, str], values: Mapping[str, Any], table: Mapping[str, Stored]) -> Side:
    frozen = frozenset(name for name, key in names.items() if key in table and not table[key].trainable)
    return Side(spec, {name: values[key] for name, key in names.items()}, frozen)
