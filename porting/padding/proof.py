"""Runs an encoder on whole and on truncated rows in float64, where the results may differ only by float64 rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from porting.conversion.values import Value
from porting.padding.analysis import find
from torch_towers.errors import TorchTowersError
from torch_towers.graph.spec import TowerSpec
from torch_towers.program.padding import run_cut
from torch_towers.program.refusals import KERNEL_ERRORS
from torch_towers.tower import Tower

_ROWS = 8
_APART = 1e-9
"""Relative to the largest number: sums of a few thousand float64 in another order, through dozens of layers."""


def without_padding(
    spec: TowerSpec,
    store: Mapping[str, Any],
    known: Mapping[str, Value],
    samples: Callable[[], Sequence[Mapping[str, Any]]],
) -> tuple[TowerSpec, list[str], tuple[str, ...]]:
    """`spec` with an encoder for truncated rows if the outputs allow it, a description, and the refusals.

    `known` are the values inferred so far, by name. Dataflow decides; then both ways run on the `samples`, made only then, with rows of many lengths as a check.
    """
    found = find(spec.encoder, store, known)
    if not found.padding:
        return spec, [], found.refused
    cut = replace(spec, encoder=found.encoder, padding=found.padding)
    rows, apart = _both_ways(cut, store, samples())
    if not rows:
        return spec, [], (*found.refused, "padding: it is computed, since no sample could be run both ways")
    if not apart <= _APART:
        return (
            spec,
            [],
            (*found.refused, f"padding: it is computed, since the two ways differ by {apart:.1e} in float64"),
        )
    names = " and ".join(repr(each.input) for each in found.padding)
    said = (
        f"padding is skipped: positions after the end of {names} change no output, by dataflow analysis and by running "
        f"both ways on {rows} rows (difference at most {apart:.0e} in float64); `load(..., skip_padding=False)` computes it"
    )
    return cut, [said], found.refused


def _both_ways(spec: TowerSpec, store: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """The number of rows run, and the maximum difference relative to the largest number."""
    tower = Tower(spec, {name: _wide(value) for name, value in store.items()}, skip_padding=False).to(torch.float64)
    draw = torch.Generator().manual_seed(0)
    outputs = sorted(set.intersection(*(set(each.outputs) for each in spec.padding)))
    rows, apart = 0, 0.0
    for sample in samples[:4]:
        try:
            with torch.no_grad():
                given = tower.on_device(tower.preprocess(dict(sample)))
                given = _ending(spec, {name: _few(value) for name, value in given.items()}, draw)
                whole = tower.encoder(**given)

                def run(inputs: dict[str, Any], places: float, whole: dict[str, Any] = whole) -> dict[str, Any]:
                    return {name: value for name, value in tower.encoder(**inputs).items() if name in outputs}

                cut = run_cut(run, given, spec.padding, budget=1.0, splittable=True)
        except (*KERNEL_ERRORS, TorchTowersError):
            continue  # the tower refuses such rows
        rows += len(given[spec.padding[0].input])
        for name in outputs:
            apart = max(apart, _apart(whole[name], cut[name]))
    return rows, apart


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _few(value: Any) -> Any:
    return value[:_ROWS].clone() if isinstance(value, Tensor) and value.ndim else value


def _ending(spec: TowerSpec, given: dict[str, Any], draw: torch.Generator) -> dict[str, Any]:
    """The inputs with rows of random lengths; the first empty and the first whole row stay unchanged."""
    for each in spec.padding:
        x = given[each.input]
        ends = torch.randint(1, x.shape[1] + 1, (len(x), 1), generator=draw)
        given[each.input] = torch.where(torch.arange(x.shape[1]) < ends, x, torch.tensor(each.value, dtype=x.dtype))
    return given


def _apart(a: Tensor, b: Tensor) -> float:
    """The difference of two outputs relative to the largest number; infinite if NaN or infinities differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not finite.any():
        return 0.0 if torch.equal(finite, b.isfinite()) else float("inf")
    difference = (a - b)[finite].abs().max()
    return float(difference / a[finite].abs().max().clamp_min(1e-300)) if difference else 0.0
