"""Nested params as flat ones: ``{"opt": {"lr": 1}}`` is ``{"opt.lr": 1}``. Pure functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from asynctrack.errors import InvalidInputError
from asynctrack.values import shortened

__all__ = ["flattened"]

#: most names in a key; a param's key has 250 characters at most, so deeper ones could be none
_DEEPEST = 125


def flattened(
    params: object, delimiter: object, max_depth: object, is_key: Callable[[str], bool]
) -> Iterator[tuple[Any, Any]]:
    """The entries of nested dictionaries, dataclasses, namespaces and lists of these, with joined keys.

    What is not to be taken apart (see `RunLog.log_params`) is one entry. Raises InvalidInputError for arguments that
    are not usable.
    """
    if not isinstance(delimiter, str) or not delimiter:
        raise InvalidInputError(f"flatten={shortened(delimiter)}: it must be the text between the names, like '.'")
    if max_depth is not None and (type(max_depth) is not int or max_depth < 1):
        raise InvalidInputError(f"max_depth={shortened(max_depth)}: it must be an integer, at least 1, or None")
    depth = _DEEPEST if max_depth is None else min(max_depth, _DEEPEST)
    top = None if isinstance(params, list | tuple) else _items(params)
    if top is None:
        raise InvalidInputError(f"expected a dictionary of names and values, not {shortened(params)}")
    for key, value in top:
        yield from _flat(key, value, delimiter, depth, is_key, (params,)).items()


def _flat(
    key: Any, value: Any, delimiter: str, depth: int, is_key: Callable[[str], bool], around: tuple[object, ...]
) -> dict[Any, Any]:
    """The entries of one value. It is a single one where ``depth`` forbids more, where it contains itself, or where a
    name in it cannot be part of a key: its text still says everything."""
    whole = {key: value}
    items = _items(value) if depth > 1 and not any(value is outer for outer in around) else None
    if not items:
        return whole
    found: dict[Any, Any] = {}
    for name, inner in items:
        below = f"{key}{delimiter}{name}"
        if not is_key(below):
            return whole
        entries = _flat(below, inner, delimiter, depth - 1, is_key, (*around, value))
        if not found.keys().isdisjoint(entries):
            return whole  # {1: "a", "1": "b"}
        found |= entries
    return found


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Names and values in something that has such; None for anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, list | tuple):
        # Lists of plain values stay one param, as in Lightning.
        return list(enumerate(value)) if all(isinstance(item, Mapping) for item in value) else None
    if isinstance(value, type):
        return None
    if hasattr(value, "__dataclass_fields__"):
        from dataclasses import fields

        return [(field.name, getattr(value, field.name, None)) for field in fields(value)]
    # Whoever has a namespace has imported argparse; importing it here would cost the others 10 ms.
    namespace = getattr(sys.modules.get("argparse"), "Namespace", SimpleNamespace)
    return list(vars(value).items()) if isinstance(value, namespace | SimpleNamespace) else None
