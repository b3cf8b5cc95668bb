"""`--inputs`: a user's own rows, from columns or from lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.samples.user_inputs import read_examples
from torch_towers.graph.graph import TensorSpec

WORD = TensorSpec("word", "string", (None,))
WORDS = TensorSpec("words", "string", (None, 2))
AGE = TensorSpec("age", "float32", (None, 1))


def written(folder: Path, text: str) -> Path:
    path = folder / "examples.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"word": "ü", "age": 1, "words": ["a", ""], "other": {}}\n\n{"word": "b", "age": 2.5, "words": ["c", "d"], "other": 0}\n',
    )
    found = read_examples(path, [WORD, AGE, WORDS])
    assert list(found) == ["word", "age", "words"]
    assert found["word"].tolist() == ["ü".encode(), b"b"]
    assert found["words"].tolist() == [[b"a", b""], [b"c", b"d"]]
    assert found["age"].dtype == np.float32
    assert found["age"].tolist() == [[1.0], [2.5]]  # one value a row is a column of width one


def test_texts_keep_their_last_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, '{"word": "a\\u0000"}\n{"word": "b"}\n')
    assert read_examples(path, [WORD])["word"].tolist() == [b"a\0", b"b"]


def test_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", word=np.array(["a", "b"]), age=np.array([[1], [2]]))
    found = read_examples(tmp_path / "a.npz", [TensorSpec("age", "int64", (None,)), WORD])
    assert found["age"].tolist() == [1, 2]
    assert found["word"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("text", "specs", "message"),
    [
        ('{"word": "a"}\n{word}\n', [WORD], r"line 2: not JSON \(.* at column 2\)"),
        ('{"word": "a"}\n[1]\n', [WORD], "line 2: expected an object with the same features"),
        ('{"word": "a"}\n{"wort": "a"}\n', [WORD], "line 2: expected an object with the same features"),
        ('{"word": "a"}\n', [AGE], "no column 'age', which the tower takes; it has word"),
        ('{"age": "old"}\n', [AGE], "feature 'age', row 0: expected float32, found 'old'"),
        ('{"age": [1]}\n{"age": [1, 2]}\n', [AGE], "feature 'age', row 1: .* rows must be equally long"),
        ('{"age": 2.5}\n', [TensorSpec("age", "int64", (None,))], "feature 'age', row 0: 2.5 is not an integer"),
        ("", [WORD], "no column 'word'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, specs: Any, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(PortingError, match=message) as caught:
        read_examples(path, specs)
    assert str(path) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PortingError, match="no such file; --inputs takes"):
        read_examples(tmp_path / "nowhere", [WORD])
