"""The command `torch-towers`: embed, search, similarity, info, verify, and what other packages add (`port`).

Nothing heavy is imported before a subcommand runs: `torch-towers --help` answers without torch.
Exit status: 0 done, 1 verified and not equal, 2 could not be done, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch_towers.errors import TorchTowersError
from torch_towers.source import command as source

if TYPE_CHECKING:
    from torch_towers.bulk import Job, Summary
    from torch_towers.bulk.table import Piece
    from torch_towers.search.index import Index
    from torch_towers.tower import Tower
    from torch_towers.two_tower import TwoTower

SIDES = ("query", "candidate")
GROUP = "torch_towers.commands"
"""The entry points of commands that other packages bring: each is `main(arguments) -> exit status`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
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
    except (ValueError, ImportError) as error:  # a package that is needed and is broken, or is not there
        return _fail(str(error))
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it stopped" if given[:1] == ["embed"] else ""
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
    """The command line."""
    made = argparse.ArgumentParser(
        prog="torch-towers", description="Runs two-tower models that were ported from TensorFlow to PyTorch."
    )
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _embed_options(commands)
    _search_options(commands)
    _similarity_options(commands)
    _info_options(commands)
    _verify_options(commands)
    source.add_commands(commands, _command)
    for name in sorted(added or {}):
        commands.add_parser(name, add_help=False, help=_ADDED_HELP.get(name, "added by another package"))
    return made


_ADDED_HELP = {"port": "turn TensorFlow SavedModels into a checkpoint"}


def _command(commands: Any, name: str, run: Any, help: str, epilog: str = "") -> argparse.ArgumentParser:
    made = commands.add_parser(
        name, help=help, description=help[0].upper() + help[1:] + ".", epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("checkpoint", metavar="CHECKPOINT", help="folder that port.py or TwoTower.save wrote")
    made.set_defaults(run=run)
    return cast(argparse.ArgumentParser, made)


def _device_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--device", default="cpu", help='where the encoder runs: "cpu", "cuda", "cuda:1" (default: cpu)')
    made.add_argument("--dtype", metavar="NAME", help="stands for float32 in the encoder: bfloat16, float16, float64")


# -- embed --------------------------------------------------------------------------------------------------------------

_EMBED = """\
Inputs: Parquet, CSV, tab-separated values, JSON lines (plain rows, Vertex training pairs {"query": ..., "candidate": ...}, and
Vertex batch predictions: {"data": "...", "key": ...} and prediction.results-* files); folders and patterns of these; .gz too.

A run that was killed goes on by the same command. What is done stands in OUTPUT.job/manifest.jsonl, with rows that were left out.

  torch-towers embed checkpoints/shop --tower candidate --input items.parquet --output embeddings --id-column sku
  torch-towers embed checkpoints/shop --tower candidate --input 'items/*.jsonl.gz' --output vectors --id-column sku \\
      --format vertex-json --restrict color --numeric-restrict price:float --crowding-tag brand
"""


def _embed_options(commands: Any) -> None:
    made = _command(commands, "embed", embed_command, "write the embeddings of all rows of files", _EMBED)
    made.add_argument("--tower", choices=SIDES, help="default: the only tower that the checkpoint has")
    made.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files, folders, or patterns with *")
    made.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    made.add_argument(
        "--id-column", metavar="NAME", help="column of the ids (default: key, in Vertex instances; else row numbers)"
    )
    made.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FEATURE=COLUMN",
        help="a feature from a column of another name",
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
                      help="a number to filter by (default: double)")  # fmt: skip
    made.add_argument("--crowding-tag", metavar="COLUMN", help="the column of the crowding tag")
    made.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="what becomes of a row that cannot be used (default: fail)",
    )
    made.add_argument("--batch-size", type=_positive, default=1024, metavar="N", help="rows at a time (default: 1024)")
    made.add_argument("--rows-per-part", type=_positive, default=102_400, metavar="N",
                      help="rows of the input in one file of output, rounded up to whole batches (default: 102400)")  # fmt: skip
    made.add_argument("--normalize", action="store_true", help="make every embedding of length 1")
    _limit_options(made)
    made.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: on a Ray cluster (default: local)"
    )
    made.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="actors, with --engine ray (default: 1)"
    )
    made.add_argument("--gpus-per-worker", type=float, default=0.0, metavar="N", help="with --engine ray (default: 0)")
    made.add_argument("--quiet", action="store_true", help="no progress bar")
    _device_options(made)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def embed_command(options: argparse.Namespace) -> int:
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
    """The job that the options of `embed` describe."""
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
        tuple(_pair(item) for item in options.restrict),
        tuple(_pair(item) for item in options.restrict_deny),
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
        columns=tuple(_pair(item, both=True) for item in options.column),
        batch_size=batch,
        rows_per_part=-(-options.rows_per_part // batch) * batch,
        normalize=options.normalize,
        device=options.device,
        dtype=options.dtype,
        on_error=options.on_error,
    )


