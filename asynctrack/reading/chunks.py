"""The rows of a table, some at a time, as columns."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["Chunk", "Kind", "Same", "needed"]

Kind = Literal["text", "int", "time", "double", "bool"]


class Same(NamedTuple):
    """One value that stands in each row of a chunk; for bool, so many rows True and the rest False."""

    value: str | None


class Chunk(NamedTuple):
    """So many rows. ``columns`` in the table's order: for "text" a `Same` or a list, for "int" and "time" (ms since the
    epoch) an ``array('q')``, for "double" an ``array('d')``, for "bool" the number of rows at the front that are True.
    """

    rows: int
    columns: Sequence[Any]


def needed(module: str, what: str, package: str) -> Any:
    """Import what the user's machine may lack. Raises ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {package}: pip install {package!r} ({error})") from error
