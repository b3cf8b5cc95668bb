"""What the subcommands share: options of devices, files and rows, and reading what they are given."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch_towers.bulk.table import Piece
    from torch_towers.tower import Tower
    from torch_towers.two_tower import TwoTower

SIDES = ("query", "candidate")
"""The choices of --tower."""


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """A subcommand that takes a checkpoint."""
    made = commands.add_parser(
        name, help=help, description=help[0].upper() + help[1:] + ".", epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint folder, written by port.py or TwoTower.save")
    made.set_defaults(run=run)
    return cast(argparse.ArgumentParser, made)


def device_options(made: argparse.ArgumentParser) -> None:
    """Where the encoder runs, and in which precision."""
    made.add_argument("--device", default="cpu", help='device of the encoder: "cpu", "cuda", "cuda:1" (default: cpu)')
    made.add_argument("--dtype", metavar="NAME", help="replaces float32 in the encoder: bfloat16, float16, float64")


def positive(text: str) -> int:
    """The type of an option that takes 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def row_options(made: argparse.ArgumentParser) -> None:
    """Options for reading the rows of --candidates."""
    made.add_argument("--id-column", metavar="NAME", help="column of the ids (default: row numbers)")
    made.add_argument("--column", action="append", default=[], metavar="FEATURE=COLUMN",
                      help="read a feature from a column of another name")  # fmt: skip
    limit_options(made)


def limit_options(made: argparse.ArgumentParser) -> None:
    """Limits of an input file."""
    made.add_argument("--max-line-bytes", type=positive, default=16 << 20, metavar="N",
                      help="maximum bytes per line of a file (default: 16 MiB)")  # fmt: skip
    made.add_argument("--max-ratio", type=positive, default=200, metavar="N",
                      help="maximum ratio of decompressed to compressed size of .gz and .bz2, beyond 64 MiB (default: 200)")  # fmt: skip


def pair(text: str, both: bool = False) -> tuple[str, str]:
    """Parses NAME=COLUMN, or NAME alone unless `both`; raises ValueError."""
    name, equals, column = text.partition("=")
    if not name or (both and not equals) or (equals and not column):
        raise ValueError(f"{text!r} is not {'FEATURE=COLUMN' if both else 'NAMESPACE or NAMESPACE=COLUMN'}")
    return name, column or name


def load_towers(options: argparse.Namespace) -> TwoTower:
    """The checkpoint, on the device and in the precision of the options."""
    from torch_towers import load

    return load(options.checkpoint, device=options.device, dtype=options.dtype)


def read_row(text: str, tower: Tower | None, name: str) -> Any:
    """Parses one row of inputs from the command line."""
    if tower is None:
        raise ValueError(f"this checkpoint has no {name} tower")
    from torch_towers.bulk.features import feature

    strings = [spec for spec in tower.inputs if spec.dtype == "string"]
    if text.lstrip().startswith("{"):
        try:
            row: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{text[:200]!r} is not a valid JSON object: {error}") from error
    elif len(tower.inputs) == len(strings) == 1:
        row = {strings[0].name: text}
    else:
        listed = ", ".join(f"{spec.name} ({spec.dtype})" for spec in tower.inputs)
        raise ValueError(f"the {name} tower takes {listed}: give a JSON object of them, not {text!r}")
    specs = {spec.name: spec for spec in tower.inputs}
    for key, value in row.items():
        if key in specs:
            read, problems = feature([value], specs[key], text=False)
            if problems:
                raise ValueError(problems[0])
            row[key] = read[0]
    return row


def candidates_of(options: argparse.Namespace, towers: TwoTower) -> Generator[Piece]:
    """The embeddings and ids of --candidates, block by block."""
    from torch_towers.bulk.table import read_candidates

    columns = dict(pair(item, both=True) for item in options.column)
    return read_candidates(
        towers, options.candidates, options.id_column, columns,
        max_line=options.max_line_bytes, max_ratio=options.max_ratio,
    )  # fmt: skip


def numbers(scores: Any) -> list[list[float]]:
    """A tensor `[n, m]` as nested lists."""
    return scores.tolist()
