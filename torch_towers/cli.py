"""The command `torch-towers`: the subcommands of `torch_towers/commands/`, and those of other packages (`port`).

Heavy modules are imported only when a subcommand runs: `torch-towers --help` answers without torch.
Exit status: 0 success, 1 verified but not equal, 2 error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from torch_towers.commands import embed, info, search, similarity, source, verify
from torch_towers.errors import TorchTowersError

GROUP = "torch_towers.commands"
"""The entry point group for commands of other packages: each is `main(arguments) -> exit status`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except TorchTowersError as error:
        return _fail(str(error))
    except BrokenPipeError:  # `torch-towers info ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    except (ValueError, ImportError) as error:  # a required package is missing or broken
        return _fail(str(error))
    except KeyboardInterrupt:
        goes_on = "; run the same command to resume" if given[:1] == ["embed"] else ""
        print(f"torch-towers: interrupted{goes_on}", file=sys.stderr)
        return 130


def _run(given: list[str]) -> int:
    added = _added()
    if given and given[0] in added:
        return int(added[given[0]].load()(given[1:]) or 0)
    options = parser(added).parse_args(given)
    run = cast("Callable[[argparse.Namespace], int]", options.run)
    return run(options)


def _fail(message: str) -> int:
    print(f"torch-towers: {message}", file=sys.stderr)
    return 2


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def parser(added: dict[str, EntryPoint] | None = None) -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="torch-towers", description="Runs two-tower models that were ported from TensorFlow to PyTorch."
    )
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    for command in (embed, search, similarity, info, verify, source):
        command.add(commands)
    for name in sorted(added or {}):
        commands.add_parser(name, add_help=False, help=_ADDED_HELP.get(name, "added by another package"))
    return made


_ADDED_HELP = {"port": "turn TensorFlow SavedModels into a checkpoint"}


if __name__ == "__main__":
    sys.exit(main())
