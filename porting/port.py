"""The command: `python porting/port.py --query DIR --candidate DIR -o OUT`, or `torch-towers port ...` once installed.

Exit status: 0 ported and equal (or ported, if nothing could be compared), 1 ported but not equal (nothing is written),
2 not ported, 3 ported, but TensorFlow answered too few inputs to decide (the checkpoint says so), 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from porting.parity.process import SECONDS, Limits, TensorFlowProcess, tensorflow_installed
from torch_towers.errors import TorchTowersError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        with _tensorflow(options) as process:  # first, since it takes seconds to import in its own process
            from porting import command  # late, so that --help answers without torch

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
    """TensorFlow's process if the options require a comparison with it; else None."""
    towers = {side: getattr(options, side) for side in ("query", "candidate") if getattr(options, side) is not None}
    asked = [path for side, path in towers.items() if not (options.reference or getattr(options, f"{side}_reference"))]
    other = options.record or options.inspect or options.no_verify
    if other or not asked or not all(path.is_dir() for path in asked) or not tensorflow_installed():
        return nullcontext()
    limits = Limits(options.max_tensorflow_seconds, options.max_tensorflow_bytes)
    return TensorFlowProcess(onednn=options.onednn == "on", limits=limits)


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="port.py", description="Ports TensorFlow SavedModels of two-tower models to a PyTorch checkpoint, "
        "and compares the numbers with TensorFlow's.",
        epilog="Exit status: 0 ported and equal, 1 ported but not equal, 2 not ported, 3 not enough evidence.",
    )  # fmt: skip
    made.add_argument("--query", type=Path, metavar="DIR", help="SavedModel of the query tower")
    made.add_argument(
        "--candidate", type=Path, metavar="DIR", help="SavedModel of the candidate tower (may be the same DIR)"
    )
    made.add_argument("-o", "--output", type=Path, metavar="OUT", help="output folder of the checkpoint")
    made.add_argument(
        "--signature", help="signature, or dotted path of a function, for both towers (default: serving_default)"
    )
    made.add_argument("--query-signature", metavar="NAME", help="signature of the query tower")
    made.add_argument("--candidate-signature", metavar="NAME", help="signature of the candidate tower")
    made.add_argument("--query-output", metavar="NAME", help="the output that is the query's embedding")
    made.add_argument("--candidate-output", metavar="NAME", help="the output that is the candidate's embedding")
    made.add_argument(
        "--whole", action="store_true", help="port a retrieval index as it is: queries in, scores and identifiers out "
        "(default: the query tower, with candidates and identifiers beside it)",
    )  # fmt: skip
    made.add_argument(
        "--cut", metavar="OP", help="op or node whose results become the tower's inputs (default: detected for "
        "private ops at the front, such as the document parser of Vertex AI's Two-Tower algorithm)",
    )  # fmt: skip
    made.add_argument(
        "--input-schema", type=Path, metavar="FILE", help="input_schema.json that names the features after --cut"
    )
    made.add_argument(
        "--dropout", choices=("off",), help="remove dropout that was left on in the export; "
        "TensorFlow is compared after the same change",
    )  # fmt: skip
    made.add_argument("--tags", metavar="TAG[,TAG]", help="the meta graph, if a SavedModel has several")
    made.add_argument("--similarity", choices=("auto", "dot", "cosine"), default="auto",
                      help="auto: cosine if both towers end in a unit norm, else dot")  # fmt: skip
    made.add_argument(
        "--inputs", type=Path, metavar="FILE", help="examples for the comparison (.npz columns or JSON lines)"
    )
    made.add_argument(
        "--reference", type=Path, metavar="FILE", help="recorded inputs and outputs to compare with (.npz)"
    )
    made.add_argument("--query-reference", type=Path, metavar="FILE", help="the same for the query tower")
    made.add_argument("--candidate-reference", type=Path, metavar="FILE", help="the same for the candidate tower")
    made.add_argument(
        "--onednn", choices=("on", "off"), default="on", help="match TensorFlow with oneDNN, as pip "
        "installs it on x86 (default), or without. With it, a relu fused with a product and its bias maps NaN to 0",
    )  # fmt: skip
    made.add_argument(
        "--optimizer", choices=("on", "off"), default="on", help="port the graph as TensorFlow's optimizer rewrites "
        "it: x / c as x * (1 / c), ... (default), or as written",
    )  # fmt: skip
    made.add_argument(
        "--max-nodes", type=int, metavar="N", help="nodes that inlining may create (default: by the size of the file)"
    )
    made.add_argument(
        "--max-fold-bytes",
        type=int,
        metavar="N",
        help="bytes of constants computed at port time (default: by the size of the file)",
    )
    made.add_argument(
        "--max-tensorflow-seconds", type=float, metavar="N", default=SECONDS,
        help="seconds for one answer of TensorFlow (default: 1800)",
    )  # fmt: skip
    made.add_argument(
        "--max-tensorflow-bytes", type=int, metavar="N", help="memory of TensorFlow (default: 80%% of the machine's)"
    )
    made.add_argument("--max-steps", type=int, metavar="N", help="steps of a loop on the samples (default: 50000)")
    made.add_argument(
        "--no-samples",
        action="store_true",
        help="omit the compared inputs and TensorFlow's answers from the checkpoint",
    )
    made.add_argument(
        "--record", type=Path, metavar="DIR", help="write TensorFlow's answers for a SavedModel to -o FILE (.npz), for a port with "
        "--reference on a machine without TensorFlow; ports nothing",
    )  # fmt: skip
    made.add_argument("--no-verify", action="store_true", help="do not compare with TensorFlow")
    made.add_argument(
        "--keep",
        action="store_true",
        help="write an unequal port to OUT.unequal, marked as such, for inspection",
    )
    made.add_argument("--explain", action="store_true", help="say why ops were not lifted to layers")
    made.add_argument("--inspect", type=Path, metavar="DIR", help="describe a SavedModel; ports nothing")
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
