"""Exports vectors to Vertex AI Vector Search: checked batch files, and the expected answers of the service.

    python examples/export_vertex.py CHECKPOINT ITEMS OUTPUT --id-column name --restrict section --numeric-restrict size

ITEMS is a Parquet, CSV or JSON lines file. Upload OUTPUT (it contains only data files) as `contentsDeltaUri` of an
index with the printed distance and dimensions, and `featureNormType` NONE.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from torch_towers import cli, load
from torch_towers.search.similarity import distance


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint")
    options.add_argument("items")
    options.add_argument("output", type=Path)
    options.add_argument("--id-column", required=True)
    options.add_argument("--restrict", action="append", default=[])
    options.add_argument("--numeric-restrict", action="append", default=[])
    options.add_argument(
        "--query", help="a JSON object of features: prints its nearest neighbours, to compare with the service's"
    )
    given = options.parse_args(arguments)

    # 1. The files, by the command that handles any number of rows, and resumes after a kill.
    command = ["embed", given.checkpoint, "--tower", "candidate", "--input", given.items, "--output", str(given.output)]
    command += ["--id-column", given.id_column, "--format", "vertex-json"]
    command += [part for name in given.restrict for part in ("--restrict", name)]
    command += [part for name in given.numeric_restrict for part in ("--numeric-restrict", name)]
    if status := cli.main(command):
        return status

    # 2. The settings of the index.
    towers = load(given.checkpoint)
    measure = "COSINE_DISTANCE" if towers.similarity_function == "cosine" else "DOT_PRODUCT_DISTANCE"
    lines = [json.loads(line) for path in sorted(given.output.glob("*.json")) for line in path.read_text().splitlines()]
    print(f"distanceMeasureType {measure}, dimensions {len(lines[0]['embedding'])}, {len(lines)} vectors")

    # 3. The expected answers of the service, with its signs: smaller is closer.
    if given.query:
        vectors = [line["embedding"] for line in lines]
        far = distance(towers.encode_query([json.loads(given.query)]), vectors, measure)[0]
        for place in far.argsort(stable=True)[:5].tolist():
            print(f"{far[place]:.6f}  {lines[place]['id']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
