"""Charts as objects: a notebook shows them, ``print`` draws them, ``save`` writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.markup import clean
from asynctrack.plots import braille, svg
from asynctrack.plots.lines import Line

__all__ = ["Chart", "Charts"]


class Chart(NamedTuple):
    """Lines that are drawn together, and how."""

    lines: Sequence[Line]
    title: str | None = None
    x_label: str = "step"
    log_x: bool = False
    log_y: bool = False

    def harmless(self) -> Chart:
        """The chart with what a terminal would obey in its names, and XML cannot hold, as escapes."""
        lines = [line._replace(label=clean(line.label)) for line in self.lines]
        title = None if self.title is None else clean(self.title)
        return self._replace(lines=lines, title=title, x_label=clean(self.x_label))

    def svg(self, width: int = 720, height: int = 360) -> str:
        """The chart as an ``<svg>`` element, so many pixels wide and high."""
        made = self.harmless()
        return svg.draw(
            made.lines, width, height, log_x=self.log_x, log_y=self.log_y, title=made.title, x_label=made.x_label
        )

    def text(self, width: int = 80, height: int = 20, *, colour: bool = False, ascii_only: bool = False) -> str:
        """The chart for a terminal, so many characters wide and rows high."""
        made = self.harmless()
        return braille.draw(
            made.lines, width, height, log_x=self.log_x, log_y=self.log_y, colour=colour, ascii_only=ascii_only,
            title=made.title, x_label=made.x_label,
        )  # fmt: skip


class Charts(tuple[Chart, ...]):
    """Some charts. A notebook shows them, ``print`` draws them."""

    __slots__ = ()

    def __new__(cls, charts: Sequence[Chart]) -> Charts:
        return super().__new__(cls, charts)

    def save(self, path: str | os.PathLike[str], width: int = 960, height: int = 420) -> None:
        """Write the charts to a file: ``.html`` (all of them, with their data), ``.svg`` or ``.png`` (one chart; PNG
        needs Pillow), each so many pixels wide and high. Raises InvalidInputError for any other name, OSError."""
        target = os.fspath(path)
        ending = os.path.splitext(target)[1].lower()
        if ending not in (".html", ".svg", ".png"):
            raise InvalidInputError(f"{target!r}: charts are written to .svg, .png or .html; give the file such a name")
        if ending == ".html":
            from asynctrack.plots.page import page

            data = page(self, self[0].title or "asynctrack" if len(self) == 1 else "asynctrack").encode()
        elif len(self) != 1:
            raise InvalidInputError(f"{target!r} holds one chart, and these are {len(self)}; .html holds any number")
        elif ending == ".svg":
            data = self[0].svg(width, height).encode()
        else:
            from asynctrack.plots.png import draw

            data = draw(self[0], width, height)
        with open(target, "wb") as file:
            file.write(data)

    def __str__(self) -> str:
        size = shutil.get_terminal_size()
        return "\n\n".join(chart.text(size.columns, max(min(size.lines - 4, 24), 10)) for chart in self)

    def _repr_html_(self) -> str:
        return "".join(chart.svg() for chart in self)
