"""Evidence: asks TensorFlow until it has answered enough rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.samples import samples
from porting.samples.samples import Sample
from porting.saved_model import SavedModel
from torch_towers.graph.graph import Graph

ROUNDS = 6  # of batches made anew, where TensorFlow answered too few rows
PIECES = 64  # parts of refused batches that are asked for again in one round

Ask = Callable[[Sequence[Mapping[str, np.ndarray[Any, Any]]]], list[Any]]


@dataclass
class Evidence:
    """Batches and what TensorFlow said of each: its outputs, or the message (a str) of a refusal."""

    samples: list[Sample] = field(default_factory=list[Sample])
    answers: list[Any] = field(default_factory=list[Any])
    wanted: int = 1  # rows in the domain from which on something can be said

    @property
    def answered(self) -> int:
        """Rows in the domain that TensorFlow answered."""
        pairs = zip(self.samples, self.answers, strict=True)
        return sum(samples.rows(s.inputs) for s, answer in pairs if s.kind == "domain" and not isinstance(answer, str))


def gather(ask: Ask, graph: Graph, model: SavedModel, inside: int = 0) -> Evidence:
    """Batches made from the graph, with TensorFlow's answers: those that it refuses are taken apart, then replaced.

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
    """Batches of the user's, with TensorFlow's answers; those that it refuses are taken apart."""
    found = Evidence()
    _ask(found, ask, [Sample(dict(batch), "domain") for batch in batches])
    return found


def _ask(found: Evidence, ask: Ask, asked: list[Sample]) -> None:
    """Adds batches and their answers. A batch is refused for one of its rows: its halves are asked for, and theirs."""
    while asked:
        answers = ask([sample.inputs for sample in asked])
        found.samples += asked
        found.answers += answers
        refused = [sample for sample, answer in zip(asked, answers, strict=True) if isinstance(answer, str)]
        asked = [half for sample in refused for half in samples.halves(sample)][:PIECES]
