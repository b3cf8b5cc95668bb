"""Vertex AI's files: what is read of them, and what is written as JSON, CSV and Avro."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.torch_towers.bulk.jobs import VERTEX, expected, files_of, job, near, result, rows, write
from torch_towers.bulk import BulkError, Job, Output, run
from torch_towers.bulk.vertex import check_output, repeated_id


def test_vertex_lines(checkpoint: Path, tmp_path: Path) -> None:
    """Pairs, instances, results of a batch prediction: all stand for the same rows."""
    table = rows(8)
    flat = [{"sku": row["sku"], "word": row["word"], "size": row["size"]} for row in table]
    listed = [{"sku": [r["sku"]], "word": [r["word"]], "size": [str(r["size"])], "id_pl": ["x"]} for r in table]
    coded = [{**row, "word": {"b64": base64.b64encode(row["word"].encode()).decode()}} for row in flat]
    shapes = {
        "pairs": [{"query": {"q": ["a"]}, "candidate": row} for row in listed],
        "instances": [{"data": json.dumps(row), "key": row["sku"]} for row in flat],
        "results": [
            {"instance": {"data": json.dumps(r), "key": r["sku"]}, "prediction": {"encoding": [1]}} for r in flat
        ],
        "rows": [{"instance": row, "prediction": [0.5]} for row in flat],
        "bytes": coded,
    }
    for name, lines in shapes.items():
        path = tmp_path / f"{name}.jsonl"
        if name == "results":
            path = tmp_path / "prediction.results-00000-of-00001"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        key = "key" if name in ("instances", "results") else "sku"
        run(job(checkpoint, path, tmp_path / name, id_column=key))
        ids, vectors = result(tmp_path / name)
        assert ids == [row["sku"] for row in table] and near(vectors, expected(checkpoint, table)), name


def test_vertex_json(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[1]["color"] = None  # no value, no restrict
    run(job(checkpoint, write(tmp_path / "i.parquet", table), tmp_path / "out", output=VERTEX))
    lines = [
        json.loads(line) for path in sorted((tmp_path / "out").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == [row["sku"] for row in table]
    assert near(np.array([line["embedding"] for line in lines], np.float32), expected(checkpoint, table))
    assert {k: v for k, v in lines[0].items() if k not in ("id", "embedding")} == {
        "restricts": [{"namespace": "color", "allow": ["red"]}, {"namespace": "shade", "deny": ["red"]}],
        "numeric_restricts": [
            {"namespace": "n", "value_int": 0}, {"namespace": "size", "value_float": table[0]["size"]},
            {"namespace": "wide", "value_double": table[0]["size"]},
        ],
        "crowding_tag": "red",
    }  # fmt: skip
    assert lines[1].keys() == {"id", "embedding", "numeric_restricts"}
    assert all(path.suffix == ".json" for path in (tmp_path / "out").iterdir())


def test_vertex_csv(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(3)
    table[2]["color"] = "a,b"
    output = replace(VERTEX, format="vertex-csv")
    done = run(job(checkpoint, write(tmp_path / "i.jsonl", table), tmp_path / "out", output=output, on_error="skip"))
    assert [row for _, row, _ in done.bad] == [2] and "holds ','" in done.bad[0][2]
    lines = (tmp_path / "out" / "part-00000-000000.csv").read_text().splitlines()
    first = lines[0].split(",")
    assert len(lines) == 2 and first[0] == "s0" and first[5:] == [
        "crowding_tag=red", "color=red", "shade=!red", "#n=0i", f"#size={table[0]['size']}f", f"#wide={table[0]['size']}d",
    ]  # fmt: skip
    assert near(np.array([first[1:5]], np.float32), expected(checkpoint, table[:1]))


def test_vertex_avro(checkpoint: Path, tmp_path: Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    table = rows(5)
    table[3]["n"] = 2**40
    output = replace(VERTEX, format="vertex-avro")
    path = write(tmp_path / "i.parquet", table)
    done = run(job(checkpoint, path, tmp_path / "out", output=output, on_error="skip"))
    assert [row for _, row, _ in done.bad] == [3]
    with (tmp_path / "out" / "part-00000-000000.avro").open("rb") as file:
        found = list(fastavro.reader(file))
    kept = [*table[:3], table[4]]
    assert near(np.array([r["embedding"] for r in found], np.float32), expected(checkpoint, kept))
    assert [r["id"] for r in found] == ["s0", "s1", "s2", "s4"] and found[0]["sparse_embedding"] is None
    assert found[0]["restricts"][1] == {"namespace": "shade", "allow": None, "deny": ["red"]}
    assert found[0]["numeric_restricts"][0] == {
        "namespace": "n",
        "value_int": 0,
        "value_float": None,
        "value_double": None,
    }
    run(job(checkpoint, path, tmp_path / "out2", output=output, on_error="skip"))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "out2")


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


_rows = st.lists(
    st.fixed_dictionaries({
        "id": _text.filter(bool), "allow": st.none() | _text | st.lists(_text, max_size=3), "deny": st.none() | _text,
        "tag": st.none() | _text, "int": st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
        "float": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "double": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    }),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_rows, st.integers(1, 70))
def test_avro_is_what_fastavro_writes(table: list[dict[str, Any]], dim: int) -> None:
    """The records are put together here for speed: fastavro's writer, given the same rows, writes the same file."""
    write = pytest.importorskip("fastavro.write")
    from torch_towers.bulk import vertex

    output = Output("vertex-avro", (("c", "allow"),), (("c", "deny"), ("d", "deny")),
                    (("i", "int", "int"), ("f", "float", "float"), ("d", "double", "double")), "tag")  # fmt: skip
    embeddings = np.random.default_rng(0).standard_normal((len(table), dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "part.avro"
        this = Job("", "", "candidate", (), folder, output=output)
        writer = vertex.VertexWriter(this, Path(folder), "part", dim, "string")
        extras = {name: [row[name] for row in table] for name in output.columns}
        assert writer.add([row["id"] for row in table], embeddings, extras) == {}
        writer.close()
        written = place.read_bytes()
    wanted = io.BytesIO()
    theirs = write.Writer(wanted, vertex._AVRO, sync_interval=1 << 30, sync_marker=vertex._MARKER)
    for row, vector in zip(table, embeddings.tolist(), strict=True):
        allow = [text for text in (row["allow"] if isinstance(row["allow"], list) else [row["allow"]]) if text]
        deny = [row["deny"]] if row["deny"] else []
        restricts = [{"namespace": "c", "allow": allow or None, "deny": deny or None}] if allow or deny else []
        restricts += [{"namespace": "d", "allow": None, "deny": deny}] if deny else []
        numbers = [
            {"namespace": name, **{f"value_{k}": row[k] if k == kind else None for k in ("int", "float", "double")}}
            for name, kind in (("i", "int"), ("f", "float"), ("d", "double")) if row[kind] is not None
        ]  # fmt: skip
        theirs.write({"id": row["id"], "embedding": vector, "sparse_embedding": None, "restricts": restricts or None,
                      "numeric_restricts": numbers or None, "crowding_tag": row["tag"] or None})  # fmt: skip
    theirs.flush()
    assert written == wanted.getvalue()


def test_equal_values_of_other_types_are_other_restricts(checkpoint: Path, tmp_path: Path) -> None:
    """What a category becomes is remembered: 1 and true are equal to Python, and are not one category."""
    table = [{**row, "color": value} for row, value in zip(rows(3), (1, True, 1), strict=True)]
    output = Output("vertex-json", restricts=(("color", "color"),))
    run(job(checkpoint, write(tmp_path / "i.jsonl", table), tmp_path / "out", output=output))
    lines = (tmp_path / "out" / "part-00000-000000.json").read_text().splitlines()
    assert [json.loads(line)["restricts"][0]["allow"] for line in lines] == [["1"], ["true"], ["1"]]


def test_vertex_limits(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[25]["sku"] = "s3"
    with pytest.raises(BulkError, match="the id 's3' is not unique"):
        run(job(checkpoint, write(tmp_path / "i.parquet", table), tmp_path / "out", output=Output("vertex-json")))
    nan = [{**row, "size": float("nan") if i == 2 else 1.0} for i, row in enumerate(rows(5))]
    with pytest.raises(BulkError, match="row 2: the embedding holds NaN or infinity"):
        run(job(checkpoint, write(tmp_path / "j.parquet", nan), tmp_path / "out2", output=Output("vertex-json")))
    with pytest.raises(BulkError, match="5001 files, and Vector Search takes 5000"):
        run(job(checkpoint, write(tmp_path / "k.parquet", rows(5001)), tmp_path / "out3", output=Output("vertex-json"),
                batch_size=1, rows_per_part=1))  # fmt: skip
    with pytest.raises(BulkError, match="given twice"):
        check_output(Output("vertex-json", numeric_restricts=(("a", "a", "int"), ("a", "b", "int"))), 1)
    with pytest.raises(BulkError, match="'a,b' cannot be written"):
        check_output(Output("vertex-csv", restricts=(("a,b", "c"),)), 1)


def test_numbers_that_no_restrict_holds() -> None:
    from torch_towers.bulk.vertex import _value

    largest = float(np.finfo(np.float32).max)
    assert _value(largest, "float", "c") == largest and _value(3.4028235677973362e38, "float", "c") > largest
    for value, kind, said in (
        (3.4028235677973366e38, "float", "not finite"), (float("nan"), "double", "not finite"), (10**400, "int", "more than 64 bits"),
        (10**400, "double", "not a number"), ("1_0", "int", "not an integer"), (1.5, "int", "not an integer"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            _value(value, kind, "c")  # type: ignore[arg-type]


def test_ids_are_compared_a_range_of_hashes_at_a_time(tmp_path: Path) -> None:
    from torch_towers.formats.text_lines import to_lines

    names = [[f"{part}-{i}".encode() for i in range(200)] for part in range(5)]
    paths = [tmp_path / f"p{part}.ids" for part in range(5)]

    def put() -> None:
        for path, part in zip(paths, names, strict=True):
            (tmp_path / f"{path.name}.txt").write_bytes(to_lines(part))
            hashes = [hashlib.blake2b(name, digest_size=8).digest() for name in part]
            np.save(tmp_path / f"{path.name}.npy", np.sort(np.frombuffer(b"".join(hashes), np.uint64)))

    put()
    assert repeated_id(paths, budget=64) is None
    names[4][150] = b"1-7"
    put()
    assert repeated_id(paths, budget=64) == repeated_id(paths) == "1-7"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_as_text_are_the_same_numbers(values: Any) -> None:
    from torch_towers.bulk.vertex import _numbers

    read = np.array([json.loads(f"[{line}]", parse_int=float) for line in _numbers(values)], np.float64).astype(
        np.float32
    )
    assert (read.view(np.uint32) == values.view(np.uint32)).all()
