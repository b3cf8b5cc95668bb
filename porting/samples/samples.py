"""Samples: inputs made from the graph itself, on which port and TensorFlow are compared.

Two kinds. In the domain of a tower (`porting/samples/domains.py`): keys of its tables, ids of its embeddings, numbers within its buckets, at
several batch sizes. At its edges: unknown words and empty texts, every constant of the graph with its neighbours, numbers that are
hard to round, NaN and infinity, and ids just outside, one at a time, where TensorFlow refuses.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

import numpy as np

from porting.components import component_of
from porting.samples import pools
from porting.samples.domains import Domains, infer
from porting.samples.follower import LARGE, Domain
from porting.samples.sample_images import odd_images, sample_images
from porting.samples.serialized_examples import record
from porting.saved_model import SavedModel
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.graph import Graph, TensorSpec

BATCH_SIZES = (1, 2, 7, 33)
BUDGET = (
    1 << 22
)  # elements of the largest value that one batch may make: 16 MiB of float32, of which a run holds several
EDGE_ROWS = 6 * 33
RECORDS = 24
FIXED = 16  # batches where their size is fixed
OUTSIDE = 12  # single rows that TensorFlow may refuse
LENGTHS = (5, 8, 16, 32, 1, 3)  # elements along a free inner axis, another one for every seed
SIDE = 64  # pixels along a free side of an image
CHANNELS = (1, 3, 4)
Kind = Literal["domain", "edge"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch of inputs, by name. "domain": such as the tower was made for; "edge": at the ends of that and beyond it."""

    inputs: dict[str, Array]
    kind: Kind


