"""`torch-towers info`: describes a checkpoint."""

from __future__ import annotations

import argparse
import json
from typing import Any

from torch_towers.commands.options import add_command


def add(commands: Any) -> None:
    """Adds the command."""
    made = add_command(commands, "info", run, "describe a checkpoint")
    made.add_argument("--full", action="store_true", help="print the towers line by line")
    made.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """`torch-towers info`."""
    from torch_towers import load
    from torch_towers.info import info, info_lines

    towers = load(options.checkpoint)
    if options.full and not options.json:
        print(towers)
        return 0
    found = info(options.checkpoint, towers)
    print(json.dumps(found, indent=2) if options.json else "\n".join(info_lines(found)))
    return 0
