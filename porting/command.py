"""The command's work: ports towers, compares them with TensorFlow, and reports the result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from porting import inspection
from porting.budget import STEPS, Budget
from porting.conversion.convert import without_kernel
from porting.errors import PortingError
from porting.frontends.documents import read_schema
from porting.parity import recording
from porting.parity.comparison import not_compared, verify_with_reference, verify_with_tensorflow
from porting.parity.oracle import Oracle, OracleError
from porting.parity.process import Limits, TensorFlowProcess, tensorflow_installed
from porting.parity.report import ParityReport
from porting.report import figures, model_card
from porting.samples.user_inputs import read_examples
from porting.saved_model import SavedModel, read
from porting.served import Served
from porting.tower import PortedTower, port_tower
from torch_towers.checkpoint.checkpoint import own_files
from torch_towers.checkpoint.replacing import check_target
from torch_towers.errors import TorchTowersError
from torch_towers.formats.npz import load_arrays
from torch_towers.ops.control_flow import at_most_steps

SIDES = ("query", "candidate")


def _tags(options: argparse.Namespace) -> list[str] | None:
    return options.tags.split(",") if options.tags else None


def inspect_command(options: argparse.Namespace) -> int:
    """`--inspect DIR`."""
    found = inspection.inspect(read(options.inspect, tags=_tags(options), verify=False))
    print(json.dumps(found, indent=2, default=str) if options.json else "\n".join(inspection.lines(found)))
    return 0


def record_command(options: argparse.Namespace) -> int:
    """`--record DIR -o FILE`: writes TensorFlow's answers on inputs generated from the graph, or on `--inputs`."""
    if options.output is None:
        raise PortingError("no output file for the answers: give -o FILE.npz")
    if not tensorflow_installed():
        raise PortingError("--record needs TensorFlow, which is not installed here: pip install 'torch-towers[parity]'")
    model = read(options.record, tags=_tags(options))
    entry = options.signature or model.default_entry()
    limits = Limits(options.max_tensorflow_seconds, options.max_tensorflow_bytes)
    with Oracle(onednn=options.onednn == "on", limits=limits) as oracle:
        batches = recording.record(model, entry, oracle, options.inputs, without_dropout=options.dropout == "off")
    recording.write(options.output, {entry: batches})
    if not options.json:
        print(f"wrote {len(batches)} batches of {entry} to {options.output}")
    return 0


def port_command(options: argparse.Namespace, process: TensorFlowProcess | None = None) -> int:
    """Ports one or two towers, compares them, and puts the checkpoint in place; `process` is TensorFlow's, if there is
    a comparison."""
    chosen = {side: getattr(options, side) for side in SIDES if getattr(options, side) is not None}
    if not chosen:
        raise PortingError("nothing to port: give --query DIR, --candidate DIR or both (or --inspect DIR)")
    if options.output is None:
        raise PortingError("no output folder for the checkpoint: give -o OUT")
    beside = options.output.with_name(f"{options.output.name}.unequal")
    for place in (options.output, *([beside] if options.keep else [])):
        check_target(place, own_files)
    _check_files(options)
    say: Callable[[str], None] = (lambda line: None) if options.json else (lambda line: print(line, flush=True))
    oracle = None if process is None else Oracle(process=process)
    with oracle or nullcontext():
        return _port_all(options, chosen, beside, oracle, say)


