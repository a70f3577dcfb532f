"""Tables become the files that MLflow's log_table makes of them, and are read back."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas
import PIL.Image
import pytest

from asynctrack.artifacts.tables import LOGGED_TABLES_TAG, logged_tables, read_table, table_contents
from asynctrack.errors import InvalidInputError, RefusedError
from tests.artifact_clients import made_by_mlflow

TABLE = {"input": ["a", "ü"], "score": [0.5, None], "when": pandas.to_datetime(["2026-01-01", "2026-01-02"])}


@pytest.mark.parametrize("data", [TABLE, pandas.DataFrame(TABLE), {"input": "a", "score": 1}, {"x": [[1], {"y": 2}]}])
def test_a_json_table_is_written_byte_for_byte_as_mlflow_writes_it_and_so_is_its_tag(data: Any) -> None:
    theirs = made_by_mlflow("log_table", data, "eval/t.json")
    [content] = table_contents(data, "eval/t.json")
    assert content.data == theirs["eval/t.json"]
    assert logged_tables(None, "eval/t.json").encode() == theirs[f"tag {LOGGED_TABLES_TAG}"]


@pytest.mark.parametrize("name", ["t.json", "t.parquet"])
def test_rows_are_added_to_those_logged_before(name: str) -> None:
    [first] = table_contents({"x": [1, 2]}, name)
    [both] = table_contents({"x": [3], "y": ["new"]}, name, first.data)
    table = read_table(both.data, name)
    assert table["x"].tolist() == [1, 2, 3]
    assert table["y"].tolist()[2] == "new"


def test_images_in_a_column_are_stored_beside_the_table_and_the_callers_table_is_left_alone() -> None:
    data = pandas.DataFrame({"name": ["a", "b"], "image": [PIL.Image.new("RGB", (4, 2)), PIL.Image.new("L", (600, 2))]})
    *images, table = table_contents(data, "eval/t.json")
    assert isinstance(data["image"][0], PIL.Image.Image)
    cells = [row[1] for row in json.loads(table.data)["data"]]
    assert [cell["type"] for cell in cells] == ["image", "image"]
    stored = {image.artifact_file: image.data for image in images}
    for cell in cells:
        assert cell["filepath"].startswith("table_images/eval/t/")
        assert PIL.Image.open(io.BytesIO(stored.pop(cell["filepath"]))).format == "PNG"
        assert PIL.Image.open(io.BytesIO(stored.pop(cell["compressed_filepath"]))).size[0] == 256
    assert not stored


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        ({"x": [1]}, "t.csv", "must end in .json or .parquet"),
        ({"x": [1]}, "t:1.json", "must not contain :"),
        ([1, 2], "t.json", "list is no table"),
        ({"x": [PIL.Image.new("L", (1, 1)), 2]}, "t.json", "column 'x' holds images and other things"),
        ({"x": [1, "a"]}, "t.parquet", "cannot be written"),
    ],
)
def test_what_is_no_table_is_refused_by_name(data: Any, name: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=f"table '{name}'.*{reason}"):
        table_contents(data, name)


@pytest.mark.parametrize("name", ["t.json", "t.parquet"])
def test_a_file_that_holds_no_table_is_refused_by_name(name: str) -> None:
    with pytest.raises(RefusedError, match=f"'{name}' is no table"):
        read_table(b"no table", name)


def test_the_tag_lists_each_table_once() -> None:
    tag = logged_tables(logged_tables(None, "a.json"), "b.json")
    assert json.loads(tag) == [{"path": "a.json", "type": "table"}, {"path": "b.json", "type": "table"}]
    assert logged_tables(tag, "a.json") == tag
    assert json.loads(logged_tables("damaged", "a.json")) == [{"path": "a.json", "type": "table"}]