def _pair(text: str, both: bool = False) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not name or (both and not equals) or (equals and not column):
        raise ValueError(f"{text!r} is not {'FEATURE=COLUMN' if both else 'NAMESPACE or NAMESPACE=COLUMN'}")
    return name, column or name


def _numeric(text: str) -> tuple[str, str, Any]:
    rest, colon, kind = text.rpartition(":")
    if not colon:
        rest, kind = text, "double"
    if kind not in ("int", "float", "double"):
        raise ValueError(f"{text!r}: the kind of a numeric restrict is int, float or double")
    return (*_pair(rest), kind)


def _only_tower(folder: Path, config: bytes) -> Any:
    from torch_towers.checkpoint.graph_json import mapping
    from torch_towers.checkpoint.weights import parse_json

    where = str(folder / "config.json")
    towers = mapping(mapping(parse_json(config, where), where).get("towers"), f"{where}: towers")
    if len(towers) != 1:
        raise ValueError(f"{folder} has {len(towers)} towers: say which one with --tower")
    return next(iter(towers))


def _key_column(sources: Sequence[Any]) -> str | None:
    """ "key" where the first line is an instance of a Vertex prediction that has one."""
    if any(source.kind != "jsonl" for source in sources):
        return None
    import gzip

    with (gzip.open if sources[0].compression == "gzip" else open)(sources[0].path, "rb") as file:
        try:
            row = json.loads(cast(bytes, file.readline(1 << 20)))
        except ValueError:
            return None
    if isinstance(row, dict) and "instance" in row:
        row = cast("dict[str, Any]", row)["instance"]
    return "key" if isinstance(row, dict) and set(cast("dict[str, Any]", row)) == {"data", "key"} else None


def _summary_lines(job: Job, summary: Summary) -> list[str]:
    rate = f", {summary.new_rows / summary.seconds:,.0f} rows/s" if summary.new_rows else ""
    lines = [f"{path}, row {row}: left out: {why}" for path, row, why in summary.bad[:10]]
    if len(summary.bad) > 10:
        lines.append(f"... and {len(summary.bad) - 10:,} more: all are in {job.work / 'manifest.jsonl'}")
    old = summary.rows - summary.new_rows
    lines.append(
        f"{job.folder}: {summary.rows:,} rows embedded" + (f", {old:,} of them before" if old else "")
        + (f", {len(summary.bad):,} left out" if summary.bad else "") + f" ({summary.seconds:.1f} s{rate})"
    )  # fmt: skip
    return lines


# -- search and similarity ----------------------------------------------------------------------------------------------


