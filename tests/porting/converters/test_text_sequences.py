"""Sequences, spanning trees, ROUGE-L and sentences of TensorFlow Text against TensorFlow."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from porting.errors import PortingError
from tests.porting.converters.test_text import kernels
from tests.witness import as_array, check_function, port, trace
from torch_towers.errors import InputError

COVERED = {"ConstrainedSequence", "MaxSpanningTree", "RougeL", "SentenceFragments"}


@pytest.mark.parametrize("viterbi", [False, True])
@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_constrained_sequence(viterbi: bool, log_space: bool, ends: bool) -> None:
    generator = np.random.default_rng(7)
    solve = kernels("viterbi_constrained_sequence_op").constrained_sequence
    size = 4 + ends
    none, free = np.zeros((0, 0), bool), np.zeros((0, 0), np.float32)
    allowed, blocked = generator.random((size, size)) > 0.4, np.zeros((size, size), bool)
    weights = generator.random((size, size)).astype(np.float32)
    scores = (generator.normal(size=(6, 5, 4)) if log_space else generator.random((6, 5, 4))).astype(np.float32)
    scores[0] = np.round(scores[0])  # ties: the last of them wins
    scores[1, 2, 1], scores[2, 1, 0] = np.inf, np.nan
    lengths = np.array([5, 3, 4, 0, 1, 2], np.int32)
    feeds = {"scores": scores, "lengths": lengths}
    for transitions, weight in itertools.product((none, allowed, blocked), (free, weights)):

        def best(scores: Any, lengths: Any, transitions: Any = transitions, weight: Any = weight) -> Any:
            return solve(
                scores, lengths, transitions, weight, viterbi, log_space, ends, Tsplits=np.int32 if ends else np.int64
            )

        check_function(
            lambda scores, lengths, best=best: best(scores, lengths),
            [feeds, {name: value[:1] for name, value in feeds.items()}],
        )
    check_function(
        lambda scores, lengths: solve(scores, lengths, none, free, viterbi, log_space, ends),
        [{"scores": scores[0], "lengths": np.array([4], np.int64)}], free=False,
    )  # fmt: skip


@pytest.mark.parametrize("forest", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_max_spanning_tree(forest: bool, dtype: Any) -> None:
    generator = np.random.default_rng(3)
    solve = kernels("mst_ops").max_spanning_tree
    for scale in (3, 1000):  # the small scale has many ties
        scores = np.round(generator.normal(size=(40, 7, 7)) * scale).astype(dtype)
        if dtype != np.int32:
            scores += generator.normal(size=scores.shape).astype(dtype) * (scale > 3)
            scores[:5, 0, 3:5] = np.nan
            scores[5:9, 2, 1] = -np.inf
        sizes = generator.integers(1, 8, 40).astype(np.int32)
        check_function(
            lambda num_nodes, scores: solve(num_nodes, scores, forest=forest), [{"num_nodes": sizes, "scores": scores}]
        )


def test_no_spanning_tree() -> None:
    solve = kernels("mst_ops").max_spanning_tree
    feeds = {"num_nodes": np.array([2], np.int32), "scores": np.full((1, 2, 2), np.nan, np.float32)}
    program = port(trace(lambda num_nodes, scores: solve(num_nodes, scores), feeds), ["num_nodes", "scores"])
    with pytest.raises(InputError, match="infeasible"):
        program(num_nodes=torch.tensor([2]), scores=torch.full((1, 2, 2), torch.nan))
    two_roots = torch.full((1, 2, 2), torch.nan)
    two_roots[0, 0, 0] = two_roots[0, 1, 1] = 1.0
    with pytest.raises(InputError, match="infeasible"):
        program(num_nodes=torch.tensor([2]), scores=two_roots)


@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0, -1.0, 0.3])
@pytest.mark.parametrize("kind", ["string", "int32", "int64"])
def test_rouge_l(alpha: float, kind: str) -> None:
    generator = np.random.default_rng(1)
    score = text_similarity()
    feeds: dict[str, Any] = {}
    for name in ("hyp", "ref"):
        lengths = generator.integers(0, 9, 12)
        lengths[:3] = (0, 5, 0) if name == "hyp" else (0, 0, 4)
        values = generator.integers(0, 6, lengths.sum())
        feeds[f"{name}_values"] = (
            as_array([f"w{value}" for value in values]) if kind == "string" else values.astype(kind)
        )
        feeds[f"{name}_splits"] = np.cumsum([0, *lengths]).astype(np.int32 if kind == "int32" else np.int64)
    check_function(
        lambda hyp_values, hyp_splits, ref_values, ref_splits: score(
            hyp_values, hyp_splits, ref_values, ref_splits, alpha
        ),
        [feeds],
    )


def text_similarity() -> Any:
    from tensorflow_text.python.metrics import text_similarity_metric_ops as wrapper

    return wrapper.gen_text_similarity_metric_ops.rouge_l


WORDS = [
    "Hello",
    ".",
    "!",
    "?",
    "...",
    "\u2026",
    ")",
    "(",
    "]",
    "''",
    '"',
    "U.S.",
    ":)",
    "(",
    "`",
    ">",
    "<",
    "\u3002",
    "\u300d",
    "\u300c",
    "a",
    "\u0589",
    "!?",
    "\xbb",
]


@pytest.mark.parametrize("seed", range(6))
def test_sentence_fragments(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 14, 60)
    words = generator.choice(WORDS[: 24 if seed % 2 else 9], lengths.sum())
    properties = [
        {"U.S.": 0x100, ":)": 0x80}.get(word, int(generator.choice([0, 0, 0, 0, 0x100, 0x80]))) for word in words
    ]
    fragments = kernels("sentence_breaking_ops").sentence_fragments
    zeros = np.zeros(len(words), np.int64)
    check_function(
        lambda row_lengths, words, properties: fragments(
            row_lengths, zeros, zeros, words, properties, input_encoding="UTF-8"
        ),
        [{"row_lengths": lengths, "words": as_array(words.tolist()), "properties": np.array(properties, np.int64)}],
    )


def test_other_encodings_are_refused() -> None:
    fragments = kernels("sentence_breaking_ops").sentence_fragments
    feeds = {"words": as_array(["a"])}
    concrete = trace(lambda words: fragments([1], [0], [0], words, [0], input_encoding="UTF-16"), feeds, free=False)
    with pytest.raises(PortingError, match="UTF-16"):
        port(concrete, ["words"])
