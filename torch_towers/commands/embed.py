"""`torch-towers embed`: the embeddings of all rows of files, as a resumable job."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch_towers.commands.options import SIDES, add_command, device_options, limit_options, pair, positive

if TYPE_CHECKING:
    from torch_towers.bulk import Job, Summary

_EMBED = """\
Inputs: Parquet, CSV, tab-separated values, JSON lines (plain rows, Vertex training pairs {"query": ..., "candidate": ...}, and
Vertex batch predictions: {"data": "...", "key": ...} and prediction.results-* files); folders and patterns of these; .gz too.

A killed run resumes by the same command. OUTPUT.job/manifest.jsonl lists the finished parts and the skipped rows.

  torch-towers embed checkpoints/shop --tower candidate --input items.parquet --output embeddings --id-column sku
  torch-towers embed checkpoints/shop --tower candidate --input 'items/*.jsonl.gz' --output vectors --id-column sku \\
      --format vertex-json --restrict color --numeric-restrict price:float --crowding-tag brand
"""


def add(commands: Any) -> None:
    """Adds the command."""
    made = add_command(commands, "embed", run, "write the embeddings of all rows of files", _EMBED)
    made.add_argument("--tower", choices=SIDES, help="default: the only tower of the checkpoint")
    made.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files, folders, or patterns with *")
    made.add_argument("--output", required=True, metavar="DIR", help="output folder")
    made.add_argument(
        "--id-column", metavar="NAME", help="column of the ids (default: key, in Vertex instances; else row numbers)"
    )
    made.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FEATURE=COLUMN",
        help="read a feature from a column of another name",
    )
    made.add_argument("--format", default="parquet", metavar="NAME",
                      help="parquet: id, embedding; npy: embeddings.npy and ids; vertex-json, vertex-csv, vertex-avro: Vertex Vector Search "
                           "(default: parquet)")  # fmt: skip
    made.add_argument(
        "--restrict", action="append", default=[], metavar="NAMESPACE[=COLUMN]", help="tokens to allow, from a column"
    )
    made.add_argument(
        "--restrict-deny", action="append", default=[], metavar="NAMESPACE[=COLUMN]", help="tokens to deny"
    )
    made.add_argument("--numeric-restrict", action="append", default=[], metavar="NAMESPACE[=COLUMN][:int|float|double]",
                      help="a number to filter by (default type: double)")  # fmt: skip
    made.add_argument("--crowding-tag", metavar="COLUMN", help="the column of the crowding tag")
    made.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="what to do with an invalid row (default: fail)",
    )
    made.add_argument("--batch-size", type=positive, default=1024, metavar="N", help="rows per batch (default: 1024)")
    made.add_argument("--rows-per-part", type=positive, default=102_400, metavar="N",
                      help="input rows per output file, rounded up to whole batches (default: 102400)")  # fmt: skip
    made.add_argument("--normalize", action="store_true", help="scale every embedding to unit length")
    limit_options(made)
    made.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: on a Ray cluster (default: local)"
    )
    made.add_argument("--workers", type=positive, default=1, metavar="N", help="actors, with --engine ray (default: 1)")
    made.add_argument("--gpus-per-worker", type=float, default=0.0, metavar="N", help="with --engine ray (default: 0)")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    device_options(made)


def run(options: argparse.Namespace) -> int:
    """`torch-towers embed`."""
    from torch_towers.bulk import run
    from torch_towers.kernels.garbage import set_aside

    with set_aside():
        job = embed_job(options)
        summary = run(
            job, engine=options.engine, workers=options.workers, gpus=options.gpus_per_worker,
            show_progress=not options.quiet and sys.stderr.isatty(),
        )  # fmt: skip
    print("\n".join(_summary_lines(job, summary)))
    return 0


def embed_job(options: argparse.Namespace) -> Job:
    """The job described by the options of `embed`."""
    import hashlib

    from torch_towers.bulk.job import Job, Output
    from torch_towers.bulk.sources import find_sources
    from torch_towers.bulk.write import writer_of
    from torch_towers.checkpoint.checkpoint import CONFIG, MAX_CONFIG
    from torch_towers.checkpoint.replacing import opened

    folder = Path(options.checkpoint)
    config = opened(folder, lambda opened: opened.read(CONFIG, MAX_CONFIG))
    output = Output(
        options.format,
        tuple(pair(item) for item in options.restrict),
        tuple(pair(item) for item in options.restrict_deny),
        tuple(_numeric(item) for item in options.numeric_restrict),
        options.crowding_tag,
    )
    if output.columns and not writer_of(output).takes_restricts:
        raise ValueError("restricts and crowding tags are for Vertex Vector Search: add --format vertex-json")
    sources = tuple(find_sources(options.input, options.max_line_bytes, options.max_ratio))
    batch = options.batch_size
    return Job(
        checkpoint=str(folder.resolve()),
        checkpoint_sha256=hashlib.sha256(config).hexdigest(),
        tower=options.tower or _only_tower(folder, config),
        sources=sources,
        folder=str(Path(options.output)),
        output=output,
        id_column=options.id_column or _key_column(sources),
        columns=tuple(pair(item, both=True) for item in options.column),
        batch_size=batch,
        rows_per_part=-(-options.rows_per_part // batch) * batch,
        normalize=options.normalize,
        device=options.device,
        dtype=options.dtype,
        on_error=options.on_error,
    )


def _numeric(text: str) -> tuple[str, str, Any]:
    rest, colon, kind = text.rpartition(":")
    if not colon:
        rest, kind = text, "double"
    if kind not in ("int", "float", "double"):
        raise ValueError(f"{text!r}: the kind of a numeric restrict is int, float or double")
    return (*pair(rest), kind)


def _only_tower(folder: Path, config: bytes) -> Any:
    from torch_towers.checkpoint.graph_json import mapping
    from torch_towers.checkpoint.weights import parse_json

    where = str(folder / "config.json")
    towers = mapping(mapping(parse_json(config, where), where).get("towers"), f"{where}: towers")
    if len(towers) != 1:
        raise ValueError(f"{folder} has {len(towers)} towers: choose one with --tower")
    return next(iter(towers))


def _key_column(sources: Sequence[Any]) -> str | None:
    """ "key" if the first line is an instance of a Vertex prediction with a key."""
    if any(source.kind != "jsonl" for source in sources):
        return None
    import gzip
    import zlib

    with (gzip.open if sources[0].compression == "gzip" else open)(sources[0].path, "rb") as file:
        try:
            row = json.loads(cast(bytes, file.readline(1 << 20)))
        except (ValueError, RecursionError, EOFError, OSError, zlib.error):  # whoever reads the rows says so
            return None
    if isinstance(row, dict) and "instance" in row:
        row = cast("dict[str, Any]", row)["instance"]
    return "key" if isinstance(row, dict) and set(cast("dict[str, Any]", row)) == {"data", "key"} else None


def _summary_lines(job: Job, summary: Summary) -> list[str]:
    rate = f", {summary.new_rows / summary.seconds:,.0f} rows/s" if summary.new_rows else ""
    lines = [f"{path}, row {row}: left out: {why}" for path, row, why in summary.bad[:10]]
    if len(summary.bad) > 10:
        lines.append(f"... and {len(summary.bad) - 10:,} more, all listed in {job.work / 'manifest.jsonl'}")
    old = summary.rows - summary.new_rows
    lines.append(
        f"{job.folder}: {summary.rows:,} rows embedded" + (f", {old:,} of them before" if old else "")
        + (f", {len(summary.bad):,} left out" if summary.bad else "") + f" ({summary.seconds:.1f} s{rate})"
    )  # fmt: skip
    return lines
