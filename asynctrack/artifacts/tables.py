"""From a table (a dictionary or a pandas DataFrame) to the files of MLflow's log_table, and back.

A table is logged by reading what is stored under its name, adding rows, and storing all of it again; nothing here
touches disk or network. Needs pandas, and pyarrow for .parquet.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynctrack.artifacts.content import Content
from asynctrack.artifacts.images import image_content, preview_content
from asynctrack.artifacts.paths import artifact_file as checked
from asynctrack.errors import InvalidInputError, RefusedError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

__all__ = ["LOGGED_TABLES_TAG", "logged_tables", "read_table", "table_contents", "table_path"]

#: the tag by which MLflow's UI, and load_table, know a run's tables
LOGGED_TABLES_TAG = "mlflow.loggedArtifacts"

_FORBIDDEN = "\"',:[]{}"  # MLflow searches for the name within that tag's JSON


def table_path(artifact_file: str) -> str:
    """The path of a table. Raises `InvalidInputError` for one that MLflow refuses."""
    path = checked(artifact_file)
    if not path.endswith((".json", ".parquet")):
        raise InvalidInputError(f"table {path!r}: its name must end in .json or .parquet")
    found = sorted(set(path) & set(_FORBIDDEN))
    if found:
        raise InvalidInputError(f"table {path!r}: its name must not contain {' '.join(found)}")
    return path


def table_contents(
    data: Mapping[str, Any] | DataFrame, artifact_file: str, stored: bytes | None = None
) -> list[Content]:
    """The table's file, last, after those of the images in it. ``stored`` is the file with the rows logged before.

    ``data`` is left as it is. Raises `InvalidInputError`, and `RefusedError` where ``stored`` is no table.
    """
    path = table_path(artifact_file)
    pandas = _pandas(path)
    if isinstance(data, pandas.DataFrame):
        frame = data.copy(deep=False)
    elif isinstance(data, Mapping):
        try:
            frame = pandas.DataFrame(data)
        except ValueError:
            frame = pandas.DataFrame([data])  # nothing but single values: one row
    else:
        raise InvalidInputError(f"table {path!r}: {type(data).__name__} is no table; log a dictionary or a DataFrame")
    contents: list[Content] = []
    for column in frame.columns:
        if frame[column].dtype == object:
            frame[column] = _without_images(frame[column], path, contents)
    if stored is not None:
        frame = pandas.concat([read_table(stored, path), frame], ignore_index=True)
    return [*contents, Content(path, _encoded(frame, path))]


def read_table(data: bytes, artifact_file: str) -> DataFrame:
    """The table in a file. Raises `RefusedError` when it holds none."""
    path = table_path(artifact_file)
    pandas = _pandas(path)
    try:
        if path.endswith(".json"):
            return pandas.read_json(io.BytesIO(data), orient="split")
        return pandas.read_parquet(io.BytesIO(data))
    except (ValueError, TypeError, OSError) as error:
        raise RefusedError(f"artifact {path!r} is no table: {error}") from error


def logged_tables(tag: str | None, artifact_file: str) -> str:
    """The value of `LOGGED_TABLES_TAG` with one more table; ``tag`` is its value so far."""
    try:
        found = json.loads(tag or "[]")
    except ValueError:
        found = []  # not written by MLflow; it would fail there too
    entry = {"path": table_path(artifact_file), "type": "table"}
    tables = found if isinstance(found, list) else []
    return json.dumps(tables if entry in tables else [*tables, entry])


def _without_images(column: Series, path: str, contents: list[Content]) -> Series:
    """The column with images replaced by where they are stored; their files are added to ``contents``."""
    images = [hasattr(value, "save") and hasattr(value, "resize") and hasattr(value, "size") for value in column]
    if not any(images):
        return column
    if not all(images):
        raise InvalidInputError(f"table {path!r}: column {column.name!r} holds images and other things; separate them")
    return column.map(lambda image: _stored_image(image, path, contents))


def _stored_image(image: Any, path: str, contents: list[Content]) -> dict[str, str]:
    import uuid

    name = f"table_images/{path.rpartition('.')[0]}/{uuid.uuid4()}"
    small = preview_content(image, f"{name}.webp")
    contents += [image_content(image, f"{name}.png"), small]
    return {"type": "image", "filepath": f"{name}.png", "compressed_filepath": small.artifact_file}


def _encoded(frame: DataFrame, path: str) -> bytes:
    try:
        if path.endswith(".json"):
            text: str = frame.to_json(orient="split", index=False, date_format="iso")
            return text.encode()
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
    except (ValueError, TypeError, OverflowError, ImportError) as error:
        raise InvalidInputError(f"table {path!r} cannot be written: {error}") from error
    return buffer.getvalue()


def _pandas(path: str) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise InvalidInputError(
            f"table {path!r}: pandas is missing, which reads and writes tables; install it"
        ) from error
    return pandas
