"""Charts as PNG. The home of matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import Chart, figure_of

__all__ = ["draw"]

_OURS, _OTHERS, _INK, _FAINT = "#d9480f", "#b6bfc9", "#22272e", "#e6e9ed"
#: for charts where ours is not one of many
_SERIES = ("#0b7285", "#e8590c", "#6741d9", "#2b8a3e")
_STYLE: Any = {
    "axes.edgecolor": "#8b949e",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "figure.dpi": 160,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": _FAINT,
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(chart: Chart, path: Path) -> None:
    """Write the chart as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.transforms import ScaledTranslation

    with pyplot.rc_context(_STYLE):
        rows = max(len(chart.categories), 1) * (len(chart.series) if chart.kind == "bars" else 1.4)
        height = 4.2 if chart.kind == "lines" else 1.5 + 0.3 * rows
        figure, axes = pyplot.subplots(figsize=(8.4, height))
        {"bars": _bars, "dots": _dots, "lines": _lines}[chart.kind](chart, axes)
        axes.set_title(chart.title)
        if chart.mark is not None:
            axes.axvline(chart.mark, color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=chart.mark_label)
        handles, labels = axes.get_legend_handles_labels()
        if any(labels):
            below = axes.transAxes + ScaledTranslation(0.0, -0.45, figure.dpi_scale_trans)
            axes.legend(
                handles, labels, loc="upper right", bbox_to_anchor=(1.0, 0.0), bbox_transform=below, ncols=len(labels)
            )
        figure.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Software": None})
        pyplot.close(figure)


def _is_ours(name: str) -> bool:
    return name.startswith("asynctrack")


def _across(chart: Chart, axes: Any) -> None:
    """Categories from top to bottom, values from left to right."""
    axes.set_yticks(range(len(chart.categories)), chart.categories)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels():
        if _is_ours(label.get_text()):
            label.set_fontweight("bold")
            label.set_color(_OURS)
    if chart.log:
        axes.set_xscale("log")
    axes.set_xlabel(chart.axis)


def _bars(chart: Chart, axes: Any) -> None:
    thickness = 0.76 / len(chart.series)
    alone = len(chart.series) == 1
    for number, (name, values) in enumerate(chart.series.items()):
        places = [at + (number - (len(chart.series) - 1) / 2) * thickness for at in range(len(values))]
        if alone:
            colors = [_OURS if _is_ours(category) else _OTHERS for category in chart.categories]
        else:
            colors = [_SERIES[number]] * len(values)
        lengths = [value or 0.0 for value in values]
        axes.barh(places, lengths, thickness * 0.92, color=colors, label=None if alone else name)
        for place, value in zip(places, values, strict=True):
            text = "not measured" if value is None else figure_of(value)
            at = (value or (axes.get_xlim()[0] if chart.log else 0.0), place)
            axes.annotate(text, at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.14)
    _across(chart, axes)


def _dots(chart: Chart, axes: Any) -> None:
    for at in range(len(chart.categories)):
        found = [value for values in chart.series.values() if (value := values[at]) is not None]
        if found:
            axes.plot(
                [min(found), max(found)], [at, at], color=_OTHERS, linewidth=2.5, solid_capstyle="round", zorder=1
            )
    for number, (name, values) in enumerate(chart.series.items()):
        drawn = [float("nan") if value is None else value for value in values]
        axes.scatter(drawn, range(len(drawn)), s=42, color=_SERIES[number], label=name, zorder=2)
    _across(chart, axes)


def _lines(chart: Chart, axes: Any) -> None:
    for number, (name, values) in enumerate(chart.series.items()):
        color = _SERIES[number]
        if chart.log:
            values = [value or None for value in values]  # a gap for what a logarithm cannot show
        axes.plot(chart.xs, values, color=color, linewidth=2.2, label=name)
    if chart.log:
        axes.set_yscale("log")
    axes.set_xlabel(chart.x_axis)
    axes.set_ylabel(chart.axis)