def _search_options(commands: Any) -> None:
    made = _command(commands, "search", search_command, "find the candidates that fit a query best, in files, an index, or the checkpoint itself",
                    '  torch-towers search checkpoints/shop --query "edit photos" --candidates items.csv --id-column sku -k 5\n'
                    "  torch-towers search checkpoints/shop --query '{\"text\": \"edit photos\"}' --index items.index -k 5")  # fmt: skip
    made.add_argument("--query", action="append", required=True, metavar="TEXT|JSON",
                      help="text, for a tower of one text feature, or a JSON object of features; may be repeated")  # fmt: skip
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--candidates",
        nargs="+",
        metavar="FILE",
        help="rows to embed and search, or embeddings that embed wrote, however many",
    )
    where.add_argument("--index", metavar="DIR", help="index that TwoTower.index(...).save or --save-index wrote")
    made.add_argument("--save-index", metavar="DIR", help="keep the index of --candidates")
    _row_options(made)
    made.add_argument("-k", type=_positive, default=10, metavar="N", help="how many (default: 10)")
    made.add_argument("--json", action="store_true", help="print JSON, a line for each query")
    _device_options(made)


def _row_options(made: argparse.ArgumentParser) -> None:
    """How the rows of --candidates are read."""
    made.add_argument("--id-column", metavar="NAME", help="column of the ids (default: row numbers)")
    made.add_argument("--column", action="append", default=[], metavar="FEATURE=COLUMN",
                      help="a feature from a column of another name")  # fmt: skip
    _limit_options(made)


def _limit_options(made: argparse.ArgumentParser) -> None:
    """What an input file may cost."""
    made.add_argument("--max-line-bytes", type=_positive, default=16 << 20, metavar="N",
                      help="bytes that a line of a file may have (default: 16 MiB)")  # fmt: skip
    made.add_argument("--max-ratio", type=_positive, default=200, metavar="N",
                      help="how many times its size a .gz or .bz2 may unfold to, beyond 64 MiB (default: 200)")  # fmt: skip


def search_command(options: argparse.Namespace) -> int:
    """`torch-towers search`."""
    if options.save_index is not None:
        from torch_towers.checkpoint.replacing import check_target
        from torch_towers.search import index

        check_target(options.save_index, index.own_files)
    towers = _load(options)
    rows = [_row(text, towers.query, "query") for text in options.query]
    if options.candidates is None or options.save_index is not None:
        index = _index(options, towers)
        if options.save_index is not None:
            index.save(options.save_index)
        found = index.search(rows, options.k)
    else:
        from torch_towers.bulk.table import search

        found = search(towers, rows, _candidates(options, towers), options.k)
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
    """The index that the options name."""
    if options.index is not None:
        from torch_towers.search.index import Index

        return Index.load(options.index, towers)
    if options.candidates is None:
        return towers.index()  # of the candidates that a TFRS index brought along
    from torch_towers.bulk.table import read_index

    return read_index(towers, _candidates(options, towers))


def _candidates(options: argparse.Namespace, towers: TwoTower) -> Generator[Piece]:
    from torch_towers.bulk.table import read_candidates

    columns = dict(_pair(item, both=True) for item in options.column)
    return read_candidates(
        towers, options.candidates, options.id_column, columns,
        max_line=options.max_line_bytes, max_ratio=options.max_ratio,
    )  # fmt: skip


def numbers(scores: Any) -> list[list[float]]:
    """A tensor `[n, m]` as lists."""
    return scores.tolist()


