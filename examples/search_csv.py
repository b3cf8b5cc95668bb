"""Searches a CSV file: embeds its rows once, keeps the index, queries it.

    python examples/search_csv.py CHECKPOINT FILE --id-column name --query "edit photos"

The file's columns are named like the candidate tower's inputs; other columns are printed with the results.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import torch_towers


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint")
    options.add_argument("file", type=Path)
    options.add_argument("--id-column", required=True)
    options.add_argument("--query", required=True, help="text, or a JSON object of features")
    options.add_argument("-k", type=int, default=5)
    given = options.parse_args(arguments)

    # 1. The towers: data only, no TensorFlow.
    towers = torch_towers.load(given.checkpoint)
    assert towers.query is not None and towers.candidate is not None

    # 2. The rows. The signature lists the tower's inputs; in a CSV file numbers are text.
    tab = given.file.suffix == ".tsv"
    with given.file.open(encoding="utf-8", newline="") as file:
        rows = list(
            csv.DictReader(file, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL)
        )
    read = {
        spec.name: str if spec.dtype == "string" else float if "float" in spec.dtype else int
        for spec in towers.candidate.inputs
    }
    features = [{name: kind(row[name]) for name, kind in read.items()} for row in rows]

    # 3. The index: an id per row, and columns to print with results.
    shown = [name for name in rows[0] if name != given.id_column]
    index = towers.index(
        features,
        [row[given.id_column] for row in rows],
        attributes={name: [row[name] for row in rows] for name in shown},
    )
    print(index)

    # 4. The query. `index.save("index")` saves the index; `Index.load("index", towers)` loads it.
    query = json.loads(given.query) if given.query.startswith("{") else {towers.query.inputs[0].name: given.query}
    found = index.search([query], given.k)
    for score, name in zip(found.scores[0].tolist(), found.ids[0], strict=True):
        about = "  ".join(f"{key}: {values[0][:40]}" for key, values in index.rows([name]).items())
        print(f"{score:.4f}  {name:<24} {about}")


if __name__ == "__main__":
    main()
