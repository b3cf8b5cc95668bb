from __future__ import annotations

import json
from pathlib import Path

import pytest

from porting.inspection import inspect, lines
from porting.saved_model import read
from tests.corpus.catalog import REFUSE, Recorded, catalog
from tests.porting.conftest import WORDS


def test_everything_is_listed(people: Path) -> None:
    found = inspect(read(people))
    assert set(found["signatures"]) == {"serving_default", "strict"}
    assert found["signatures"]["serving_default"]["inputs"]["age"] == {"dtype": "float32", "shape": [None]}
    assert set(found["functions"]) >= {"query", "score"}
    assert {v["name"]: v["shape"] for v in found["variables"]}["kernel"] == [6, 4]
    assert sorted((table["size"], table["key_dtype"], table["value_dtype"]) for table in found["tables"]) == [
        (3, "int64", "string"),
        (len(WORDS), "string", "int64"),
    ]
    assert found["ops"]["serving_default"]["Tanh"] == {"count": 1, "supported": True}
    assert any(line.startswith("ops of strict: all supported") for line in lines(found))


@pytest.mark.parametrize("recorded", catalog(), ids=str)
def test_any_saved_model_can_be_inspected(recorded: Recorded) -> None:
    found = inspect(read(recorded.path))
    assert json.loads(json.dumps(found)) == found
    assert found["ops"]
    assert not [ops for ops in found["ops"].values() if "error" in ops]
    assert all(str(line).strip() for line in lines(found))
    if recorded.group != REFUSE:
        assert found["variables"] or found["tables"] or found["ops"]
