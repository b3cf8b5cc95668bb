"""TensorFlow Text: constrained sequence labelling, spanning trees, and ROUGE-L."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, Strings, op
from torch_towers.ops.text import integers

Floats = np.ndarray[Any, np.dtype[np.float32]]
_LOWEST = np.float32(np.finfo(np.float32).min)
_ERROR = -1  # the state if no transition is allowed


def _states_spec(*operands: Spec, splits_dtype: str, **attrs: Any) -> list[Spec]:
    return [("int32", (None,)), (splits_dtype, (None,))]


@op(stage="host", infer=_states_spec)
def constrained_sequence(
    scores: Tensor, lengths: Tensor, allowed: Tensor, weights: Tensor, *,
    use_viterbi: bool, use_log_space: bool, use_start_and_end_states: bool, splits_dtype: Dtype = "int64",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The best sequence of states: `scores [n, steps, states], lengths [n] -> states [sum of lengths], splits [n + 1]`.

    `allowed` and `weights` of transitions are `[states + 1, states + 1]` with an extra state for start and end, or
    empty. States are -1 if no sequence is allowed. Source: tensorflow_text ConstrainedSequence.
    """
    rows: Any = scores.numpy() if scores.ndim == 3 else scores.numpy()[None]
    counts = integers(lengths.reshape(-1))
    if len(counts) != len(rows) or max(counts, default=0) > rows.shape[1]:
        raise InputError(
            f"constrained_sequence: the lengths {counts[:8]} do not fit scores of shape {list(scores.shape)}"
        )
    size = rows.shape[2] + use_start_and_end_states
    for name, matrix in (("allowed_transitions", allowed), ("transition_weights", weights)):
        if matrix.numel() and tuple(matrix.shape) != (size, size):
            raise InputError(f"constrained_sequence: {name} has shape {list(matrix.shape)}, expected {[size, size]}")
    if not use_log_space and bool((weights < 0).any()):
        raise InputError("constrained_sequence: transition_weights must not be negative outside of log space")
    decode = _viterbi if use_viterbi else _greedy
    chart = _Transitions(allowed.numpy(), weights.numpy(), use_log_space, use_start_and_end_states)
    states = [state for row, count in zip(rows, counts, strict=True) for state in decode(row[:count], chart)]
    splits = list(itertools.accumulate(counts, initial=0))
    return torch.tensor(states, dtype=torch.int32), torch.tensor(splits, dtype=torch_dtype(splits_dtype))


class _Transitions:
    """Transition scores, which add to (or multiply) a score, and allowed transitions."""

    def __init__(self, allowed: Any, weights: Any, log_space: bool, ends: bool) -> None:
        self.allowed = allowed if allowed.size else None
        self.weights = weights if weights.size else None
        self.log_space = log_space
        self.ends = ends

    def may(self, source: int, target: int) -> bool:
        return self.allowed is None or bool(self.allowed[source, target])

    def weighted(self, score: np.float32, source: int, target: int) -> np.float32:
        if self.weights is None:
            return score
        return self.joined(score, self.weights[source, target])

    def joined(self, score: np.float32, other: Any) -> np.float32:
        """Combines in float32, whatever the precision of `other`."""
        with np.errstate(all="ignore"):
            return np.float32(score + other if self.log_space else score * other)


def _scaled(scores: list[float], log_space: bool) -> list[float]:
    """Outside log space, the scores of each step are divided by their maximum, in float64."""
    highest = max(scores)
    return scores if log_space or not highest > 0 else [score / highest for score in scores]


def _viterbi(scores: Floats, transitions: _Transitions) -> list[int]:
    steps, count = scores.shape
    if not steps:
        return []
    outside = count
    back = [[outside] * count] + [[_ERROR] * count for _ in range(steps - 1)]
    previous = [float(_LOWEST)] * count
    for state in range(count):
        if transitions.ends and not transitions.may(outside, state):
            back[0][state] = _ERROR
            continue
        score = scores[0, state]
        previous[state] = float(transitions.weighted(score, outside, state) if transitions.ends else score)
    previous = _scaled(previous, transitions.log_space)
    for step in range(1, steps):
        current = [float(_LOWEST)] * count
        for state in range(count):
            best = _LOWEST
            for source in range(count):
                if back[step - 1][source] == _ERROR or not transitions.may(source, state):
                    continue
                score = transitions.joined(scores[step, state], previous[source])
                score = transitions.weighted(score, source, state)
                if score >= best:
                    back[step][state], best = source, score
            current[state] = float(best)
        previous = _scaled(current, transitions.log_space)
    final, best = _ERROR, _LOWEST
    for source in range(count):
        if back[-1][source] == _ERROR or (transitions.ends and not transitions.may(source, outside)):
            continue
        score = np.float32(previous[source])
        if transitions.ends:
            score = transitions.weighted(score, source, outside)
        if score >= best:
            final, best = source, score
    if final == _ERROR:
        return [_ERROR] * steps
    path: list[int] = []
    for step in reversed(range(steps)):
        path.append(final)
        final = back[step][final]
    return path[::-1]


