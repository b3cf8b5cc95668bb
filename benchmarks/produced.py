"""Every tower measured by `python -m benchmarks.general`: those of the tests' producers, and those of this folder.

`python -m benchmarks.produced FOLDER` writes the missing SavedModels, in a separate process, since it imports
TensorFlow. New towers of a producer are measured automatically.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data, towers

FAMILIES = {
    "ids": ("tfrs ids", "root_call", "module-", "query_tower", "two_signatures-user", "variables", "merlin"),
    "features": ("features", "packages candidate", "lookups", "dense_features", "vertex_tower", "ranking"),
    "text": ("packages query", "texts", "candidate_tower", "two_signatures-movie", "hub_1", "towers", "hashed_ngrams"),
    "tokenizers": ("sentencepiece", "wordpiece", "fast_bert", "script_words", "letters"),
    "numbers": ("mlp", "numbers", "tensors", "einsums", "several_graphs", "control_flow"),
    "sequences": ("attentions", "sequences"),
    "images": ("images", "convolutions", *data.IMAGE_TOWERS),
    "tf.Example": ("serialized examples", "feature_columns", "examples"),
    "indexes": (
        "brute force",
        "brute_force_strings",
        "brute_force_numbers",
        "brute_force_without_identifiers",
        "streaming",
    ),
}
"""The families, by prefix or suffix of their towers' names."""
HELD_OUT = (
    "query_tower", "vertex_tower", "hub_1", "letters", "saved_numbers", "layers of tf_keras attentions",
    "layers of tf_keras convolutions",
    "examples", "streaming",
)  # fmt: skip
"""One tower of each family on which nothing was tuned: it should have gained as much as the others."""
LAYERS = (
    "tensors",
    "lookups",
    "texts",
    "towers",
    "einsums",
    "attentions",
    "convolutions",
    "sequences",
    "image_sequences",
)


class Produced(NamedTuple):
    """One entry of one SavedModel. `own`: its rows come from `benchmarks/data.py`; otherwise they are generated from
    its graph."""

    name: str
    folder: str
    entry: str | None = None
    tags: tuple[str, ...] | None = None
    own: bool = False

    @property
    def family(self) -> str:
        ends = [(len(part), family) for family, parts in FAMILIES.items() for part in parts if self._is(part)]
        return max(ends)[1] if ends else "others"

    def _is(self, part: str) -> bool:
        return self.name.startswith(part) or self.name.endswith(part)


def written(folder: Path) -> list[Produced]:
    """The towers whose SavedModels are in `folder`, as listed by `main`."""
    found = [Produced(*item) for item in json.loads((folder / "towers.json").read_text())]
    return [item._replace(tags=item.tags and tuple(item.tags)) for item in found]


def main(folder: Path) -> None:
    from tests.corpus.producers.towers import TOWERS
    from tests.porting.rewrites.models import build

    towers.main(folder)
    listed = [Produced(name, str(towers.saved_model(folder, name)), own=True) for name in data.INPUTS]
    for built in TOWERS:
        path = folder / "produced" / built.write.__name__ / "model"
        _once(path, built.write)
        listed.append(Produced(str(built), str(path), built.entry, built.tags))
    for keras in ("keras", "tf_keras"):
        for layers in LAYERS:
            name = f"{keras} {layers}"
            path = folder / "produced" / "layers" / name.replace(" ", "_")
            _once(path, lambda path, name=name: build(name, path.parent))
            listed.append(Produced(f"layers of {name}", str(path)))
    (folder / "towers.json").write_text(json.dumps(listed))


def _once(path: Path, write: Callable[[Path], Any]) -> None:
    if not (path / "saved_model.pb").exists():
        print(f"saving {path}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
