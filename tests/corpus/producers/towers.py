"""Every tower of the producers: compared with TensorFlow by the tests, and measured by `make bench`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.producers import graphs, keras_towers, modules, text_towers, tfrs_towers

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """One entry of one SavedModel: its producer, the layers that must be lifted, and batches besides those generated from its graph."""

    write: Callable[[Path], None]
    entry: str | None = None
    tags: tuple[str, ...] | None = None
    lifted: Mapping[str, int] = field(default_factory=dict[str, int])
    batches: Sequence[Batch] = ()

    def __str__(self) -> str:
        return (
            self.write.__name__
            + (f"-{self.entry}" if self.entry else "")
            + ("-" + "-".join(self.tags) if self.tags else "")
        )


WORDS = [{"text": ["red, Green", "", " blue ", "über über!", "unknown words here", "red"]}]
LISTS = [
    {"genres__values": np.int64([1, 5, 5, 29, 0]), "genres__offsets": np.int64([0, 0, 3, 3, 5, 5]), "age": np.float32([[1], [2], [3], [4], [-5]])},
    {"genres__values": np.int64([-1, 3, -7]), "genres__offsets": np.int64([0, 1, 3]), "age": np.float32([[0], [1e4]])},
]  # fmt: skip
TIES = [{"input_1": ["42", "7", "nobody", "42", ""]}]
KERAS = {"Embedding": 2, "Normalization": 1, "StringLookup": 7, "IntegerLookup": 6, "Hashing": 4, "Discretization": 3}
TOWERS = [
    Built(keras_towers.export(keras_towers.lookups), lifted=KERAS),
    Built(keras_towers.save(keras_towers.lookups), lifted=KERAS),
    Built(keras_towers.export(keras_towers.texts), lifted={"TextVectorization": 12, "Embedding": 3}),
    Built(keras_towers.save(keras_towers.texts), lifted={"TextVectorization": 12, "Embedding": 3}),
    Built(
        keras_towers.export(keras_towers.numbers),
        lifted={"Linear": 17, "BatchNorm": 1, "LayerNorm": 1, "GroupNorm": 3, "Embedding": 1},
    ),
    Built(
        keras_towers.save_plain(keras_towers.numbers),
        lifted={"Linear": 17, "BatchNorm": 1, "LayerNorm": 1, "GroupNorm": 3},
    ),
    Built(tfrs_towers.query_tower, lifted={"Linear": 5, "Embedding": 2, "Discretization": 1, "Normalization": 1}),
    Built(tfrs_towers.query_tower_saved, lifted={"Linear": 5, "Embedding": 2, "Discretization": 1}),
    Built(tfrs_towers.candidate_tower, lifted={"Linear": 5, "Embedding": 2, "TextVectorization": 1}),
    Built(tfrs_towers.brute_force_strings, lifted={"StringLookup": 1, "Embedding": 1}, batches=TIES),
    Built(tfrs_towers.brute_force_numbers, batches=TIES),
    Built(tfrs_towers.brute_force_without_identifiers, batches=TIES),
    Built(tfrs_towers.streaming, lifted={"StringLookup": 1, "Embedding": 1}, batches=TIES),
    Built(
        tfrs_towers.vertex_tower,
        lifted={"LayerNorm": 1, "DotInteraction": 1, "TextVectorization": 1, "Hashing": 2, "Linear": 4},
    ),
    Built(tfrs_towers.ranking, lifted={"Linear": 3, "Embedding": 3}),
    Built(tfrs_towers.two_signatures, "user_tower", lifted={"StringLookup": 1, "Embedding": 1}),
    Built(tfrs_towers.two_signatures, "movie_tower", lifted={"L2Normalize": 1, "TextVectorization": 1}),
    Built(modules.root_call, lifted={"Linear": 1, "Embedding": 1, "L2Normalize": 1}),
    Built(modules.module, "query_model.__call__", lifted={"Linear": 1}),
    Built(modules.module, "words.encode", lifted={"StringLookup": 1}, batches=WORDS),
    Built(modules.module, "score#1"),
    Built(
        graphs.variables,
        lifted={"Linear": 1, "Embedding": 3, "StringLookup": 1, "L2Normalize": 1},
        batches=[
            {"words": ["cat", "\tfish ", "unknown", ""], "ids": np.int64([[0, 3, 10], [4, 5, 6], [7, 8, 9], [1, 2, 0]])}
        ],
    ),
    Built(
        graphs.control_flow_1,
        batches=[
            {"x": np.float32([[1, 2, 3, 4], [-1, 0, 2, 0.5]]), "steps": np.int32(5)},
            {"x": np.float32([[-1, 0, -2, 0.5]]), "steps": np.int32(0)},
        ],
    ),
    Built(
        graphs.control_flow_2,
        batches=[
            {"x": np.float32([[1, 2, 3, 4], [-1, 0, 2, 0.5]]), "steps": np.int32(5)},
            {"x": np.float32([[-1, 0, -2, 0.5]]), "steps": np.int32(0)},
        ],
    ),
    Built(graphs.several_graphs, tags=("serve",), lifted={"Linear": 1}),
    Built(graphs.several_graphs, tags=("serve", "half")),
    Built(graphs.hub_1, lifted={"StringLookup": 1}, batches=[{"default": ["cat dog", "", "CAT  mouse cat", "big!"]}]),
    Built(graphs.feature_columns, lifted={"EmbeddingBag": 8, "StringLookup": 4, "Hashing": 3, "Discretization": 1}),
    Built(graphs.dense_features, lifted={"EmbeddingBag": 1, "StringLookup": 1, "Hashing": 1, "Discretization": 1}),
    Built(modules.merlin, lifted={"Linear": 1, "EmbeddingBag": 3}, batches=LISTS),
    Built(modules.examples, lifted={"Linear": 1, "StringLookup": 1}),
    Built(text_towers.wordpiece),
    Built(text_towers.fast_bert),
    Built(text_towers.script_words, lifted={"StringLookup": 1}),
    Built(text_towers.letters, lifted={"Embedding": 1, "Conv1d": 1}),
    Built(text_towers.hashed_ngrams),
    Built(modules.ragged_rows, lifted={"Embedding": 1}),
    Built(modules.sparse_rows),
    Built(modules.sounds),
    Built(modules.images, batches=[{"bytes": modules.jpegs(5)}, {"bytes": modules.jpegs(1)}]),
]
