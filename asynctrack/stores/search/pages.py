"""Pages of what a search has found."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.stores.base import Page
from asynctrack.stores.keys import shorten

__all__ = ["MAX_RESULTS", "check_max_results", "page", "page_at", "page_start"]

#: the most entities one page may hold, as in MLflow
MAX_RESULTS = 50_000


def check_max_results(max_results: int) -> None:
    """Raise `InvalidInputError` for a page size MLflow would refuse."""
    if isinstance(max_results, bool) or not isinstance(max_results, int) or not 1 <= max_results <= MAX_RESULTS:
        raise InvalidInputError(f"max_results is {shorten(max_results)}; it must be a number from 1 to {MAX_RESULTS}")


def page(items: Sequence[Any], max_results: int, token: str | None) -> Page:
    """The page that ``token`` (of the page before; None for the first) asks for. Raises `InvalidInputError`."""
    start = page_start(max_results, token)
    return page_at(start, items[start : start + max_results + 1], max_results)


def page_start(max_results: int, token: str | None) -> int:
    """How many entities come before the page that ``token`` asks for. Raises `InvalidInputError`."""
    check_max_results(max_results)
    return _offset(token) if token else 0


def page_at(start: int, items: Sequence[Any], max_results: int) -> Page:
    """The page that begins at ``start``; ``items`` has one more than fit, if there are any more."""
    end = start + max_results
    following = base64.b64encode(json.dumps({"offset": end}).encode()).decode() if len(items) > max_results else None
    return Page(list(items[:max_results]), following)


def _offset(token: str) -> int:
    try:
        offset = json.loads(base64.b64decode(token, validate=True))["offset"]
    except (binascii.Error, ValueError, TypeError, KeyError):
        offset = None
    if not isinstance(offset, int) or offset < 0:
        raise InvalidInputError(f"page token {shorten(token)} is not one that a search has returned")
    return offset
