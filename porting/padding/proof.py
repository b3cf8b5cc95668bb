"""An encoder run both ways, on whole rows and on rows cut at their ends: in float64, where only rounding of float64 may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from porting.padding.analysis import find
from torch_towers.errors import TorchTowersError
from torch_towers.graph.spec import TowerSpec
from torch_towers.program.padding import run_cut
from torch_towers.program.refusals import KERNEL_ERRORS
from torch_towers.tower import Tower

_ROWS = 8
_APART = 1e-9
"""Of the largest number: sums of some thousand float64 in another order, through some dozens of layers."""


def without_padding(
    spec: TowerSpec, store: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> tuple[TowerSpec, list[str], tuple[str, ...]]:
    """`spec` with an encoder that takes rows cut at their ends, where the outputs allow it; what is said of it; and why not.

    Dataflow decides, and both ways are run on `samples`, their rows ending at places of every kind.
    """
    found = find(spec.encoder, store)
    if not found.padding:
        return spec, [], found.refused
    cut = replace(spec, encoder=found.encoder, padding=found.padding)
    rows, apart = _both_ways(cut, store, samples)
    if not rows:
        return spec, [], (*found.refused, "padding: it is computed, since no sample could be run both ways")
    if not apart <= _APART:
        return (
            spec,
            [],
            (*found.refused, f"padding: it is computed, since the two ways are {apart:.1e} apart in float64"),
        )
    names = " and ".join(repr(each.input) for each in found.padding)
    said = (
        f"padding is not computed: what stands behind the end of {names} changes no output, by dataflow and by running both ways "
        f"on {rows} rows (at most {apart:.0e} apart in float64); `load(..., skip_padding=False)` computes it"
    )
    return cut, [said], found.refused


def _both_ways(spec: TowerSpec, store: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """How many rows were run, and how far the two ways are apart, of the largest number."""
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
            continue  # the tower takes no such rows
        rows += len(given[spec.padding[0].input])
        for name in outputs:
            apart = max(apart, _apart(whole[name], cut[name]))
    return rows, apart


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _few(value: Any) -> Any:
    return value[:_ROWS].clone() if isinstance(value, Tensor) and value.ndim else value


def _ending(spec: TowerSpec, given: dict[str, Any], draw: torch.Generator) -> dict[str, Any]:
    """The inputs, their rows ending anywhere; a row of nothing and a whole one stay as they are."""
    for each in spec.padding:
        x = given[each.input]
        ends = torch.randint(1, x.shape[1] + 1, (len(x), 1), generator=draw)
        given[each.input] = torch.where(torch.arange(x.shape[1]) < ends, x, torch.tensor(each.value, dtype=x.dtype))
    return given


def _apart(a: Tensor, b: Tensor) -> float:
    """How far two outputs are apart, of their largest number; infinite where they differ in what is no number."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not finite.any():
        return 0.0 if torch.equal(finite, b.isfinite()) else float("inf")
    difference = (a - b)[finite].abs().max()
    return float(difference / a[finite].abs().max().clamp_min(1e-300)) if difference else 0.0
