"""`torch-towers similarity`: the scores of queries and candidates."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from typing import Any

from torch_towers.commands.options import (
    add_command,
    candidates_of,
    device_options,
    load_towers,
    numbers,
    read_row,
    row_options,
)  # fmt: skip

_SIMILARITY = """\
  torch-towers similarity checkpoints/shop --query 'edit photos' --candidate '{"name": "gimp", "size": 19}'
  torch-towers similarity checkpoints/shop --query 'edit photos' --candidates embeddings/ > scores.tsv

With files, each candidate is printed as it is read: its id and its score for each query, tab-separated, or a JSON object.
"""


def add(commands: Any) -> None:
    """Adds the command."""
    made = add_command(commands, "similarity", run, "print the similarity of queries and candidates", _SIMILARITY)
    made.add_argument("--query", action="append", required=True, metavar="TEXT|JSON", help="may be repeated")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--candidate", action="append", metavar="TEXT|JSON", help="may be repeated")
    which.add_argument(
        "--candidates", nargs="+", metavar="FILE", help="rows to embed, or embeddings written by embed, of any size"
    )
    row_options(made)
    made.add_argument("--distance", metavar="NAME", help="one of Vertex's: DOT_PRODUCT_DISTANCE, COSINE_DISTANCE, "
                      "SQUARED_L2_DISTANCE, L1_DISTANCE (default: the similarity of the model)")  # fmt: skip
    made.add_argument("--json", action="store_true", help="print JSON; with --candidates, one line each")
    device_options(made)


def run(options: argparse.Namespace) -> int:
    """`torch-towers similarity`."""
    towers = load_towers(options)
    queries = towers.encode_query([read_row(text, towers.query, "query") for text in options.query])

    def scores_with(candidates: Any) -> Any:
        if options.distance is None:
            return towers.similarity(queries, candidates)
        from torch_towers.search.similarity import distance

        return distance(queries, candidates, options.distance)

    if options.candidates is not None:
        line = _json_scores if options.json else _tab_scores
        with closing(candidates_of(options, towers)) as pieces:
            for vectors, ids in pieces:
                sys.stdout.writelines(map(line, zip(ids, numbers(scores_with(vectors).T), strict=True)))
        return 0
    candidates = towers.encode_candidate([read_row(text, towers.candidate, "candidate") for text in options.candidate])
    scores = scores_with(candidates)
    name = options.distance or towers.similarity_function
    if options.json:
        print(
            json.dumps(
                {"measure": name, "queries": options.query, "candidates": options.candidate, "scores": numbers(scores)}
            )
        )
        return 0
    print(name)
    for query, row in zip(options.query, numbers(scores), strict=True):
        for candidate, score in zip(options.candidate, row, strict=True):
            print(f"  {score:10.6f}  {query}  |  {candidate}")
    return 0


def _json_scores(row: tuple[Any, list[float]]) -> str:
    return json.dumps({"id": row[0], "scores": row[1]}, ensure_ascii=False) + "\n"


def _tab_scores(row: tuple[Any, list[float]]) -> str:
    name = row[0].translate(_CONTROLS) if isinstance(row[0], str) else row[0]
    return f"{name}\t" + "\t".join([f"{score:.6f}" for score in row[1]]) + "\n"


_CONTROLS = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
"""Escapes for control characters: a text stays in its line and column."""
