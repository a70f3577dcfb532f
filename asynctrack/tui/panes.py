"""The panes of `asynctrack top` beside the charts, as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.cli.amounts import ago, duration, moment, number
from asynctrack.cli.terminal import cell_width, clean, cut, pad
from asynctrack.constants import RunStatus
from asynctrack.plots.palette import TERMINAL
from asynctrack.tui.state import HELP

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.ui.board import News

__all__ = ["Pen", "about", "footer", "framed", "header", "help_page", "run_rows"]

_SHORT = {"FINISHED": "", "FAILED": "failed", "KILLED": "killed", "RUNNING": "no sign", "SCHEDULED": "planned"}
#: what a run's line says of it at the right
_STATE = 8


class Pen(NamedTuple):
    """How text is written: in colour, or nothing but ASCII."""

    colour: bool = True
    plain: bool = False

    def style(self, text: str, code: str) -> str:
        """The text as an escape of a terminal has it: "1" bold, "2" dim, "7" reversed, "31" red, …"""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text.strip() else text

    @property
    def more(self) -> str:
        """What stands for what was cut off."""
        return "~" if self.plain else "…"


def header(pen: Pen, uri: str, news: News | None, width: int) -> list[str]:
    """What is looked at and how it is, and, where the store has troubles, which."""
    said = ["looking..."] if news is None else _health(news)
    right = ", ".join(said)
    room = max(width - len(right) - 3, 0)
    left = cut(f"asynctrack top  {clean(uri)}", room, pen.more)
    bad = news is not None and news.trouble is not None
    first = pen.style(pad(left, room), "1") + "   " + pen.style(right, "31" if bad else "32")
    if news is None or news.trouble is None:
        return [first]
    trouble = f"store: {clean(news.trouble)}"
    if cell_width(trouble) > width:
        trouble = pen.more + trouble[len(pen.more) - width :]  # why stands at the end
    return [first, pen.style(cut(trouble, width, pen.more), "31")]


def _health(news: News) -> list[str]:
    said = [f"{news.alive} live"] if news.alive else ["none live"]
    said.append(f"{news.waiting:,} undelivered")
    if news.trouble is None:
        said.append(f"{news.behind:.1f} s behind")
    else:  # what spools hold is as new as ever
        said.append(f"store away for {duration(news.behind)}" if news.behind else "store away")
    return said


def run_rows(
    pen: Pen,
    runs: Sequence[FoundRun],
    colours: Mapping[str, int],
    cursor: str | None,
    focused: bool,
    now: int,
    size: tuple[int, int],
) -> list[str]:
    """A line for each run, those that are drawn with the colour of their line; as many as there is room for, and the
    one with the cursor among them. ``now``: ms since the epoch. ``size``: width and height."""
    width, height = size
    at = next((index for index, each in enumerate(runs) if each.run.info.run_id == cursor), 0)
    first = max(min(at - height // 2, len(runs) - height), 0)
    lines = []
    for each in runs[first : first + height]:
        run_id = each.run.info.run_id
        here = run_id == cursor
        dot = " "
        if run_id in colours:
            mark = "*" if pen.plain else "●"
            dot = pen.style(mark, f"38;5;{TERMINAL[colours[run_id] % len(TERMINAL)]}")
        state, code = _state(each, now)
        name = clean(each.run.info.run_name or run_id)
        room = max(width - 3 - _STATE, 4)
        name = pad(cut(name, room, pen.more), room)
        if here:
            name = pen.style(name, "7" if focused else "1")
        lines.append(f"{'>' if here else ' '}{dot}{name} {pen.style(pad(cut(state, _STATE, ''), _STATE, True), code)}")
    if not runs:
        lines.append(" no runs here yet")
    return lines


def _state(found: FoundRun, now: int) -> tuple[str, str]:
    """In a word, and its colour: what waits, that it is live, how it has ended, or how long ago."""
    if found.waiting:
        return f"+{_few(found.waiting)}", "33"
    if found.alive:
        return "live", "32"
    said = _SHORT.get(found.run.info.status, "")
    if said and not (said == "no sign" and not RunStatus.is_terminated(found.run.info.status) and _young(found, now)):
        return said, "31" if said in ("failed", "killed") else "2"
    if not said:
        return ago(found.last_time or found.run.info.start_time, now), "2"
    return "running", "32"


def _young(found: FoundRun, now: int) -> bool:
    """Whether a run that another machine may have open has logged lately."""
    return now - (found.last_time or found.run.info.start_time) < 60_000


def _few(count: int) -> str:
    return f"{count:,}" if count < 100_000 else number(float(count))


def about(pen: Pen, found: FoundRun | None, experiments: Mapping[str, str], width: int) -> list[str]:
    """All there is to say of a run: what it is, its params, tags and metrics."""
    if found is None:
        return []
    info, data = found.run.info, found.run.data
    ended = info.end_time or found.last_time
    took = None if ended is None else (ended - info.start_time) / 1000
    facts = [
        ("id", info.run_id),
        ("experiment", experiments.get(info.experiment_id, info.experiment_id)),
        ("status", info.status + (", live" if found.alive else "")),
        ("started", str(moment(info.start_time))),
        ("took", duration(took)),
        ("undelivered", f"{found.waiting:,}"),
    ]
    tags = {key: value for key, value in data.tags.items() if not key.startswith(("mlflow.", "asynctrack."))}
    if data.tags.get("mlflow.note.content"):
        tags["note"] = data.tags["mlflow.note.content"]
    lines = [pen.style(cut(clean(info.run_name or info.run_id), width, pen.more), "1")]
    lines += _pairs(facts, width, pen)
    for title, pairs in (
        ("params", sorted(data.params.items())),
        ("tags", sorted(tags.items())),
        ("metrics, last", [(key, number(value)) for key, value in sorted(data.metrics.items())]),
    ):
        if pairs:
            lines += ["", pen.style(title, "1"), *_pairs(pairs, width, pen)]
    return lines


def _pairs(pairs: Sequence[tuple[str, str]], width: int, pen: Pen) -> list[str]:
    most = max((cell_width(clean(key)) for key, _ in pairs), default=0)
    room = min(most, max(width // 2 - 1, 6))
    return [
        f"{pad(cut(clean(key), room, pen.more), room)} {cut(clean(value), max(width - room - 1, 1), pen.more)}"
        for key, value in pairs
    ]


def framed(lines: Sequence[str], width: int, height: int, edge: str = "") -> list[str]:
    """Just so many lines, each so wide, with the edge behind them."""
    shown = [*lines[:height], *[""] * (height - len(lines))]
    return [pad(line, width) + edge for line in shown]


def help_page(pen: Pen, width: int, height: int) -> list[str]:
    """The keys."""
    room = max(len(keys) for keys, _ in HELP) + 2
    rows = [f"  {pen.style(pad(_typed(keys, pen), room), '1')}{cut(what, width - room - 2, pen.more)}"
            for keys, what in HELP]  # fmt: skip
    return rows[:height]


def _typed(keys: str, pen: Pen) -> str:
    if not pen.plain:
        return keys
    return " ".join(each for each in keys.split() if each.isascii())


def footer(pen: Pen, text: str, width: int) -> str:
    """The last line."""
    return pen.style(pad(cut(text, width, pen.more), width), "2")
