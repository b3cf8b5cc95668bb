"""Plots as inline SVG, in the colours of the surrounding page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from porting.report.measurements import Errors, Growth
from torch_towers.extras import need

_INK, _PORT, _TENSORFLOW = "#010203", "#010204", "#010205"  # placeholders of the page's colours: see _COLOURS
_COLOURS = {_INK: "currentColor", _PORT: "var(--port)", _TENSORFLOW: "var(--tensorflow)"}
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "torch_towers", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK,
    "ytick.color": _INK,
}  # fmt: skip
_EXACT = 1e-12  # the position of zero errors on the axis


def error_distribution(errors: Errors) -> str:
    """The distribution of an output's errors, for port and TensorFlow: an `<svg>` element."""
    figure, axes = _axes(6.4, 2.4)
    decades = [np.log10(np.maximum(values, _EXACT)) for values in (errors.port, errors.tensorflow)]
    low, high = (min(map(np.min, decades)), max(map(np.max, decades))) if errors.port.size else (-9.0, -6.0)
    first, last = float(np.floor(low)), float(np.ceil(high)) + 1e-9
    bins = [first + (last - first) * i / 40 for i in range(41)]
    for values, colour, label in zip(decades, (_PORT, _TENSORFLOW), ("port", "TensorFlow"), strict=True):
        axes.hist(values, bins=bins, histtype="step", linewidth=1.6, color=colour, label=label)
    axes.set_xlabel("error from float64, relative to the output's RMS (power of ten)")
    axes.set_ylabel("values")
    axes.legend(frameon=False, loc="upper right", labelcolor=_INK)
    return _svg(figure, f"distribution of the errors of {errors.output}")


def error_growth(growth: Sequence[Growth]) -> str:
    """The error after each node of the encoder, in topological order: an `<svg>` element."""
    figure, axes = _axes(6.4, max(1.2, min(0.17 * len(growth) + 0.7, 14.0)))
    places = list(range(len(growth)))
    axes.barh(places, [max(node.error, _EXACT) for node in growth], color=_PORT, height=0.6)
    axes.set_xscale("log")
    axes.invert_yaxis()
    shown = places if len(growth) <= 80 else places[:: -(-len(growth) // 80)]
    axes.set_yticks(shown, [growth[i].node for i in shown], fontsize=7)
    axes.set_xlabel("RMS error from float64, relative to the RMS of the node's values")
    return _svg(figure, "error after each node")


def warm_up() -> None:
    """Imports the plotting library and lets it find its fonts, which takes most of the time of a first figure.

    Errors: `TorchTowersError` if the package is not installed.
    """
    error_growth([Growth("", 1e-9)])


def _axes(width: float, height: float) -> tuple[Any, Any]:
    plots: Any = need("matplotlib.figure", "report")
    with _style():
        figure = plots.Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _style() -> Any:
    matplotlib: Any = need("matplotlib", "report")
    return matplotlib.rc_context(_STYLE)


def _svg(figure: Any, label: str) -> str:
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for stand_in, colour in _COLOURS.items():
        drawn = drawn.replace(stand_in, colour)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