def _greedy(scores: Floats, transitions: _Transitions) -> list[int]:
    steps, count = scores.shape
    outside = count
    path: list[int] = []
    for step in range(steps):
        source = path[-1] if path else outside
        if source == _ERROR:
            path.append(_ERROR)
            continue
        last = transitions.ends and step == steps - 1
        best_state, best = _ERROR, _LOWEST
        for state in range(count):
            score = scores[step, state]
            if transitions.ends or step:
                if not transitions.may(source, state) or (last and not transitions.may(state, outside)):
                    continue
                score = transitions.weighted(score, source, state)
                if last:
                    score = transitions.weighted(score, state, outside)
            if score >= best:
                best_state, best = state, score
        path.append(best_state)
    return path


# -- spanning trees -------------------------------------------------------------------------------------------------------


def _tree_spec(num_nodes: Spec, scores: Spec, **attrs: Any) -> list[Spec]:
    shape = scores[1]
    return [(scores[0], None if shape is None else shape[:1]), ("int32", None if shape is None else shape[:2])]


@op(stage="host", infer=_tree_spec)
def max_spanning_tree(num_nodes: Tensor, scores: Tensor, *, forest: bool = False) -> tuple[Tensor, Tensor]:
    """The maximum directed spanning tree: `num_nodes [n], scores [n, nodes, nodes] -> scores [n], sources [n, nodes]`.

    `scores[i, target, source]`, with root scores on the diagonal; non-finite scores mean no arc. Raises InputError if
    there is no tree. Source: tensorflow_text MaxSpanningTree (Chu-Liu, Edmonds, Tarjan).
    """
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2] or num_nodes.shape != scores.shape[:1]:
        raise InputError(
            f"max_spanning_tree: scores have shape {list(scores.shape)}, expected [{num_nodes.numel()}, nodes, nodes]"
        )
    values: Any = scores.numpy()
    totals = np.zeros(len(values), values.dtype)
    sources = np.full(values.shape[:2], -1, np.int32)
    for row, count in enumerate(integers(num_nodes)):
        if not 0 < count <= values.shape[1]:
            raise InputError(f"max_spanning_tree: graph {row} has {count} nodes, expected 1 to {values.shape[1]}")
        tree = _Tree(values[row, :count, :count], forest).solve()
        sources[row, :count] = tree
        for target, source in enumerate(tree):
            totals[row] += values[row, target, source]
    return torch.as_tensor(totals), torch.as_tensor(sources)


Arc = tuple[Any, int, int]  # score, source, target; node 0 is the artificial root


class _Tree:
    """Contracts cycles into new nodes until there are none, then expands them. Node 0 is the parent of every root."""

    def __init__(self, scores: Any, forest: bool) -> None:
        self.count = len(scores)
        self.forest = forest
        size = self.count + 1
        self.arcs: list[list[Arc | None]] = [[None] * size for _ in range(size)]
        for target, source in itertools.product(range(self.count), repeat=2):
            score = scores[target, source]
            if math.isfinite(score):
                self.arcs[target + 1][0 if source == target else source + 1] = (
                    score, 0 if source == target else source + 1, target + 1)  # fmt: skip
        self.best: list[Arc | None] = [None] * (2 * self.count)
        self.into = [0] * (2 * self.count)  # the node into which a node was contracted; 0: none, -1: expanded
        self.contracted = list(range(2 * self.count))
        self.weak = list(range(size))
        self.strong = list(range(size))

    def solve(self) -> list[int]:
        if not self.forest:
            self._penalize_roots()
        self._contract()
        return self._expand()

    def _penalize_roots(self) -> None:
        """Makes every tree with one root better than any with two."""
        known: list[Any] = [arc[0] for row in self.arcs for arc in row if arc is not None]
        if not known:
            return
        kind: Any = known[0].__class__
        with np.errstate(all="ignore"):
            penalty = kind(kind(1) + kind(kind(self.count + 1) * kind(max(known) - min(known))))
            for row in self.arcs[1:]:
                if row[0] is not None:
                    row[0] = (kind(row[0][0] - penalty), *row[0][1:])

    def _contract(self) -> None:
        target = 1
        while target < len(self.arcs):
            arc: Arc | None = None
            for candidate in self.arcs[target]:
                if candidate is not None and (arc is None or arc[0] <= candidate[0]):
                    arc = candidate
            if arc is None:
                raise InputError("max_spanning_tree: infeasible digraph: a node cannot be reached")
            self.best[target] = arc
            if arc[1]:
                source, here = _find(self.weak, arc[1]), _find(self.weak, arc[2])
                if source == here:
                    self._contract_cycle(target)
                else:
                    self.weak[source] = here
            target += 1

    def _contract_cycle(self, node: int) -> None:
        new = len(self.arcs)
        self.arcs.append([None] * (self.count + 1))
        cycle: list[tuple[int, Arc]] = []
        while node != new:
            arc = self.best[node]
            assert arc is not None
            cycle.append((node, arc))
            self.strong[_find(self.strong, arc[1])] = _find(self.strong, arc[2])
            following = _find(self.contracted, arc[1])
            self.contracted[node] = new
            self.into[node] = new
            node = following
        for member, chosen in cycle:
            self._merge(member, chosen[0], new)

    def _merge(self, member: int, chosen: Any, new: int) -> None:
        """Turns arcs into a node of the cycle into arcs into the new node, minus the cost of the cycle's own arc."""
        for source, arc in enumerate(self.arcs[member]):
            if arc is None or _find(self.strong, arc[1]) == _find(self.strong, arc[2]):
                continue
            with np.errstate(all="ignore"):
                score = arc[0] + -chosen
            held = self.arcs[new][source]
            if held is None or held[0] < score:
                self.arcs[new][source] = (score, arc[1], arc[2])

    def _expand(self) -> list[int]:
        for node in range(len(self.arcs) - 1, self.count, -1):
            if self.into[node] == -1:
                continue
            arc = self.best[node]
            assert arc is not None
            self.best[arc[2]] = arc
            inner = self.into[arc[2]]
            while inner not in (-1, node):
                parent = self.into[inner]
                self.into[inner] = -1
                inner = parent
        chosen = [arc for arc in self.best[1 : self.count + 1] if arc is not None]
        if not self.forest and sum(not arc[1] for arc in chosen) != 1:
            raise InputError("max_spanning_tree: infeasible digraph: more than one root is needed")
        return [arc[1] - 1 if arc[1] else target for target, arc in enumerate(chosen)]


