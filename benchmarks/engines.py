"""One engine for many towers, in a separate process: reads JSON requests, one per line, and answers with seconds.

python -m benchmarks.engines torch_towers FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data, rows
from benchmarks.produced import Produced, written

Run = Callable[[Any], Any]
Ways = dict[str, Run]
"""The measured calls of a tower: "call", every output of all rows at once, and "encode", the embedding in batches."""


def torch_towers_ways(tower: Produced, folder: Path) -> Ways:
    """The port, from Python columns to numpy."""
    import torch_towers
    from torch_towers.errors import InputError
    from torch_towers.formats.npz import to_numpy

    port = torch_towers.load(port_folder(tower, folder)).query
    assert port is not None
    ways: Ways = {"call": lambda columns: {name: to_numpy(value) for name, value in port(columns).items()}}
    try:
        if port.embedding:
            ways["encode"] = lambda columns: port.encode(columns, convert_to_numpy=True)
    except InputError:
        pass  # no output is the embedding
    return ways


def tensorflow_ways(tower: Produced, folder: Path) -> Ways:
    """The function that `tf.saved_model.load` returns."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers its ops

    loaded = tf.saved_model.load(tower.folder, tags=list(tower.tags) if tower.tags else None)
    function = _function(loaded, tower.entry)
    specs = function.structured_input_signature
    named = dict(specs[1]) or {spec.name: spec for spec in tf.nest.flatten(specs[0])}

    def call(columns: Any) -> Any:
        given = {name: tf.constant(columns[name], spec.dtype) for name, spec in _matched(named, columns).items()}
        outputs = function(**given) if specs[1] else function(*tf.nest.pack_sequence_as(specs[0], list(given.values())))
        return [value.numpy() for value in tf.nest.flatten(outputs)]

    call.keep = loaded  # type: ignore[attr-defined]  variables live as long as the loaded object
    return {"call": call}


def _matched(named: dict[str, Any], columns: Any) -> dict[str, Any]:
    """Matches specs to columns by name; with one input, the names may differ."""
    return dict(zip(columns, named.values(), strict=True)) if len(named) == 1 else named


def _function(loaded: Any, entry: str | None) -> Any:
    if entry is None and "serving_default" in loaded.signatures:
        return loaded.signatures["serving_default"]
    if entry in loaded.signatures:
        return loaded.signatures[entry]
    if entry is None:
        return next(iter(loaded.signatures.values()), None) or loaded.__call__.concrete_functions[0]
    name, _, number = entry.partition("#")
    found = loaded
    for part in name.split("."):
        found = getattr(found, part)
    return found.concrete_functions[int(number or 0)]


ENGINES: dict[str, Callable[[Produced, Path], Ways]] = {
    "torch_towers": torch_towers_ways,
    "tensorflow": tensorflow_ways,
}


def port_folder(tower: Produced, folder: Path) -> Path:
    """The folder of a tower's checkpoint, with its rows beside it."""
    return folder / "ports" / tower.name.replace(" ", "_")


def columns_of(tower: Produced, folder: Path, count: int) -> Any:
    """`count` rows for a tower."""
    if tower.own:
        return data.INPUTS[tower.name](count)
    from torch_towers.formats.npz import load_arrays

    pool: dict[str, dict[str, Any]] = {}
    for name, array in load_arrays(port_folder(tower, folder).with_suffix(".npz")).items():
        batch, _, column = name.partition("|")
        pool.setdefault(batch, {})[column] = array
    return rows.drawn(list(pool.values()), count)


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def timed(run: Run, columns: Any, repeats: int, clock: str) -> list[float]:
    """Seconds of each of `repeats` calls."""
    now, seconds = CLOCKS[clock], list[float]()
    for _ in range(repeats):
        start = now()
        run(columns)
        seconds.append(now() - start)
    return seconds


def main(engine: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what libraries print
    towers = {tower.name: tower for tower in written(folder)}
    opened, ways, columns, count = "", {}, None, 0
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["tower"] != opened:
                ways, columns = {}, None
                ways, opened, count = ENGINES[engine](towers[asked["tower"]], folder), asked["tower"], 0
            if asked.get("rows", count) != count:
                count = asked["rows"]
                columns = columns_of(towers[opened], folder, count)
            found: Any = (
                timed(ways[asked["way"]], columns, asked["repeats"], asked["clock"]) if "way" in asked else list(ways)
            )
        except Exception as error:
            traceback.print_exc()
            found = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
