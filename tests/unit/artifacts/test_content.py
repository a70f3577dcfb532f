"""Objects become the files that MLflow's own client would have made of them."""

from __future__ import annotations

import collections
import enum
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from asynctrack.artifacts.content import dict_content, figure_content, text_content
from asynctrack.errors import InvalidInputError
from tests.artifact_clients import made_by_mlflow

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_text_is_written_as_utf_8() -> None:
    content = text_content("naïve\r\n☃", "./notes//a.txt")
    assert content == ("notes/a.txt", "naïve\r\n☃".encode())
    assert text_content("\ud800", "a").data == b"?"


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"a\.txt: log_text takes a string, not bytes"):
        text_content(b"x", "a.txt")  # type: ignore[arg-type]  # the mistake that is being tested


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "a.txt", "dir/a"])
def test_dictionaries_are_written_byte_for_byte_as_mlflow_writes_them(name: str) -> None:
    value = {
        "b": [1, 2.5, None, True],
        "a": {"ü": "line\nline", "empty": [], "deep": [{"x": "1"}]},
        "nan": float("nan"),
    }
    assert dict_content(value, name).data == made_by_mlflow("log_dict", value, name)[name]


@given(st.dictionaries(st.text(), PLAIN))
def test_plain_values_come_back_from_both_formats(value: dict[str, Any]) -> None:
    assert json.loads(dict_content(value, "a.json").data) == value
    assert yaml.safe_load(dict_content(value, "a.yaml").data) == value


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


def test_values_that_are_not_plain_are_written_as_what_they_are_based_on_or_as_text() -> None:
    value = {
        "float": numpy.float64(0.5),
        "ordered": collections.OrderedDict(b=1, a=2),
        "level": Level.HIGH,
        "tuple": (1, 2),
        "path": Path("/x"),
        "colour": Colour.RED,
    }
    assert yaml.safe_load(dict_content(value, "a.yaml").data) == {
        "float": 0.5,
        "ordered": {"b": 1, "a": 2},
        "level": 3,
        "tuple": [1, 2],
        "path": "/x",
        "colour": "Colour.RED",
    }
    assert json.loads(dict_content(value, "a.json").data)["path"] == "/x"


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_a_dictionary_that_cannot_be_written_is_refused_by_name(name: str) -> None:
    class Stubborn:
        def __str__(self) -> str:
            raise ValueError("no text")

    with pytest.raises(InvalidInputError, match=f"artifact {name}: the dictionary cannot be written: no text"):
        dict_content({"x": Stubborn()}, name)


@pytest.mark.parametrize("name", ["a.png", "plots/a.svg", "a.pdf", "a"])
def test_a_matplotlib_figure_is_saved_in_the_format_of_its_name(name: str) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    content = figure_content(figure, name, {"dpi": 20})
    begin = {"svg": b"<?xml", "pdf": b"%PDF"}.get(name.rpartition(".")[2], b"\x89PNG")
    assert content.artifact_file == name
    assert content.data.startswith(begin)


def test_a_matplotlib_figure_is_saved_as_mlflow_saves_it() -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    theirs = made_by_mlflow("log_figure", figure, "plots/a.png", save_kwargs={"dpi": 30})
    assert [figure_content(figure, "plots/a.png", {"dpi": 30})] == list(theirs.items())


class PlotlyFigure:
    """What of plotly's figures is used; plotly itself is no dependency of the tests."""

    def write_html(self, file: io.StringIO, **options: Any) -> None:
        file.write(f"<html>{sorted(options.items())}")

    def write_image(self, file: io.BytesIO, format: str, **options: Any) -> None:
        file.write(f"{format} {sorted(options.items())}".encode())


def test_a_plotly_figure_is_saved_with_mlflow_s_options(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plotly.basedatatypes")
    monkeypatch.setattr(module, "BaseFigure", PlotlyFigure, raising=False)
    monkeypatch.setitem(sys.modules, "plotly.basedatatypes", module)
    html = figure_content(PlotlyFigure(), "a.html", {"full_html": False})
    assert html.data == b"<html>[('auto_open', False), ('full_html', False), ('include_plotlyjs', 'cdn')]"
    assert figure_content(PlotlyFigure(), "a.webp", {"scale": 2}).data == b"webp [('scale', 2)]"
    with pytest.raises(InvalidInputError, match=r"a\.gif: .*plotly saves \.html"):
        figure_content(PlotlyFigure(), "a.gif")


@pytest.mark.parametrize(("figure", "name"), [("no figure", "a.png"), (Figure(), "a.docx")])
def test_what_is_no_figure_or_no_format_is_refused_by_name(figure: object, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"artifact {name}: "):
        figure_content(figure, name)
