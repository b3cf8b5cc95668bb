"""Generates inputs from the graph, on which port and TensorFlow are compared.

There are two kinds. In-domain (`porting/samples/domains.py`): keys of its tables, ids of its embeddings, numbers within
its buckets, in several batch sizes. Edge: unknown words and empty texts, every constant of the graph with its
neighbours, numbers that are hard to round, NaN and infinity, and, one at a time, ids just out of range that TensorFlow
refuses.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, Literal

import numpy as np

from porting.flat_graph.components import components_of, named_components
from porting.samples import pools
from porting.samples.domains import Domains, infer
from porting.samples.follower import LARGE, Domain
from porting.samples.sample_images import odd_images, sample_images
from porting.samples.serialized_examples import record
from porting.saved_model import SavedModel
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.graph import Graph, TensorSpec

BATCH_SIZES = (1, 2, 7, 33)
BUDGET = 1 << 22  # elements of the largest value in one batch: 16 MiB of float32, of which a run holds several
LARGEST = 1 << 24  # elements of a row that is made up
EDGE_ROWS = 6 * 33
RECORDS = 24
FIXED = 16  # batches if their size is fixed
OUTSIDE = 12  # single rows that TensorFlow may refuse
LENGTHS = (5, 8, 16, 32, 1, 3)  # elements along a dynamic inner axis, by seed
SIDE = 64  # pixels along a dynamic side of an image
CHANNELS = (1, 3, 4)
Kind = Literal["domain", "edge"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One batch of inputs, by name. "domain": typical for the tower; "edge": at the limits and beyond."""

    inputs: dict[str, Array]
    kind: Kind
    parts: Mapping[str, str] | None = None
    """The inputs that are components of a sparse or ragged value; None: their names tell."""

    @property
    def rows(self) -> int:
        return rows(self.inputs, self.parts)