def _shown(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


_SIMILARITY = """\
  torch-towers similarity checkpoints/shop --query 'edit photos' --candidate '{"name": "gimp", "size": 19}'
  torch-towers similarity checkpoints/shop --query 'edit photos' --candidates embeddings/ > scores.tsv

Of files, every candidate is printed as it is read: its id and its score with each query, apart by tabs, or a JSON object.
"""


def _similarity_options(commands: Any) -> None:
    made = _command(
        commands, "similarity", similarity_command, "print how well queries and candidates fit", _SIMILARITY
    )
    made.add_argument("--query", action="append", required=True, metavar="TEXT|JSON", help="may be repeated")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("--candidate", action="append", metavar="TEXT|JSON", help="may be repeated")
    which.add_argument(
        "--candidates", nargs="+", metavar="FILE", help="rows to embed, or embeddings that embed wrote, however many"
    )
    _row_options(made)
    made.add_argument("--distance", metavar="NAME", help="one of Vertex's: DOT_PRODUCT_DISTANCE, COSINE_DISTANCE, "
                      "SQUARED_L2_DISTANCE, L1_DISTANCE (default: the similarity that the model was trained for)")  # fmt: skip
    made.add_argument("--json", action="store_true", help="print JSON; with --candidates, a line for each")
    _device_options(made)


def similarity_command(options: argparse.Namespace) -> int:
    """`torch-towers similarity`."""
    towers = _load(options)
    queries = towers.encode_query([_row(text, towers.query, "query") for text in options.query])

    def scores_with(candidates: Any) -> Any:
        if options.distance is None:
            return towers.similarity(queries, candidates)
        from torch_towers.search.similarity import distance

        return distance(queries, candidates, options.distance)

    if options.candidates is not None:
        line = _json_scores if options.json else _tab_scores
        with closing(_candidates(options, towers)) as pieces:
            for vectors, ids in pieces:
                sys.stdout.writelines(map(line, zip(ids, numbers(scores_with(vectors).T), strict=True)))
        return 0
    candidates = towers.encode_candidate([_row(text, towers.candidate, "candidate") for text in options.candidate])
    scores = scores_with(candidates)
    name = options.distance or towers.similarity_function
    if options.json:
        print(
            json.dumps(
                {"measure": name, "queries": options.query, "candidates": options.candidate, "scores": numbers(scores)}
            )
        )
        return 0
    print(name)
    for query, row in zip(options.query, numbers(scores), strict=True):
        for candidate, score in zip(options.candidate, row, strict=True):
            print(f"  {score:10.6f}  {query}  |  {candidate}")
    return 0


def _json_scores(row: tuple[Any, list[float]]) -> str:
    return json.dumps({"id": row[0], "scores": row[1]}, ensure_ascii=False) + "\n"


def _tab_scores(row: tuple[Any, list[float]]) -> str:
    name = row[0].translate(_CONTROLS) if isinstance(row[0], str) else row[0]
    return f"{name}\t" + "\t".join([f"{score:.6f}" for score in row[1]]) + "\n"


_CONTROLS = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
"""A line stays a line, and a column a column."""


def _load(options: argparse.Namespace) -> TwoTower:
    from torch_towers import load

    return load(options.checkpoint, device=options.device, dtype=options.dtype)


def _row(text: str, tower: Tower | None, name: str) -> Any:
    """One row of inputs from the command line."""
    if tower is None:
        raise ValueError(f"this checkpoint has no {name} tower")
    from torch_towers.bulk.features import feature

    strings = [spec for spec in tower.inputs if spec.dtype == "string"]
    if text.lstrip().startswith("{"):
        try:
            row: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{text!r} begins as a JSON object, and is none: {error}") from error
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


# -- info and verify ----------------------------------------------------------------------------------------------------


def _info_options(commands: Any) -> None:
    made = _command(commands, "info", info_command, "print what is in a checkpoint")
    made.add_argument("--full", action="store_true", help="the towers line by line")
    made.add_argument("--json", action="store_true", help="print JSON")


def info_command(options: argparse.Namespace) -> int:
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


def _verify_options(commands: Any) -> None:
    made = _command(commands, "verify", verify_command, "check that a checkpoint is whole, and still gives TensorFlow's answers",
                    "Compares with the answers that are recorded in the checkpoint, or in a file. No TensorFlow is needed. "
                    "Exit status: 0 whole and equal, 1 not equal, 2 not whole.")  # fmt: skip
    made.add_argument("--reference", type=Path, metavar="FILE",
                      help="recorded answers: arrays <signature>|in|<input> and <signature>|out|<output> (.npz), or what port --record wrote")  # fmt: skip
    made.add_argument("--tower", choices=SIDES, help="the tower that is compared (default: both)")
    _device_options(made)
    made.add_argument("--json", action="store_true", help="print JSON")


def verify_command(options: argparse.Namespace) -> int:
    """`torch-towers verify`."""
    from torch_towers.parity.verify import verify

    report = verify(options.checkpoint, options.reference, options.tower, device=options.device, dtype=options.dtype)
    print(json.dumps(report.as_json(), indent=2) if options.json else "\n".join(report.lines()))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
