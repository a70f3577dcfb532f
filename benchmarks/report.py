"""What a benchmark found, as data: tables, goals and charts. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Chart", "Goal", "Report", "Table", "figure_of"]


def figure_of(value: float) -> str:
    """With three digits that say something, and never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Table:
    """Cells are text; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row. Raises ValueError where it does not fit the columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.columns)} columns: {cells}")
        self.rows.append(list(cells))

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [self.columns, *self.rows]
        ]
        return "\n".join([f"\n{self.title}", *lines])

    def markdown(self) -> str:
        """For RESULTS.md."""
        ruler = ["---", *["--:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in [self.columns, ruler, *self.rows]]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass
class Goal:
    """A figure to reach; ``at_least`` where more is better. ``name`` is what ``--check NAME=LIMIT`` calls it."""

    name: str
    what: str
    found: float
    limit: float
    unit: str = "×"
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}".rstrip()

    def text(self) -> str:
        """For a terminal."""
        return f"{self.name}: {self.what}: {figure_of(self.found)} {self.unit}, wanted {self.wanted}: {self.verdict}"

    @property
    def verdict(self) -> str:
        """In one word."""
        return "reached" if self.reached else "MISSED"


@dataclass
class Chart:
    """One figure. ``kind`` is "bars" (a bar for each category and series), "dots" (a line for each category, and a dot
    for each series on it) or "lines" (``xs``, and a line a series)."""

    name: str
    kind: str
    title: str
    axis: str
    categories: list[str]
    series: dict[str, list[float | None]]
    xs: list[float] = field(default_factory=list)
    x_axis: str = ""
    log: bool = False
    #: a mark to compare with, and its label
    mark: float | None = None
    mark_label: str = ""


@dataclass
class Report:
    """One benchmark's findings. ``notes`` are what a reader must know to believe them, and what was left out."""

    name: str
    title: str
    about: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: what was measured beside us, by name
    versions: dict[str, str] = field(default_factory=dict)
    #: where and when it was measured; ``quick``: at sizes that show that it works, and little more
    machine: str = ""
    date: str = ""
    quick: bool = False

    def goal(
        self, name: str, what: str, found: float, limit: float, unit: str = "×", *, at_least: bool = False
    ) -> None:
        """Add a goal."""
        self.goals.append(Goal(name, what, found, limit, unit, at_least))

    def save(self, path: Path) -> None:
        """As JSON, for `load`."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, path: Path) -> Report:
        """What `save` has written."""
        data: dict[str, Any] = json.loads(path.read_text())
        parts: Mapping[str, type[Any]] = {"tables": Table, "goals": Goal, "charts": Chart}
        for name, kind in parts.items():
            data[name] = [kind(**value) for value in data[name]]
        return cls(**data)

    def text(self) -> Iterator[str]:
        """For a terminal."""
        for table in self.tables:
            yield table.text()
        if self.notes:
            yield ""
        yield from self.notes
        if self.goals:
            yield ""
        for goal in self.goals:
            yield goal.text()
