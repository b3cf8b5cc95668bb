"""`torch-towers search`: the best candidates for a query in files, an index, or the checkpoint itself."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from torch_towers.commands.options import (
    add_command,
    candidates_of,
    device_options,
    load_towers,
    numbers,
    positive,
    read_row,
    row_options,
)  # fmt: skip

if TYPE_CHECKING:
    from torch_towers.search.index import Index
    from torch_towers.two_tower import TwoTower


def add(commands: Any) -> None:
    """Adds the command."""
    made = add_command(commands, "search", run, "find the best candidates for a query in files, an index, or the checkpoint itself",
                    '  torch-towers search checkpoints/shop --query "edit photos" --candidates items.csv --id-column sku -k 5\n'
                    "  torch-towers search checkpoints/shop --query '{\"text\": \"edit photos\"}' --index items.index -k 5")  # fmt: skip
    made.add_argument("--query", action="append", required=True, metavar="TEXT|JSON",
                      help="text, for a tower of one text feature, or a JSON object of features; may be repeated")  # fmt: skip
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--candidates",
        nargs="+",
        metavar="FILE",
        help="rows to embed and search, or embeddings written by embed, of any size",
    )
    where.add_argument("--index", metavar="DIR", help="index written by TwoTower.index(...).save or --save-index")
    made.add_argument("--save-index", metavar="DIR", help="save the index of --candidates")
    row_options(made)
    made.add_argument("-k", type=positive, default=10, metavar="N", help="number of results (default: 10)")
    made.add_argument("--json", action="store_true", help="print JSON, one line per query")
    device_options(made)


def run(options: argparse.Namespace) -> int:
    """`torch-towers search`."""
    if options.save_index is not None:
        from torch_towers.checkpoint.replacing import check_target
        from torch_towers.search import index

        check_target(options.save_index, index.own_files)
    towers = load_towers(options)
    rows = [read_row(text, towers.query, "query") for text in options.query]
    if options.candidates is None or options.save_index is not None:
        index = _index(options, towers)
        if options.save_index is not None:
            index.save(options.save_index)
        found = index.search(rows, options.k)
    else:
        from torch_towers.bulk.table import search

        found = search(towers, rows, candidates_of(options, towers), options.k)
    for text, scores, ids in zip(options.query, numbers(found.scores), found.ids.tolist(), strict=True):
        hits = [(score, _shown(name)) for score, name in zip(scores, ids, strict=True) if name is not None]
        if options.json:
            print(
                json.dumps(
                    {"query": text, "results": [{"id": name, "score": score} for score, name in hits]},
                    ensure_ascii=False,
                )
            )
            continue
        print(text)
        for score, name in hits:
            print(f"  {score:.4f}  {name}")
    return 0


def _index(options: argparse.Namespace, towers: TwoTower) -> Index:
    """The index given by the options."""
    if options.index is not None:
        from torch_towers.search.index import Index

        return Index.load(options.index, towers)
    if options.candidates is None:
        return towers.index()  # the candidates of an exported TFRS index
    from torch_towers.bulk.table import read_index

    return read_index(towers, candidates_of(options, towers))


def _shown(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
