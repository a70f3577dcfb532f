"""The drawings: text for terminals, SVG and pages."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.entities import PagedList, Run, RunData, RunInfo
from asynctrack.plots import braille, svg
from asynctrack.plots.chart import Chart, Charts
from asynctrack.plots.lines import Line
from asynctrack.plots.page import page
from asynctrack.plots.palette import COLOURS, places_of
from asynctrack.plots.spark import spark

SPIKE = array("d", [0.1] * 10_000)
SPIKE[5_000] = 1000.0
LINES = st.lists(
    st.builds(
        lambda label, points: Line(label, [float(x) for x, _ in points], [y for _, y in points]),
        st.text(max_size=30),
        st.lists(st.tuples(st.integers(-1000, 1000), st.floats()), max_size=20),
    ),
    max_size=12,
)


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_spike_of_one_point_reaches_the_top_of_the_terminal() -> None:
    shown = braille.draw([Line("loss", range(10_000), SPIKE)], 60, 12, colour=False).splitlines()
    assert shown[0].lstrip().startswith("1000┤")
    assert re.search(r"[\u2801-\u28ff]", shown[0])


def test_a_drawing_without_colour_is_the_same_drawing() -> None:
    lines = [Line("a", [0, 1, 2], [3, 1, 2]), Line("b", [0, 1, 2], [1, 2, 3])]
    coloured = braille.draw(lines, 50, 10)
    assert "\x1b[38;5;33m" in coloured
    assert without_colour(coloured) == braille.draw(lines, 50, 10, colour=False)


def test_ascii_is_ascii_with_a_mark_for_each_line() -> None:
    lines = [Line("a", [0, 1, 2], [3, 1, 2]), Line("b", [0, 1, 2], [1, 2, 3])]
    shown = braille.draw(lines, 50, 10, colour=False, ascii_only=True)
    assert shown.isascii()
    assert "* a   + b" in shown


@given(LINES, st.integers(0, 120), st.integers(0, 30), st.booleans(), st.booleans(), st.booleans())
def test_any_lines_fit_the_terminal(
    lines: list[Line], width: int, height: int, log_x: bool, log_y: bool, ascii_only: bool
) -> None:
    lines = [line._replace(label=re.sub(r"[^ -~]", "?", line.label)) for line in lines]
    shown = braille.draw(
        lines, width, height, log_x=log_x, log_y=log_y, colour=False, ascii_only=ascii_only, title="loss"
    )
    rows = shown.split("\n")
    assert len(rows) >= max(height, 5)
    assert all(len(row) <= max(width, 20) for row in rows if not row.startswith("("))


def test_the_terminal_names_what_it_cannot_show() -> None:
    shown = braille.draw([Line("a", [1, 2, 3], [math.nan, -1.0, 5.0])], 60, 8, log_y=True, colour=False)
    assert shown.endswith("(1 NaN; 1 not above 0, left out on the log axis)")


@given(LINES, st.booleans(), st.booleans())
def test_svg_is_well_formed_whatever_the_names_and_values(lines: list[Line], log_x: bool, log_y: bool) -> None:
    # What XML cannot hold at all, names are cleaned of before.
    lines = [
        line._replace(label="".join(mark for mark in line.label if mark >= " " and mark not in "\ufffe\uffff"))
        for line in lines
    ]
    root = ElementTree.fromstring(svg.draw(lines, log_x=log_x, log_y=log_y, title="a<b", x_label="step"))
    numbers = [each for path in root.iter("{http://www.w3.org/2000/svg}path") for each in path.get("d", "").split()]
    assert not any("nan" in each or "inf" in each for each in numbers)


def test_a_spike_reaches_the_top_of_an_svg() -> None:
    drawn = svg.draw([Line("loss", range(10_000), SPIKE)], 400, 200)
    (path,) = re.findall(r'<path d="([^"]*)" fill="none" stroke="#0072b2" stroke-width="1.5" stroke-linejoin', drawn)[
        :1
    ]
    heights = [float(y) for y in re.findall(r"(?:[ML][\d.]+ |V)([\d.]+)", path)]
    assert min(heights) == 12.0


def test_a_single_point_is_a_dot() -> None:
    assert svg.draw([Line("loss", [3], [0.5])]).count("<circle") == 1


def test_more_lines_than_colours_differ_in_their_dashes() -> None:
    drawn = svg.draw([Line(str(number), [0, 1], [0, number]) for number in range(len(COLOURS) + 1)])
    assert drawn.count("stroke-dasharray") == 2  # the line, and its place in the legend


def test_a_page_holds_all_points_and_runs_nothing() -> None:
    hostile = '=<script>alert("1")</script>'
    shown = page([Chart([Line(hostile, [0, 1], [0.1, math.nan])], title="loss & more")], title="</title>")
    assert "<script" not in shown
    assert "&quot;&#x27;=&lt;script&gt;" in shown
    assert "default-src 'none'" in shown
    assert ",0,0.1\n" in shown
    assert ",1,nan\n" in shown


def test_sparks_show_the_spike() -> None:
    shown = spark(SPIKE, 20)
    assert shown == "▁" * 10 + "█" + "▁" * 9
    assert spark([], 20) == ""
    assert spark([1.0], 20) == "▄"
    assert spark([0.0, math.nan, 1.0], 20) == "▁ █"
    assert spark(SPIKE, 20, ascii_only=True) == "_" * 10 + "^" + "_" * 9
    assert ElementTree.fromstring(svg.spark(SPIKE)).tag.endswith("svg")


def test_a_runs_colour_does_not_depend_on_the_order_of_the_others() -> None:
    names = [f"{number:032x}" for number in range(8)]
    found = places_of(names)
    assert sorted(found.values()) == list(range(8))
    assert places_of(reversed(names)) == found
    assert places_of(names[:1]) == {names[0]: places_of(names[:1])[names[0]]}
    assert len(places_of(str(number) for number in range(100))) == 100


HOSTILE = ("\x1b[2Jgone", "\x1b]0;title\x07", "c\x9b31md", "abc\u202edcba", "two\nlines", "\ud800", "<script>&")
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_charts_are_harmless_wherever_these_are_shown(name: str, tmp_path: Path) -> None:
    charts = Charts([Chart([Line(name, [0.0, 1.0], [1.0, 2.0])], name, name)])
    assert not HARMFUL.search(str(charts))
    assert len(str(charts).splitlines()) == len(
        str(Charts([Chart([Line("a", [0.0, 1.0], [1.0, 2.0])], "a")])).splitlines()
    )
    for ending in ("svg", "html"):
        charts.save(tmp_path / f"chart.{ending}")
        assert not HARMFUL.search((tmp_path / f"chart.{ending}").read_text())
    assert ElementTree.parse(tmp_path / "chart.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_notebooks_are_harmless(name: str) -> None:
    run = Run(
        RunInfo("1" * 32, "0", name, "FINISHED", 1, 2, run_name=name), RunData({name: 1.0}, {name: name}, {name: name})
    )
    for shown in (run._repr_html_(), PagedList([run])._repr_html_()):
        assert shown is not None
        assert not HARMFUL.search(shown)
        assert "<script>" not in shown


def test_the_lines_of_a_note_stay_lines_in_a_notebook() -> None:
    run = Run(RunInfo("1" * 32, "0", "ann", "FINISHED", 1, 2), RunData(tags={"note": "two\nlines"}))
    assert "two\nlines" in run._repr_html_()
