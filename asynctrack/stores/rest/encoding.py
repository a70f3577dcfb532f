"""Batches as JSON, as strictly as MLflow's server needs it. Pure.

It answers 200 to a body with a value of the wrong type and silently drops everything behind it. So nothing but strings,
finite numbers and 64-bit integers goes out, and NaN and ±Infinity as the three strings that it knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from asynctrack.errors import InvalidInputError
from asynctrack.journal.slots import records
from asynctrack.stores.base import Batch, Point, RecordBlock, Refusal
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.points import MeasuredOn, measured_on

__all__ = ["batch_body", "checked", "dumps", "identity", "model_of", "point_body", "without_doubles"]

_SPECIAL = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
_LARGEST = 1.7976931348623157e308
#: characters of a value that are sent; a server keeps 6000 of a param and 8000 of a tag. JSON makes at most six bytes
#: of one, so that any single event fits a body
_MOST_TEXT = 100_000
#: an escaped backslash, or a NUL
_ESCAPED = re.compile(r"(\\\\)|\\u0000")


def dumps(value: object) -> bytes:
    """Strict JSON. Raises ValueError for what it cannot hold. Half surrogates become question marks, and NUL, which
    PostgreSQL cannot hold, the replacement character."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return _without_nul(text).encode("utf-8", "replace")


def batch_body(run_id: str, batch: Batch) -> bytes:
    """The body of ``runs/log-batch``: params as they are (unique, please), of equal tags the last; what is in texts
    that a server cannot hold is replaced, as by `dumps`."""
    fields = [f'"run_id":{_string(run_id)}']
    metrics = list(_metrics(batch))
    if metrics:
        fields.append(f'"metrics":[{",".join(metrics)}]')
    for name, entries in (("params", batch.params), ("tags", dict(batch.tags).items())):
        if entries:
            fields.append(f'"{name}":[{",".join(_entry(key, value) for key, value in entries)}]')
    return f"{{{','.join(fields)}}}".encode("utf-8", "replace")


def point_body(run_id: str, batch: Batch) -> bytes | None:
    """The body of ``runs/log-metric`` for a batch of a single point; None for any other. A server takes a third longer
    for a ``log-batch`` of one point."""
    if batch.points != 1 or len(batch) != 1:
        return None
    (metric,) = _metrics(batch)
    return f'{{"run_id":{_string(run_id)},{metric[1:]}'.encode("utf-8", "replace")


def _metrics(batch: Batch) -> Iterator[str]:
    for key, points in batch.decoded.items():
        yield from _points(f'{{"key":{_string(key)},"value":', points)
    for block in batch.blocks:
        yield from _block(block)


def _points(head: str, points: Iterable[Point]) -> Iterator[str]:
    for point in points:
        yield f'{head}{_number(point[2])},"timestamp":{point[0]},"step":{point[1]}{_more(measured_on(point))}}}'


@lru_cache(256)
def _more(on: MeasuredOn | None) -> str:
    """What MLflow 3 knows of a metric beside its points; a server of before passes over it."""
    fields = {} if on is None else on._asdict()
    return "".join(f',"{name}":{_string(text)}' for name, text in fields.items() if text is not None and name != "key")


def _block(block: RecordBlock) -> Iterable[str]:
    heads = {number: f'{{"key":{_string(key)},"value":' for number, key in block.keys.items()}
    if block.finite:
        return [
            f'{heads[stream]}{value!r},"timestamp":{timestamp},"step":{step}}}'
            for timestamp, step, value, stream in records(block.data)
        ]
    return (
        f'{heads[stream]}{_number(value)},"timestamp":{timestamp},"step":{step}}}'
        for timestamp, step, value, stream in records(block.data)
    )


def _number(value: float) -> str:
    text = repr(value)
    return _SPECIAL.get(text, text)


def _entry(key: str, value: str) -> str:
    return f'{{"key":{_string(key)},"value":{_string(value[:_MOST_TEXT])}}}'


def _string(text: str) -> str:
    return _without_nul(json.dumps(text, ensure_ascii=False))


def _without_nul(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or "\ufffd", text) if "\\u0000" in text else text


def checked(batch: Batch) -> tuple[Batch, list[Refusal]]:
    """The batch without the events that no server takes, and those: one bad key costs a server's whole batch.

    A journal may hold keys that were checked against another store. Within a batch a param is sent once, and its first
    value counts.
    """
    bad = {kind: _bad_keys(kind, keys) for kind, keys in _keys(batch).items()}
    params, clashes = _unique(batch.params)
    if not clashes and len(params) == len(batch.params) and not any(bad.values()):
        return batch, []
    refusals = [Refusal("param", key, value, reason) for key, value, reason in clashes]
    kept = []
    for kind, key, value in batch.items():
        if key in bad[kind]:
            refusals.append(Refusal(kind, key, value, bad[kind][key]))
        elif kind != "param":
            kept.append((kind, key, value))
    kept += [("param", key, value) for key, value in params.items() if key not in bad["param"]]
    return Batch.of(kept), refusals


def _keys(batch: Batch) -> dict[str, set[str]]:
    return {
        "metric": batch.metric_keys(),
        "param": {key for key, _ in batch.params},
        "tag": {key for key, _ in batch.tags},
    }


def _bad_keys(kind: str, keys: set[str]) -> dict[str, str]:
    found = {}
    for key in keys:
        try:
            check_key(kind, key)
        except InvalidInputError as error:
            found[key] = str(error)
    return found


def _unique(params: list[tuple[str, str]]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    unique: dict[str, str] = {}
    clashes = []
    for key, value in params:
        first = unique.setdefault(key, value)
        if first != value:
            reason = f"param {shorten(key)} already logged with {shorten(first)}, and params never change"
            clashes.append((key, value, f"{reason}; log it under another key"))
    return unique, clashes


def without_doubles(
    batch: Batch, stored: dict[str, set[tuple[int, int, str]]], *, but_of_models: bool = False
) -> Batch:
    """The batch without the points in ``stored`` (by metric, see `identity`), and each point once. ``but_of_models``:
    those about a logged model stay, for ``stored`` says what the run has, and not what the model has."""
    metrics: dict[str, list[Point]] = {}
    for key, points in batch.metrics.items():
        before = stored.get(key, ())
        seen = set()
        for point in points:
            one = identity(point[0], point[1], point[2])
            each = one, measured_on(point)
            there = one in before and not (but_of_models and model_of(point) is not None)
            if not there and each not in seen:
                seen.add(each)
                metrics.setdefault(key, []).append(point)
    return Batch(metrics, batch.params, batch.tags)


def model_of(point: Point) -> str | None:
    """The id of the logged model that a point is about, if it is about one."""
    on = measured_on(point)
    return None if on is None else on.model_id


def identity(timestamp: int, step: int, value: float) -> tuple[int, int, str]:
    """What makes two points the same to a server: NaN equals NaN, 0.0 equals -0.0, and ±Inf is ± the largest double
    (as MLflow's migration from files to a database sees it)."""
    clamped = max(-_LARGEST, min(_LARGEST, value)) if value == value else value
    return timestamp, step, repr(clamped + 0.0)