def batches(graph: Graph, model: SavedModel, *, seed: int = 0, inside: int = 0) -> list[Sample]:
    """Batches for the flat TF graph of one entry: first those in its domain, then those at its edges. Another seed gives others.

    `inside` is how many elements the largest value has that the graph makes of one row: batches are as small as memory wants.
    """
    rng = np.random.default_rng(seed)
    maker = _Maker(graph, infer(graph, model), rng, LENGTHS[seed % len(LENGTHS)])
    row = max([inside, *(maker.elements(spec) for spec in graph.inputs)])
    largest = max(1, BUDGET // max(1, row))
    if not maker.free:
        largest = 1
    sizes = [min(size, largest) for size in (BATCH_SIZES if maker.free else (1,) * FIXED)]
    known, edges = maker.decks(pools.inside), maker.decks(pools.edges)
    found = [Sample(maker.batch(known, size), "domain") for size in sizes]
    wanted = min(EDGE_ROWS, max(maker.rows_of(edges), min(24, largest)), max(FIXED, 8 * largest))
    for start in range(0, wanted, min(33, largest)):
        found.append(Sample(maker.batch({**known, **edges}, min(33, largest, wanted - start)), "edge"))
    found += [Sample(batch, "edge") for batch in maker.one_by_one(known, edges, min(7, largest))]
    found += [Sample(batch, "edge") for batch in maker.empty_texts(known)]
    return found + [Sample(batch, "edge") for batch in maker.outside(known)]


def planned(found: Sequence[Sample]) -> int:
    """How many rows in the domain there are."""
    return sum(rows(sample.inputs) for sample in found if sample.kind == "domain")


def rows(inputs: Mapping[str, Array]) -> int:
    """The rows of a batch; 1 where its inputs have none."""
    names = set(inputs)
    counts = {None: lambda a: a.shape[0] if a.ndim else 1, "shape": lambda a: int(a[0]), "splits": lambda a: len(a) - 1}
    found = [(component_of(name, names), array) for name, array in inputs.items()]
    return max((counts[part](array) for part, array in found if part in counts), default=1)


def halves(sample: Sample) -> list[Sample]:
    """A batch in two; nothing where it has one row, or inputs that cannot be cut."""
    names, count = set(sample.inputs), rows(sample.inputs)
    cut = [name for name, array in sample.inputs.items() if array.ndim]
    if count < 2 or any(component_of(name, names) or len(sample.inputs[name]) != count for name in cut):
        return []
    parts = (slice(0, count // 2), slice(count // 2, count))
    return [
        Sample({name: array[part] if array.ndim else array for name, array in sample.inputs.items()}, sample.kind)
        for part in parts
    ]


class _Deck:
    """Values in a random order, dealt one after another, so that every one of them comes."""

    def __init__(self, values: Sequence[Any], dtype: str, rng: np.random.Generator) -> None:
        array = strings(values)
        with np.errstate(over="ignore"):
            self.values = (array if dtype == "string" else array.astype(dtype))[rng.permutation(len(values))]
        self._at = 0

    def deal(self, count: int) -> Array:
        places = (self._at + np.arange(count)) % len(self.values)
        self._at += count
        return self.values[places]


Pool = Callable[[Domain, str, np.random.Generator], list[Any]]
Key = tuple[str, int]  # an input, and the first element of a group of its elements that have one domain


class _Maker:
    """Makes batches for the inputs of a graph."""

    def __init__(self, graph: Graph, found: Domains, rng: np.random.Generator, length: int) -> None:
        self.specs, self.found, self.rng, self.length = graph.inputs, found, rng, length
        self.names = {spec.name for spec in graph.inputs}
        self.free = any(spec.shape is None or None in spec.shape[:1] for spec in graph.inputs)
        self.groups = {spec.name: _grouped(found.ids[spec.name], found.of) for spec in graph.inputs}

    def decks(self, pool: Pool) -> dict[Key, _Deck]:
        """The values of every group of elements; nothing for a group that has none of this kind."""
        made: dict[Key, _Deck] = {}
        for spec in self.specs:
            for first in np.unique(self.groups[spec.name]).tolist():
                values = self._values(spec.dtype, self.found.of[first], pool, signal=self.signal(spec))
                if values:
                    made[spec.name, first] = _Deck(values, spec.dtype, self.rng)
        return made

    def _values(self, dtype: str, domain: Domain, pool: Pool, signal: Any = None) -> list[Any]:
        if domain.encodings:
            return [urlsafe_b64encode(value) for value in self._values(dtype, replace(domain, encodings=[]), pool)]
        if domain.features:
            return self._records(domain, pool)
        if domain.decoders:
            return (sample_images if pool is pools.inside else odd_images)(set(domain.decoders))
        if pool is pools.inside and signal and domain == Domain() and dtype.startswith("float"):
            return pools.signal(self.rng, *signal)
        return pool(domain, dtype, self.rng)

    def _records(self, domain: Domain, pool: Pool) -> list[bytes]:
        """Records with and without their optional features; every second one at the edges holds two values where one would do."""
        decks: list[_Deck] = []
        for feature, element in domain.features:
            known = self._values(feature.dtype, self.found.of[element], pools.inside)
            values = (
                known if pool is pools.inside else self._values(feature.dtype, self.found.of[element], pool)
            ) or known
            decks.append(_Deck(values, feature.dtype, self.rng))
        return [
            record(
                (feature, deck.deal(feature.count(1 if pool is pools.inside else 1 + i % 2)).tolist())
                for j, ((feature, _), deck) in enumerate(zip(domain.features, decks, strict=True))
                if not (feature.optional and (i + j) % 5 == 4)
            )
            for i in range(RECORDS)
        ]

    def rows_of(self, decks: Mapping[Key, _Deck]) -> int:
        """The rows in which every value comes; a row deals as many of a deck as it has elements of that group."""
        needed = [1]
        for (name, first), deck in decks.items():
            groups = self.groups[name]
            spec = next(spec for spec in self.specs if spec.name == name)
            share = int(np.count_nonzero(groups == first)) / groups.size
            needed.append(ceil(len(deck.values) / max(1, int(self.elements(spec) * share))))
        return max(needed)

    def batch(self, decks: Mapping[Key, _Deck], size: int) -> dict[str, Array]:
        """One batch. The parts of a sparse or ragged value fit one another: two values in every row."""
        made: dict[str, Array] = {}
        for spec in self.specs:
            part = component_of(spec.name, self.names)
            if part in ("values", None):
                made[spec.name] = self._drawn(spec, decks, size if part is None else 2 * size)
            else:
                made[spec.name] = _structure(part, size).astype(spec.dtype)
        return made

    def _drawn(self, spec: TensorSpec, decks: Mapping[Key, _Deck], size: int) -> Array:
        shape = self._shape(spec, size)
        groups = np.broadcast_to(self.groups[spec.name], shape).reshape(-1)
        firsts = np.unique(groups).tolist()
        if len(firsts) == 1:
            return decks[spec.name, firsts[0]].deal(groups.size).reshape(shape)
        flat = np.empty(groups.size, decks[spec.name, firsts[0]].values.dtype)
        for first in firsts:
            here = np.flatnonzero(groups == first)
            flat[here] = decks[spec.name, first].deal(len(here))
        return flat.reshape(shape)

    def one_by_one(
        self, known: Mapping[Key, _Deck], edges: Mapping[Key, _Deck], size: int
    ) -> Iterator[dict[str, Array]]:
        """Batches in which one input is at its edges: where TensorFlow refuses some of them, the others are answered."""
        names = list(dict.fromkeys(name for name, _ in edges))
        for i in sorted(self.rng.permutation(len(names))[:OUTSIDE].tolist()) if len(self.specs) > 1 else ():
            yield self.batch({**known, **{key: deck for key, deck in edges.items() if key[0] == names[i]}}, size)

    def empty_texts(self, known: Mapping[Key, _Deck]) -> Iterator[dict[str, Array]]:
        """Rows whose texts are all empty, alone and among others: where texts are not numbers, records or images."""
        empty = {
            (spec.name, first): _Deck([b""], "string", self.rng)
            for spec in self.specs
            if spec.dtype == "string"
            for first in np.unique(self.groups[spec.name]).tolist()
            if not _is_no_text(self.found.of[first])
        }
        if empty:
            yield self.batch({**known, **empty}, 1)
            half = {key: _Deck([b"", *known[key].values[:2]], "string", self.rng) for key in empty}
            yield self.batch({**known, **half}, 7)

    def outside(self, known: Mapping[Key, _Deck]) -> Iterator[dict[str, Array]]:
        """Single rows that are in the domain but for one input."""
        tried = [
            (spec.name, first, _Deck([value], spec.dtype, self.rng))
            for spec in self.specs
            for first in np.unique(self.groups[spec.name]).tolist()
            for value in pools.outside(self.found.of[first], spec.dtype)
        ]
        for i in sorted(self.rng.permutation(len(tried))[:OUTSIDE].tolist()):
            name, first, deck = tried[i]
            yield self.batch({**known, (name, first): deck}, 1)

    def signal(self, spec: TensorSpec) -> tuple[float, float] | None:
        """The values of pixels or samples of sound, for an input that looks like them."""
        if is_image(spec):
            return 0.0, 1.0
        return (-1.0, 1.0) if self.elements(spec) > LARGE else None

    def elements(self, spec: TensorSpec) -> int:
        """Of one row."""
        return int(np.prod(self._shape(spec, 1)))

    def _shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        free = SIDE if is_image(spec) else self.length
        sizes = spec.shape if spec.shape is not None else (None,)
        return tuple(size if isinstance(size, int) else free if i else batch for i, size in enumerate(sizes))


def _is_no_text(domain: Domain) -> bool:
    return bool(domain.numbers or domain.decoders or domain.features)


def is_image(spec: TensorSpec) -> bool:
    """Whether an input has the shape of images with one, three or four channels, last or first."""
    return spec.shape is not None and len(spec.shape) == 4 and (spec.shape[-1] in CHANNELS or spec.shape[1] in CHANNELS)


def _grouped(ids: Array, of: Sequence[Domain]) -> Array:
    """For every element of an input the first one that has the same domain."""
    first: dict[str, int] = {}
    found = [first.setdefault(repr(of[i]), i) for i in ids.reshape(-1).tolist()]
    return np.array(found, int).reshape(ids.shape)


def _structure(part: str, size: int) -> Array:
    """The row splits, indices or dense shape of `size` rows of two values."""
    if part == "splits":
        return np.arange(0, 2 * size + 1, 2)
    if part == "indices":
        return np.stack([np.arange(2 * size) // 2, np.arange(2 * size) % 2], -1)
    return np.array([size, 2])