def batches(graph: Graph, model: SavedModel, *, seed: int = 0, inside: int = 0) -> list[Sample]:
    """Batches for the flat TF graph of one entry: first in-domain ones, then edge ones, depending on `seed`.

    Empty if a row has more than `LARGEST` elements. `inside` is the number of elements per row of the largest value in the graph; it bounds the batch size by memory.
    """
    rng = np.random.default_rng(seed)
    maker = _Maker(graph, infer(graph, model), rng, LENGTHS[seed % len(LENGTHS)])
    given = max((maker.elements(spec) for spec in graph.inputs), default=0)
    if given > LARGEST:
        return []
    row = max(inside, given)
    largest = max(1, BUDGET // max(1, row))
    if not maker.free:
        largest = 1
    sizes = [min(size, largest) for size in (BATCH_SIZES if maker.free else (1,) * FIXED)]
    known, edges = maker.decks(pools.inside), maker.decks(pools.edges)
    if given > BUDGET:  # a row of this size is held twice, not dozens of times
        found = [Sample(maker.batch(known, 1), "domain", maker.parts)]
        return [*found, Sample(maker.batch({**known, **edges}, 1), "edge", maker.parts)]
    found = [Sample(maker.batch(known, size), "domain", maker.parts) for size in sizes]
    wanted = min(EDGE_ROWS, max(maker.rows_of(edges), min(24, largest)), max(FIXED, 8 * largest))
    for start in range(0, wanted, min(33, largest)):
        found.append(Sample(maker.batch({**known, **edges}, min(33, largest, wanted - start)), "edge", maker.parts))
    found += [Sample(batch, "edge", maker.parts) for batch in maker.one_by_one(known, edges, min(7, largest))]
    found += [Sample(batch, "edge", maker.parts) for batch in maker.empty_texts(known)]
    return found + [Sample(batch, "edge", maker.parts) for batch in maker.outside(known)]


def planned(found: Sequence[Sample]) -> int:
    """The number of in-domain rows."""
    return sum(sample.rows for sample in found if sample.kind == "domain")


def rows(inputs: Mapping[str, Array], parts: Mapping[str, str] | None = None) -> int:
    """The number of rows of a batch; 1 if its inputs have none. `parts`: see `components_of`; None: the names tell."""
    parts = named_components(inputs) if parts is None else parts
    counts = {None: lambda a: a.shape[0] if a.ndim else 1, "shape": lambda a: int(a[0]), "splits": lambda a: len(a) - 1}
    found = [(parts.get(name), array) for name, array in inputs.items()]
    return max((counts[part](array) for part, array in found if part in counts), default=1)


def halves(sample: Sample) -> list[Sample]:
    """A batch in two halves; empty if it has one row, or inputs that cannot be split."""
    count, parts = sample.rows, sample.parts or named_components(sample.inputs)
    cut = [name for name, array in sample.inputs.items() if array.ndim]
    if count < 2 or any(name in parts or len(sample.inputs[name]) != count for name in cut):
        return []
    parts = (slice(0, count // 2), slice(count // 2, count))
    return [
        replace(sample, inputs={name: array[part] if array.ndim else array for name, array in sample.inputs.items()})
        for part in parts
    ]


class _Deck:
    """Shuffled values, dealt one by one, so that each of them occurs."""

    def __init__(self, values: Sequence[Any], dtype: str, rng: np.random.Generator) -> None:
        array = strings(values)
        with np.errstate(over="ignore"):
            self.values = (array if dtype == "string" else array.astype(dtype))[rng.permutation(len(values))]
        self._at = 0

    def deal(self, count: int) -> Array:
        rest = np.roll(self.values, -self._at)
        self._at = (self._at + count) % len(self.values)
        return np.resize(rest, count)  # repeated; positions of every element would take more than the elements


Pool = Callable[[Domain, str, np.random.Generator], list[Any]]
Key = tuple[str, int]  # an input, and the first of a group of its elements with one domain


class _Maker:
    """Generates batches for the inputs of a graph."""

    def __init__(self, graph: Graph, found: Domains, rng: np.random.Generator, length: int) -> None:
        self.specs, self.found, self.rng, self.length = graph.inputs, found, rng, length
        self.parts = components_of(graph)
        self.free = any(spec.shape is None or None in spec.shape[:1] for spec in graph.inputs)
        self.groups = {spec.name: _grouped(found.ids[spec.name], found.of) for spec in graph.inputs}

    def decks(self, pool: Pool) -> dict[Key, _Deck]:
        """The values of every group of elements; no deck for a group without values of this kind."""
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
        """Records with and without optional features; at the edges every second one has two values instead of one."""
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
        """The number of rows in which every value occurs; a row takes one value per element of the group."""
        needed = [1]
        for (name, first), deck in decks.items():
            groups = self.groups[name]
            spec = next(spec for spec in self.specs if spec.name == name)
            share = int(np.count_nonzero(groups == first)) / groups.size
            needed.append(ceil(len(deck.values) / max(1, int(self.elements(spec) * share))))
        return max(needed)

    def batch(self, decks: Mapping[Key, _Deck], size: int) -> dict[str, Array]:
        """One batch. Components of a sparse or ragged value are consistent: two values in every row."""
        made: dict[str, Array] = {}
        for spec in self.specs:
            part = self.parts.get(spec.name)
            if part in ("values", None):
                made[spec.name] = self._drawn(spec, decks, size if part is None else 2 * size)
            else:
                made[spec.name] = _structure(part, size).astype(spec.dtype)
        return made

    def _drawn(self, spec: TensorSpec, decks: Mapping[Key, _Deck], size: int) -> Array:
        shape = self._shape(spec, size)
        firsts = np.unique(self.groups[spec.name]).tolist()
        if len(firsts) == 1:
            return decks[spec.name, firsts[0]].deal(prod(shape)).reshape(shape)
        groups = np.broadcast_to(self.groups[spec.name], shape).reshape(-1)
        flat = np.empty(groups.size, decks[spec.name, firsts[0]].values.dtype)
        for first in firsts:
            here = np.flatnonzero(groups == first)
            flat[here] = decks[spec.name, first].deal(len(here))
        return flat.reshape(shape)

    def one_by_one(
        self, known: Mapping[Key, _Deck], edges: Mapping[Key, _Deck], size: int
    ) -> Iterator[dict[str, Array]]:
        """Batches in which one input is at its edges: if TensorFlow refuses some of them, it still answers the
        others."""
        names = list(dict.fromkeys(name for name, _ in edges))
        for i in sorted(self.rng.permutation(len(names))[:OUTSIDE].tolist()) if len(self.specs) > 1 else ():
            yield self.batch({**known, **{key: deck for key, deck in edges.items() if key[0] == names[i]}}, size)

    def empty_texts(self, known: Mapping[Key, _Deck]) -> Iterator[dict[str, Array]]:
        """Rows of empty texts, alone and among others, unless texts are numbers, records or images."""
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
        """Single rows that are in-domain except for one input."""
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
        """The value range of pixels or sound samples, for an input that looks like them."""
        if is_image(spec):
            return 0.0, 1.0
        return (-1.0, 1.0) if self.elements(spec) > LARGE else None

    def elements(self, spec: TensorSpec) -> int:
        """The number of elements per row."""
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
    """For every element of an input, the first one with the same domain."""
    first: dict[str, int] = {}
    found = [first.setdefault(repr(of[i]), i) for i in ids.reshape(-1).tolist()]
    return np.array(found, int).reshape(ids.shape)


def _structure(part: str, size: int) -> Array:
    """The row splits, indices or dense shape for `size` rows of two values."""
    if part == "splits":
        return np.arange(0, 2 * size + 1, 2)
    if part == "indices":
        return np.stack([np.arange(2 * size) // 2, np.arange(2 * size) % 2], -1)
    return np.array([size, 2])
