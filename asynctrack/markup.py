"""Runs and tables as HTML for notebooks: static, without scripts, so GitHub shows them too. All text is escaped; and
text made harmless for terminals and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["Markup", "clean", "escape", "moment", "run_markup", "runs_markup", "table_markup"]

T = TypeVar("T")

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

#: what a terminal obeys instead of showing (C0, DEL, C1), what turns the direction of text, what ends a line, what has
#: no width, and what cannot be encoded
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
#: rows of a table that are shown
_SHOWN = 50
#: tags of these names are MLflow's own, and say little to people
_HIDDEN = "mlflow."


def clean(text: object) -> str:
    """The text on one line, with each character that a terminal would obey written as its escape: ``\\x1b``."""
    return _HARMFUL.sub(_named, str(text))


def _named(found: re.Match[str]) -> str:
    character = found[0]
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
    )


def escape(text: str) -> str:
    """As html.escape, whose module has all entities of HTML and is loaded with every command; and harmless, with the
    lines that there are."""
    return "\n".join(map(clean, text.split("\n"))).translate(_ESCAPES)


def moment(ms: int | None) -> str:
    """A time (ms since the epoch) in UTC, to the second; "" for None."""
    if ms is None:
        return ""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def table_markup(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table. A cell that is a `Markup` stands as it is."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _cell(value: object) -> str:
    return value if isinstance(value, Markup) else escape(str(value))


def run_markup(run: Run, drawings: Mapping[str, str] | None = None) -> str:
    """A run: who it is, its params, its metrics with their latest values and, by key, a drawing of each."""
    info, data = run.info, run.data
    drawn = drawings or {}
    parts = [
        f"<h4>{escape(info.run_name or info.run_id)}</h4>"
        f"<p>run {escape(info.run_id)}, {escape(str(info.status))}, began {moment(info.start_time)} UTC"
        + (f", ended {moment(info.end_time)} UTC" if info.end_time is not None else "")
        + "</p>"
    ]
    for head, entries in (
        ("param", data.params),
        ("tag", {key: value for key, value in data.tags.items() if not key.startswith(_HIDDEN)}),
    ):
        if entries:
            parts.append(table_markup([head, "value"], _first(sorted(entries.items()))) + _more(len(entries)))
    if data.metrics:
        rows = [
            (key, f"{value:.6g}", _step(run, key), *([Markup(drawn.get(key, ""))] if drawn else []))
            for key, value in _first(sorted(data.metrics.items()))
        ]
        parts.append(table_markup(["metric", "latest", "step", *(["history"] if drawn else [])], rows))
        parts.append(_more(len(data.metrics)))
    return "".join(parts)


def runs_markup(runs: Sequence[Run]) -> str:
    """Some runs, a row for each: names, status, times, and what they differ in."""
    params = sorted({key for run in runs for key in run.data.params if _differs(runs, key)})[:8]
    metrics = sorted({key for run in runs for key in run.data.metrics})[:8]
    rows = [
        (
            run.info.run_name or "",
            run.info.run_id[:8],
            str(run.info.status),
            moment(run.info.start_time),
            *(run.data.params.get(key, "") for key in params),
            *(f"{run.data.metrics[key]:.6g}" if key in run.data.metrics else "" for key in metrics),
        )
        for run in runs[:_SHOWN]
    ]
    return table_markup(["name", "run", "status", "began (UTC)", *params, *metrics], rows) + _more(len(runs))


def _differs(runs: Sequence[Run], key: str) -> bool:
    return len(runs) == 1 or len({run.data.params.get(key) for run in runs}) > 1


def _step(run: Run, key: str) -> object:
    point = run.data.latest.get(key)
    return "" if point is None else point.step


def _first(rows: list[tuple[str, T]]) -> list[tuple[str, T]]:
    return rows[:_SHOWN]


def _more(count: int) -> str:
    return f"<p>and {count - _SHOWN:,} more</p>" if count > _SHOWN else ""
