"""Queries TensorFlow until it has answered enough rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.samples import samples
from porting.samples.samples import Sample
from porting.saved_model import SavedModel
from torch_towers.graph.graph import Graph

ROUNDS = 6  # of new batches, if TensorFlow answered too few rows
PIECES = 64  # parts of refused batches to retry per round

Ask = Callable[[Sequence[Mapping[str, np.ndarray[Any, Any]]]], list[Any]]


@dataclass
class Evidence:
    """Batches and TensorFlow's answers: outputs, or the message (a str) of a refusal."""

    samples: list[Sample] = field(default_factory=list[Sample])
    answers: list[Any] = field(default_factory=list[Any])
    wanted: int = 1  # in-domain rows needed for a verdict

    @property
    def answered(self) -> int:
        """In-domain rows that TensorFlow answered."""
        pairs = zip(self.samples, self.answers, strict=True)
        return sum(s.rows for s, answer in pairs if s.kind == "domain" and not isinstance(answer, str))


def gather(ask: Ask, graph: Graph, model: SavedModel, inside: int = 0) -> Evidence:
    """Batches generated from the graph, with TensorFlow's answers; refused batches are split, then replaced.

    `inside`: see `samples.batches`.
    """
    found = Evidence()
    for seed in range(ROUNDS):
        made = samples.batches(graph, model, seed=seed, inside=inside)
        if seed == 0:
            found.wanted = max(1, samples.planned(made) // 2)
        _ask(found, ask, made if seed == 0 else [sample for sample in made if sample.kind == "domain"])
        if found.answered >= found.wanted:
            break
    return found


def given(ask: Ask, batches: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> Evidence:
    """The user's batches with TensorFlow's answers; refused batches are split."""
    found = Evidence()
    _ask(found, ask, [Sample(dict(batch), "domain") for batch in batches])
    return found


def _ask(found: Evidence, ask: Ask, asked: list[Sample]) -> None:
    """Adds batches and answers. A batch may be refused because of one row: then its halves are queried, recursively."""
    while asked:
        answers = ask([sample.inputs for sample in asked])
        found.samples += asked
        found.answers += answers
        refused = [sample for sample, answer in zip(asked, answers, strict=True) if isinstance(answer, str)]
        asked = [half for sample in refused for half in samples.halves(sample)][:PIECES]
