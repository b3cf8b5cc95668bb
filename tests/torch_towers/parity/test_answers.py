"""What a tower answers: numpy by TensorFlow's names, the message of a refusal, or an index's ranking."""

from __future__ import annotations

import numpy as np
import torch

from tests.torch_towers.towers import DIM, ROWS, WORDS, id_tower, word_tower
from torch_towers.checkpoint.checkpoint import Candidates
from torch_towers.formats.byte_strings import strings
from torch_towers.parity.answers import Ranking, answer

BATCH = {name: np.array(column, dtype=object if name == "word" else np.float32) for name, column in ROWS.items()}


def test_every_output() -> None:
    found = answer(id_tower(), {"id": np.array([2, 0])})
    assert isinstance(found, dict)
    assert found["embedding"].shape == (2, DIM)
    assert found["name"].tolist() == [WORDS[2], WORDS[0]]
    assert found["embedding"].dtype == np.float32


def test_a_refusal_is_its_message() -> None:
    said = answer(id_tower(), {"id": np.array([99])})
    assert isinstance(said, str)
    assert "99" in said


def test_a_ranking_answers_in_the_towers_place() -> None:
    tower = word_tower()
    vectors = tower.encode(ROWS)
    candidates = torch.eye(DIM)
    rows = answer(tower, BATCH, Ranking(Candidates(candidates, None, 2), "scores", "ids"))
    named = answer(tower, BATCH, Ranking(Candidates(candidates, strings([b"a", b"b", b"c", b"d"]), 2), None, "ids"))
    assert isinstance(rows, dict)
    assert isinstance(named, dict)
    wanted = np.argsort(-vectors.numpy(), axis=1)[:, :2]
    assert rows["ids"].tolist() == wanted.tolist()
    assert rows["ids"].dtype == np.int32
    np.testing.assert_allclose(rows["scores"], np.take_along_axis(vectors.numpy(), wanted, 1), rtol=1e-6)
    assert list(named) == ["ids"]  # an index without scores among its outputs
    assert named["ids"].tolist() == [[b"abcd"[i : i + 1] for i in row] for row in wanted]
