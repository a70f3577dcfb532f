"""Charts as one HTML file that needs nothing else: to send, to keep, to open without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from asynctrack.markup import escape

if TYPE_CHECKING:
    from asynctrack.plots.chart import Chart

__all__ = ["page"]

# No script runs and nothing is loaded, whatever the names and values are.
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 14px system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
svg {{ max-width: 100%; height: auto }}
figure {{ margin: 0 0 2rem }}
pre {{ max-height: 20rem; overflow: auto; border: 1px solid; padding: .5rem }}
</style></head><body>
<h1>{title}</h1>
"""


def page(charts: Sequence[Chart], title: str = "asynctrack") -> str:
    """An HTML page with the charts and, below each, all of its points as CSV, at full resolution."""
    parts = [_HEAD.format(title=escape(title))]
    for chart in charts:
        parts += [f"<figure>{chart.svg(960, 420)}<details><summary>data</summary><pre>", escape(_csv(chart))]
        parts.append("</pre></details></figure>\n")
    return "".join([*parts, "</body></html>\n"])


def _csv(chart: Chart) -> str:
    return "".join(_rows(chart))


def _rows(chart: Chart) -> Iterable[str]:
    yield f"line,{_cell(chart.x_label)},value\n"
    for line in chart.lines:
        label = _cell(line.label)
        for x, y in zip(line.x, line.y, strict=True):
            yield f"{label},{x!r},{y!r}\n"


def _cell(text: str) -> str:
    if text[:1] in ("=", "+", "-", "@"):
        text = f"'{text}"  # a spreadsheet would take it for a formula
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n\r') else text
