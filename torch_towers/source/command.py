"""The commands `source` and `import`: a checkpoint as a PyTorch file, and weights that were trained in it put back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., argparse.ArgumentParser]

_SOURCE = """\
The file holds a class for each tower and each block that repeats, plain torch calls, and the functions `load` and `save`. It is run
in a process of its own and compared with the checkpoint on its recorded samples before it is written.

  torch-towers source checkpoints/shop -o shop.py
  torch-towers import checkpoints/shop trained.safetensors
"""


def add_commands(commands: Any, command: Command) -> None:
    """Adds both; `command(commands, name, run, help, epilog)` makes one that takes a checkpoint."""
    made = command(commands, "source", source_command, "write the towers as a PyTorch file that is yours", _SOURCE)
    made.add_argument("-o", "--output", metavar="FILE", help="a new file (default: print it)")
    made = command(
        commands, "import", import_command, "put weights that were trained elsewhere into the checkpoint, by name",
        "  torch-towers import checkpoints/shop trained.safetensors",
    )  # fmt: skip
    made.add_argument("weights", metavar="FILE", help="safetensors, as `save` of the written file writes them")
    made = command(
        commands, "export", export_command, "write an encoder for another runtime, with a free batch and free lengths",
        "  torch-towers export checkpoints/shop --tower query --format onnx -o query.onnx",
    )  # fmt: skip
    made.add_argument(
        "--format",
        choices=("onnx", "pt2", "transformers"),
        required=True,
        help="onnx (extra [onnx]), torch.export's pt2, or, of a BERT, a folder of transformers (extra of that name)",
    )
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="a new file")
    made.add_argument("--tower", choices=("query", "candidate"), help="default: the only tower that the checkpoint has")


def source_command(options: argparse.Namespace) -> int:
    """`torch-towers source`."""
    import tempfile

    from torch_towers.checkpoint.folder import written_whole
    from torch_towers.source.check import check, require, require_new
    from torch_towers.source.module import source_of

    target = None if options.output is None else Path(options.output)
    if target is not None:
        require_new(target)
    source = source_of(options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="torch-towers-") as scratch:
        found = check(source.text, Path(options.checkpoint), Path(scratch))
    require(found, "the source")
    if target is None:
        print(source.text, end="")
    else:
        with written_whole(target) as partial:
            partial.write_text(source.text, encoding="utf-8")
    print("\n".join(item.line() for item in found), file=sys.stderr)
    if not found:
        print("no samples are recorded in this checkpoint: the source was not compared", file=sys.stderr)
    return 0


def import_command(options: argparse.Namespace) -> int:
    """`torch-towers import`."""
    from torch_towers.source.trained import import_weights

    changed, missing = import_weights(Path(options.checkpoint), Path(options.weights))
    print(f"{options.checkpoint}: {changed} weights have new values")
    if missing:
        print(f"unchanged, since the file does not hold them: {', '.join(missing)}")
    return 0


def export_command(options: argparse.Namespace) -> int:
    """`torch-towers export`."""
    from torch_towers.source.exported import chosen, export, left_behind

    if options.format == "transformers":
        from torch_towers.source.to_transformers import to_transformers

        tower, name, batches = chosen(Path(options.checkpoint), options.tower)
        found = to_transformers(tower, Path(options.output), batches, name)
        print("\n".join(item.line() for item in found))
        print(f"{options.output}: no tokenizer is in it; {left_behind(tower) or 'the tower takes ids'}")
        return 0
    found, behind = export(Path(options.checkpoint), Path(options.output), options.format, options.tower)
    print("\n".join(item.line() for item in found))
    if behind:
        print(f"{options.output}: {behind}")
    return 0
