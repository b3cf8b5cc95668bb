"""The command: `python porting/port.py --query DIR --candidate DIR -o OUT`, or `torch-towers port ...` once installed.

Exit status: 0 ported and equal (or, where nothing could be compared, ported and said so), 1 ported but not equal (nothing is
put in place), 2 could not port, 3 ported, but TensorFlow answered too few of the inputs to say whether it is equal (the checkpoint
says so), 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the checkout is what is imported, not this folder's files as modules
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from porting.parity.process import TensorFlowProcess, tensorflow_installed
from torch_towers.errors import TorchTowersError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
    options = parser().parse_args(arguments)
    try:
        with _tensorflow(options) as process:  # first, since it imports for seconds beside this process
            from porting import command  # here, so that --help answers without torch

            if options.record:
                return command.record_command(options)
            if options.inspect:
                return command.inspect_command(options)
            return command.port_command(options, process)
    except TorchTowersError as error:
        return _fail(options, str(error))
    except OSError as error:
        return _fail(options, f"{error.filename or 'file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("port.py: interrupted; nothing was put in place", file=sys.stderr)
        return 130


def _tensorflow(options: argparse.Namespace) -> AbstractContextManager[TensorFlowProcess | None]:
    """TensorFlow's process, where a tower will be compared with it as far as the options say; else None."""
    towers = {side: getattr(options, side) for side in ("query", "candidate") if getattr(options, side) is not None}
    asked = [path for side, path in towers.items() if not (options.reference or getattr(options, f"{side}_reference"))]
    other = options.record or options.inspect or options.no_verify
    if other or not asked or not all(path.is_dir() for path in asked) or not tensorflow_installed():
        return nullcontext()
    return TensorFlowProcess(onednn=options.onednn == "on")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="port.py", description="Turns TensorFlow SavedModels of two-tower models into a PyTorch checkpoint, and compares "
        "the numbers with TensorFlow's.", epilog="Exit status: 0 ported and equal, 1 ported but not equal, 2 could not port, 3 not enough evidence to say.",
    )  # fmt: skip
    made.add_argument("--query", type=Path, metavar="DIR", help="SavedModel of the query tower")
    made.add_argument(
        "--candidate", type=Path, metavar="DIR", help="SavedModel of the candidate tower (may be the same DIR)"
    )
    made.add_argument("-o", "--output", type=Path, metavar="OUT", help="folder of the checkpoint")
    made.add_argument(
        "--signature", help="signature, or dotted path of a function, of both towers (default: serving_default)"
    )
    made.add_argument("--query-signature", metavar="NAME", help="of the query tower")
    made.add_argument("--candidate-signature", metavar="NAME", help="of the candidate tower")
    made.add_argument("--query-output", metavar="NAME", help="the output that is the query's embedding")
    made.add_argument("--candidate-output", metavar="NAME", help="the output that is the candidate's embedding")
    made.add_argument(
        "--whole", action="store_true", help="a retrieval index as it stands: queries in, scores and identifiers out "
        "(default: the query tower, with candidates and identifiers beside it)",
    )  # fmt: skip
    made.add_argument(
        "--cut", metavar="OP", help="op or node whose results are the tower's inputs (default: found, where an op that "
        "nobody has stands at the front, as in the documents of Vertex AI's Two-Tower algorithm)",
    )  # fmt: skip
    made.add_argument(
        "--input-schema", type=Path, metavar="FILE", help="input_schema.json that names the features behind --cut"
    )
    made.add_argument(
        "--dropout", choices=("off",), help="port a tower that was exported with dropout left on as it should have been, without; "
        "it is compared with TensorFlow after the same change",
    )  # fmt: skip
    made.add_argument("--tags", metavar="TAG[,TAG]", help="the meta graph, where a SavedModel holds several")
    made.add_argument("--similarity", choices=("auto", "dot", "cosine"), default="auto",
                      help="auto: cosine where both towers end in a unit norm, else dot")  # fmt: skip
    made.add_argument("--inputs", type=Path, metavar="FILE", help="examples to compare on (.npz columns or JSON lines)")
    made.add_argument(
        "--reference", type=Path, metavar="FILE", help="recorded inputs and outputs to compare with (.npz)"
    )
    made.add_argument("--query-reference", type=Path, metavar="FILE", help="of the query tower")
    made.add_argument("--candidate-reference", type=Path, metavar="FILE", help="of the candidate tower")
    made.add_argument(
        "--onednn", choices=("on", "off"), default="on", help="the TensorFlow whose numbers are wanted: with oneDNN, as pip "
        "installs it on x86 (default), or without. With it, a relu behind a product and its bias gives 0 for NaN",
    )  # fmt: skip
    made.add_argument(
        "--optimizer", choices=("on", "off"), default="on", help="compute as TensorFlow's graph optimizer rewrites the "
        "graph: x / c as x * (1 / c), ... (default), or as it is written",
    )  # fmt: skip
    made.add_argument(
        "--max-nodes", type=int, metavar="N", help="nodes that inlining may make (default: by the size of the file)"
    )
    made.add_argument(
        "--max-fold-bytes",
        type=int,
        metavar="N",
        help="bytes that constants computed at port time may take (default: by the size of the file)",
    )
    made.add_argument(
        "--max-steps", type=int, metavar="N", help="steps that a loop may take on the samples (default: 50000)"
    )
    made.add_argument(
        "--no-samples",
        action="store_true",
        help="leave the compared inputs and TensorFlow's answers out of the checkpoint",
    )
    made.add_argument(
        "--record", type=Path, metavar="DIR", help="write TensorFlow's answers for a SavedModel to -o FILE (.npz), for a port with "
        "--reference where TensorFlow is not; port nothing",
    )  # fmt: skip
    made.add_argument("--no-verify", action="store_true", help="do not compare with TensorFlow")
    made.add_argument(
        "--keep",
        action="store_true",
        help="write a port that is not equal to OUT.unequal, marked as such, to be looked at",
    )
    made.add_argument("--explain", action="store_true", help="say why what is left op by op was not lifted to a layer")
    made.add_argument("--inspect", type=Path, metavar="DIR", help="print what is in a SavedModel, and port nothing")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def _fail(options: argparse.Namespace, message: str) -> int:
    if options.json:
        print(json.dumps({"error": message}))
    else:
        print(f"port.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