def _find(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


# -- ROUGE-L --------------------------------------------------------------------------------------------------------------


def _rouge_spec(*operands: Spec) -> list[Spec]:
    return [("float32", (None,))] * 3


@op(stage="host", infer=_rouge_spec)
def rouge_l(
    hypotheses: Tensor | Strings,
    hypothesis_splits: Tensor,
    references: Tensor | Strings,
    reference_splits: Tensor,
    alpha: Number,
) -> tuple[Tensor, Tensor, Tensor]:
    """ROUGE-L, the longest common subsequence of two token sequences: `-> F, precision, recall`, `[n]` each.

    Both are flat tokens with row splits. `alpha` < 0 selects tensor2tensor's formula. Source: tensorflow_text RougeL.
    """
    weight = np.float32(float(alpha))
    if weight > 1:
        raise InputError(f"rouge_l: alpha must be < 1, found {float(weight)}")
    first, second = integers(hypothesis_splits), integers(reference_splits)
    if len(first) != len(second) or not first:
        raise InputError(f"rouge_l: {len(first)} and {len(second)} splits, expected as many, and one at least")
    ours: list[Any] = hypotheses.tolist()  # type: ignore[reportUnknownMemberType]
    theirs: list[Any] = references.tolist()  # type: ignore[reportUnknownMemberType]
    rows = [
        _measures(ours[a:b], theirs[c:d], weight)
        for (a, b), (c, d) in zip(itertools.pairwise(first), itertools.pairwise(second), strict=True)
    ]
    columns = np.array(rows, np.float32).reshape(len(rows), 3)
    return tuple(torch.from_numpy(columns[:, index].copy()) for index in range(3))  # type: ignore[reportReturnType]


def _measures(ours: list[Any], theirs: list[Any], alpha: np.float32) -> tuple[np.float32, np.float32, np.float32]:
    """Uses TensorFlow's mix of float32 and float64: 1e-12 is a double, and so is its sum."""
    common = _common_length(ours, theirs)
    precision, recall = np.float32(common / (len(ours) + 1e-12)), np.float32(common / (len(theirs) + 1e-12))
    one, zero = np.float32(1), np.float32(0)
    if alpha < 0:
        beta = np.float32(float(precision) / (float(recall) + 1e-12))
        numerator = (one + beta * beta) * recall * precision
        denominator = recall + (beta * beta) * precision
        return (numerator / denominator if denominator > 0 else zero), precision, recall
    denominator = alpha * recall + (one - alpha) * precision
    return ((precision * recall) / denominator if denominator > 0 else denominator), precision, recall


def _common_length(ours: list[Any], theirs: list[Any]) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(theirs) + 1)
    for mine in ours:
        diagonal = 0
        for column, other in enumerate(theirs, 1):
            above = best[column]
            best[column] = diagonal + 1 if mine == other else max(above, best[column - 1])
            diagonal = above
    return best[-1]
