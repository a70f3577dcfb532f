"""Orders: ``metrics.loss DESC``, ``attributes.start_time``, one after another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from asynctrack.errors import InvalidInputError
from asynctrack.stores.keys import shorten
from asynctrack.stores.search.grammar import EXPERIMENTS, NAME, RUNS, Getter, Grammar, identifier

__all__ = ["Order", "order", "parse_experiment_order", "parse_run_order"]

T = TypeVar("T")


class Order(NamedTuple):
    """One item of an order."""

    kind: str
    key: str
    ascending: bool


def parse_run_order(items: Sequence[str] | None) -> list[Order]:
    """Raises `InvalidInputError` saying what is legal."""
    return [_parse_order(item, RUNS) for item in items or ()]


def parse_experiment_order(items: Sequence[str] | None) -> list[Order]:
    """Newest first unless ``items`` say otherwise. Raises `InvalidInputError` saying what is legal."""
    found = [_parse_order(item, EXPERIMENTS) for item in items or ("creation_time DESC", "experiment_id ASC")]
    if all(item.key != "experiment_id" for item in found):
        found.append(Order("attribute", "experiment_id", False))
    return found


def _parse_order(text: str, grammar: Grammar) -> Order:
    def fault(problem: str) -> InvalidInputError:
        return InvalidInputError(
            f"order {shorten(text)} {problem}; an order is like 'metrics.loss DESC' or 'attributes.start_time'"
        )

    found = re.fullmatch(rf"({NAME})(?:\s+(asc|desc))?", text, re.IGNORECASE)
    if found is None:
        raise fault("cannot be read")
    kind, key = identifier(found[1], grammar, fault)
    if grammar is EXPERIMENTS and kind != "attribute":
        raise fault(f"asks for a {kind}: there are {grammar.attributes()}")
    return Order(kind, key, (found[2] or "asc").lower() == "asc")


def order(items: Iterable[tuple[T, Getter]], orders: Sequence[Order]) -> list[T]:
    """``items`` with their getters, sorted. What has no value comes last, NaN right before it, either way round."""
    found = list(items)
    for item in reversed(orders):
        found.sort(key=lambda pair: _sort_key(pair[1](item.kind, item.key), item.ascending), reverse=not item.ascending)
    return [entity for entity, _ in found]


def _sort_key(value: Any, ascending: bool) -> tuple[int, Any]:
    if value is None:
        rank = 2
    elif isinstance(value, float) and math.isnan(value):
        rank = 1
    else:
        return 0, value
    return (rank, 0) if ascending else (-rank, 0)
