"""`torch-towers verify`: whether a checkpoint is intact and still gives TensorFlow's answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from torch_towers.commands.options import SIDES, add_command, device_options


def add(commands: Any) -> None:
    """Adds the command."""
    made = add_command(commands, "verify", run, "check that a checkpoint is intact and still gives TensorFlow's answers",
                    "Compares with the answers recorded in the checkpoint or in a file, without TensorFlow. "
                    "Exit status: 0 intact and equal, 1 not equal, 2 not intact.")  # fmt: skip
    made.add_argument("--reference", type=Path, metavar="FILE",
                      help="recorded answers: a file of port --record, or .npz with arrays <signature>|in|<input> and <signature>|out|<output>")  # fmt: skip
    made.add_argument("--tower", choices=SIDES, help="the tower to compare (default: both)")
    device_options(made)
    made.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """`torch-towers verify`."""
    from torch_towers.parity.verify import verify

    report = verify(options.checkpoint, options.reference, options.tower, device=options.device, dtype=options.dtype)
    print(json.dumps(report.as_json(), indent=2) if options.json else "\n".join(report.lines()))
    return 0 if report.passed else 1
