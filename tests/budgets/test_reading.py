"""Files that cost more than they weigh, each within 20 seconds of the processor and 300 MB: read as their fuzzers read them."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import test_config, test_index, test_manifest, test_rows, test_vocabulary
from tests.fuzz.harness import outcomes
from tests.torch_towers.checkpoint.test_checkpoint import vocabulary_of
from tests.torch_towers.towers import two_towers

MANY = b"[]," * (16 << 20)
DEEP = b"[" * 1_000_000


def _config(change: Callable[[Any], Any]) -> bytes:
    config = json.loads(test_config.seeds()[0])
    change(config)
    return json.dumps({**config, "sha256": "0" * 64}).encode()


def _last(config: Any) -> Any:
    return config["towers"]["query"]["encoder"]["nodes"][-1]


def _manifest(line: bytes) -> bytes:
    return test_manifest.seeds()[0] + line + b"\n"


CONFIGS: dict[str, tuple[Callable[[], bytes], str]] = {
    "200,000 keys": (lambda: b"{" + b",".join(b'"k%d": 0' % i for i in range(200_000)) + b', "k7": 1}', "stands twice"),
    "50 MB of []": (lambda: b'{"a": [' + MANY + b"[]]}", "values, more than the limit"),
    "deep": (lambda: DEEP, "nested too deeply"),
    "a surrogate as sha256": (lambda: _config(lambda c: c["weights"].update(sha256="\ud800")), "refused"),
    "a surrogate as bytes": (lambda: _config(lambda c: _last(c).update(inputs=["scaled", {"bytes": "\ud800"}])), "refused"),
    "1001 dimensions": (lambda: _config(lambda c: c["vocabularies"]["query.table.keys"].update(shape=[1] * 1001)), "refused"),
    "a cast to no dtype": (lambda: _config(lambda c: _last(c).update(op="cast", inputs=["scaled"], attrs={"dtype": "float33"})), "refused"),
    "first_id 2^64-1": (lambda: _config(lambda c: vocabulary_of(c).update(first_id=(1 << 64) - 1)), "refused"),
    "negative oov_buckets": (lambda: _config(lambda c: vocabulary_of(c).update(oov_buckets=-1)), "refused"),
    "a size as input": (lambda: _config(lambda c: c["towers"]["query"]["inputs"][1].update(dtype="size")), "does not exist here"),
    "a list of 2^40": (
        lambda: _config(lambda c: _last(c).update(op="list_reserve", inputs=[1 << 40], attrs={})), "refused"),
}  # fmt: skip
INDEXES: dict[str, tuple[Callable[[], bytes], str]] = {
    "ids of 100 MB": (lambda: b"ids.txt\n" + b"x" * (100 << 20), "refused"),
    "attributes of 50 MB of []": (lambda: b'attributes.json\n{"size": [1, ' + MANY + b"[]]}", "more than the limit"),
    "deep attributes": (lambda: b"attributes.json\n" + DEEP, "refused"),
    "null": (lambda: b"index.json\nnull", "refused"),
    "a list": (lambda: b"index.json\n[]", "refused"),
}
MANIFESTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a list": (lambda: _manifest(b"[]"), "refused"),
    "null": (lambda: _manifest(b"null"), "refused"),
    "deep": (lambda: _manifest(DEEP), "refused"),
}
VOCABULARIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a line of 6 MB": (lambda: b"x" * (6 << 20) + b"\n", r"\[1\] keys"),
    "a line of 25 MB of escapes": (lambda: rb"\x00" * (6 << 20) + b"\n", r"\[1\] keys"),
    "a line of 100 MB of backslashes": (lambda: b"\\" * (100 << 20) + b"\n", r"\[1\] keys"),
    "a line of 25 MB that ends in no escape": (lambda: rb"\x00" * (6 << 20) + b"\\q\n", r"'\\\\q' is not an escape"),
    "a line of 6 MB without end": (lambda: b"x" * (6 << 20), "truncated"),
    "25 MB of empty lines": (lambda: b"\n" * (25 << 20), r"\[26214400\] keys"),
    "15 MB of escaped lines": (lambda: b"\\n\n" * (5 << 20), r"\[5242880\] keys"),
}
LONG = "rows.* a line is longer than 16777216 bytes: .* --max-line-bytes"
COLUMNS = [*(b"c%d" % i for i in range(60_000)), b"id", b"name", b"price"]


def _bomb(ending: bytes, piece: bytes, first: bytes = b"") -> bytes:
    """A compressed file of 48 MB."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
        packed.write(first)
        for _ in range(48):
            packed.write(piece * ((1 << 20) // len(piece)))
    return ending + b"=\n" + file.getvalue()


ROWS: dict[str, tuple[Callable[[], bytes], str]] = {
    "60,000 columns": (lambda: b"csv\n" + b",".join(COLUMNS) + b"\n" + b"1," * 60_002 + b"1\n", "answered"),
    "60,000 columns, one of them twice": (lambda: b"csv\n" + b",".join([*COLUMNS, b"c7"]) + b"\n", "two columns are named 'c7'"),
    **{f"{ending}: {kind}": (functools.partial(_bomb, ending.encode(), piece, first), said)
       for ending, comma in (("csv.gz", b","), ("tsv.gz", b"\t"), ("jsonl.gz", b"[],"))
       for header in (b"" if ending == "jsonl.gz" else comma.join((b"id", b"name", b"price")) + b"\n",)
       for kind, piece, first, said in (
           ("lines", b"x" * 1023 + b"\n", header, "answered"), ("a line", b"x", header, LONG),
           ("a line of values", comma, b"[" if ending == "jsonl.gz" else b"", LONG),
       )},
    "jsonl: a line": (lambda: b"jsonl\n" + b"x" * (24 << 20), LONG),
    "jsonl: a line of values": (lambda: b"jsonl\n[" + b"[]," * (8 << 20), LONG),
}  # fmt: skip
TARGETS = {"config": CONFIGS, "index": INDEXES, "manifest": MANIFESTS, "vocabulary": VOCABULARIES, "rows": ROWS}
assert {test_config, test_index, test_manifest, test_vocabulary, test_rows}  # the fuzzers that these are inputs of


@functools.cache
def found(target: str) -> dict[str, str]:
    return outcomes(f"tests.fuzz.test_{target}", {name: make() for name, (make, _) in TARGETS[target].items()})


@pytest.mark.parametrize("target, case", [(target, case) for target, cases in TARGETS.items() for case in cases])
def test_a_file_costs_no_more_than_it_weighs(target: str, case: str) -> None:
    said = found(target).get(case, "the process ended")
    assert re.match("answered|refused: ", said), said
    assert re.search(TARGETS[target][case][1], said), said


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the size of a process")
def test_a_good_checkpoint_loads_where_a_process_may_have_3_gb(tmp_path: Path) -> None:
    two_towers().save(tmp_path / "towers")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3_000_000 << 10,) * 2)\n"
        "import torch_towers; print(type(torch_towers.load(sys.argv[1])).__name__)"
    )
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # many threads would take more addresses
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "towers")], env=alone, capture_output=True, text=True
    )
    assert done.stdout == "TwoTower\n", done.stderr