def _port_all(
    options: argparse.Namespace,
    chosen: dict[str, Path],
    beside: Path,
    oracle: Oracle | None,
    say: Callable[[str], None],
) -> int:
    """Reads, ports, compares and writes the towers; returns the exit status."""
    models: dict[Path, SavedModel] = {}
    towers = {side: _port(side, path, options, models, say) for side, path in chosen.items()}
    similarity = choose_similarity(options.similarity, towers)
    say(f"similarity: {similarity}" + (" (auto)" if options.similarity == "auto" else ""))
    if oracle is not None:
        with suppress(TorchTowersError):  # without its packages, the report later says so
            figures.warm_up()  # in parallel with the import of TensorFlow
    with at_most_steps(STEPS if options.max_steps is None else options.max_steps):
        reports = _verify(towers, options, oracle, say)
    unused = unused_variables(towers, models)
    for name in unused:
        say(f"left out: {name}: it is in the SavedModel but in neither tower")
    passed = all(report.passed for report in reports.values())
    if passed:
        for line in model_card.save(options.output, towers, reports, similarity, samples=not options.no_samples):
            say(line)
        say(f"wrote {options.output}")
    else:
        say(f"the port is not equal to TensorFlow: nothing was written to {options.output}")
        if options.keep:
            model_card.save(beside, towers, reports, similarity, samples=not options.no_samples)
            say(f"kept the unequal port for inspection in {beside}")
    uncertain = [side for side, report in reports.items() if report.verdict == "not enough evidence"]
    if passed and uncertain:
        advice = (
            "recorded answers with --reference"
            if any(reports[side].unanswered for side in uncertain)
            else "examples with --inputs"
        )
        say(f"not enough evidence that the {' and the '.join(uncertain)} tower is equal to TensorFlow: give {advice}")
    if options.json:
        print(json.dumps(_summary(options, towers, reports, similarity, unused, passed), indent=2))
    return 1 if not passed else 3 if uncertain else 0


def _check_files(options: argparse.Namespace) -> None:
    """Checks before any work that all files named by options exist, whether or not they are used."""
    for name in ("inputs", "reference", "query_reference", "candidate_reference", "input_schema"):
        path: Path | None = getattr(options, name)
        if path is not None and not path.is_file():
            raise PortingError(f"{path}: no such file, for --{name.replace('_', '-')}")


def _port(side: str, path: Path, options: argparse.Namespace, models: dict[Path, SavedModel], say: Any) -> PortedTower:
    if path not in models:
        models[path] = read(path, tags=_tags(options), progress=_progress(f"checking {path}", options))
    entry = getattr(options, f"{side}_signature") or options.signature
    output = getattr(options, f"{side}_output")
    schema = read_schema(options.input_schema, side) if options.input_schema else None
    split_index = side == "query" and not options.whole and output is None
    ported = port_tower(
        models[path],
        entry,
        embedding=output,
        split_index=split_index,
        cut_behind=options.cut,
        schema=schema,
        without_dropout=options.dropout == "off",
        served=Served(optimizer=options.optimizer == "on", onednn=options.onednn == "on"),
        budget=Budget.of(
            models[path].weight(), nodes=options.max_nodes, fold_bytes=options.max_fold_bytes, steps=options.max_steps
        ),
    )
    for line in summary_lines(side, ported):
        say(line)
    if options.explain:
        for refusal in ported.refusals or ("every candidate was lifted",):
            say(f"  not lifted: {refusal}")
    return ported


def summary_lines(side: str, ported: PortedTower) -> list[str]:
    """A summary of one tower's port."""
    lifted = ", ".join(f"{count} {kind}" for kind, count in sorted(ported.lifted.items())) or "nothing"
    remaining = ", ".join(f"{op} x{count}" for op, count in sorted(ported.remaining.items())) or "none"
    index = ported.retrieval
    return [
        f"{side}: {ported.model.path}, {ported.entry}: {len(ported.tf_graph.nodes)} TensorFlow ops",
        *(f"  {line}" for line in ported.cuts),
        *([] if index is None else [f"  found a {index.described()}"]),
        *(f"  {line}" for line in ported.notes),
        f"  lifted: {lifted}",
        f"  ops that remain: {remaining}",
        *([f"  relus that map NaN to 0, as oneDNN's do: {ported.no_nan}"] if ported.no_nan else []),
    ]


def _progress(label: str, options: argparse.Namespace) -> Callable[[int, int], None] | None:
    """A progress bar for reading large files, on a terminal only."""
    if options.json or not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar = tqdm(desc=label, unit="B", unit_scale=True, delay=1.0, leave=False)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return update


