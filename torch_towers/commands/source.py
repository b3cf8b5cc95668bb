"""The commands `source`, `import` and `export`: a checkpoint as a PyTorch file, trained weights back, other
runtimes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from torch_towers.commands.options import SIDES, add_command

_SOURCE = """\
The file has a class for each tower and each repeated block, plain torch calls, and the functions `load` and `save`. It runs
in a separate process and is compared with the checkpoint on its recorded samples before it is written.

  torch-towers source checkpoints/shop -o shop.py
  torch-towers import checkpoints/shop trained.safetensors
"""


def add(commands: Any) -> None:
    """Adds the commands."""
    made = add_command(commands, "source", _run_source, "write the towers as a PyTorch file for you to edit", _SOURCE)
    made.add_argument("-o", "--output", metavar="FILE", help="a new file (default: print it)")
    made = add_command(
        commands, "import", _run_import, "import weights that were trained elsewhere into the checkpoint, by name",
        "  torch-towers import checkpoints/shop trained.safetensors",
    )  # fmt: skip
    made.add_argument("weights", metavar="FILE", help="safetensors, written by `save` of the generated file")
    made = add_command(
        commands, "export", _run_export, "export an encoder to another runtime, with dynamic batch and lengths",
        "  torch-towers export checkpoints/shop --tower query --format onnx -o query.onnx",
    )  # fmt: skip
    made.add_argument(
        "--format",
        choices=("onnx", "pt2", "transformers"),
        required=True,
        help="onnx (extra [onnx]), torch.export's pt2, or a folder of transformers (extra of that name), of an encoder that is one of its models",
    )
    made.add_argument("-o", "--output", metavar="FILE", required=True, help="a new file")
    made.add_argument("--tower", choices=SIDES, help="default: the only tower of the checkpoint")


def _run_source(options: argparse.Namespace) -> int:
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
        print("this checkpoint has no recorded samples: the source was not compared", file=sys.stderr)
    return 0


def _run_import(options: argparse.Namespace) -> int:
    """`torch-towers import`."""
    from torch_towers.source.trained import import_weights

    changed, missing = import_weights(Path(options.checkpoint), Path(options.weights))
    print(f"{options.checkpoint}: {changed} weights have new values")
    if missing:
        print(f"unchanged, since the file does not hold them: {', '.join(missing)}")
    return 0


def _run_export(options: argparse.Namespace) -> int:
    """`torch-towers export`."""
    from torch_towers.source.exported import chosen, export

    if options.format == "transformers":
        from torch_towers.source.to_transformers import to_transformers

        tower, name, batches = chosen(Path(options.checkpoint), options.tower)
        written = to_transformers(tower, options.output, batches=batches, name=name)
        print("\n".join(item.line() for item in written.compared))
        print(f"{options.output}: a {written.model} of transformers")
        for said in filter(None, (written.missing, written.tokenizer, written.images)):
            print(f"{options.output}: {said}")
        return 0
    found, behind = export(Path(options.checkpoint), Path(options.output), options.format, options.tower)
    print("\n".join(item.line() for item in found))
    if behind:
        print(f"{options.output}: {behind}")
    return 0