def choose_similarity(asked: str, towers: dict[str, PortedTower]) -> str:
    """`auto` is cosine if every tower ends in a unit norm, else dot, as in a retrieval index."""
    if asked != "auto":
        return asked
    if any(ported.retrieval is not None for ported in towers.values()):
        return "dot"
    return "cosine" if all(ported.unit_norm for ported in towers.values()) else "dot"


def _verify(
    towers: dict[str, PortedTower], options: argparse.Namespace, oracle: Oracle | None, say: Callable[[str], None]
) -> dict[str, ParityReport]:
    reports: dict[str, ParityReport] = {}
    references = {name: load_arrays(path) for name, path in _references(options).items()}
    examples = {
        side: [read_examples(options.inputs, ported.spec.inputs)] if options.inputs else []
        for side, ported in towers.items()
    }
    for side, ported in towers.items():
        reference = references.get(f"{side}_reference", references.get("reference"))
        if reference is not None:
            reports[side] = verify_with_reference(ported, reference)
        elif options.no_verify:
            reports[side] = not_compared("--no-verify was given")
        elif gone := without_kernel(ported.tf_graph, ported.model.functions):
            reports[side] = not_compared(
                f"TensorFlow of today has no kernel for {', '.join(gone)}, so it cannot run this", unanswered=True
            )
        elif oracle is None:
            reports[side] = not_compared("TensorFlow is not installed here, and no recorded outputs were given")
        else:
            try:
                reports[side] = verify_with_tensorflow(ported, oracle, examples[side])
            except OracleError as error:
                reports[side] = not_compared(str(error), unanswered=True)
        say(f"{side}: parity")
        for line in reports[side].lines():
            say(line)
    return reports


def _references(options: argparse.Namespace) -> dict[str, Path]:
    """The files of recorded answers, by option name."""
    names = ("reference", "query_reference", "candidate_reference")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def unused_variables(towers: dict[str, PortedTower], models: dict[Path, SavedModel]) -> list[str]:
    """Variables of a SavedModel that no tower uses: trained ones, and tables of others (an index's candidates)."""
    found: list[str] = []
    for path, model in models.items():
        used = {key for ported in towers.values() if ported.model is model for key in ported.variables}
        used |= {
            key
            for ported in towers.values()
            if ported.model is model and ported.retrieval
            for key in ported.retrieval.variables
        }
        names = {model.variables[key].name for key in used}
        found += [
            f"{path}: variable {variable.name!r} {list(variable.shape)} {variable.dtype}"
            for key, variable in model.variables.items()
            if key not in used and variable.name not in names and is_weight(variable)
        ]
    return found


def is_weight(variable: Any) -> bool:
    """False for variables that only training needs: optimizer slots, counters, metrics, seeds."""
    key = f"{variable.checkpoint_key} {variable.name}".lower()
    holds = variable.dtype.startswith(("float", "bfloat")) if variable.trainable else len(variable.shape) > 0
    return holds and not any(
        part in key for part in (
            "optimizer", ".optimizer_slot", "keras_api", "save_counter", "/total", "/count", "metrics", "seed_generator",
        )
    )  # fmt: skip


def _summary(
    options: argparse.Namespace, towers: dict[str, PortedTower], reports: dict[str, ParityReport], similarity: str,
    unused: list[str], passed: bool,
) -> dict[str, Any]:  # fmt: skip
    kept = options.output.with_name(f"{options.output.name}.unequal") if options.keep and not passed else None
    return {
        "output": str(options.output) if passed else None,
        "kept": None if kept is None else str(kept),
        "passed": passed,
        "similarity": similarity,
        "left_out": unused,
        "towers": {
            side: {
                "path": str(ported.model.path),
                "entry": ported.entry,
                "tensorflow_ops": len(ported.tf_graph.nodes),
                "lifted": dict(ported.lifted),
                "remaining": dict(ported.remaining),
                "not_lifted": list(ported.refusals),
                "cut": list(ported.cuts),
                "notes": list(ported.notes),
                "index": None if ported.retrieval is None else ported.retrieval.described(),
                "parity": reports[side].as_json(),
            }
            for side, ported in towers.items()
        },
    }
