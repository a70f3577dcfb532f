"""Storing a batch: all of one run's events, in one transaction.

*Once.* A batch that is sent again changes nothing: metrics have all of their columns as their key, of
`latest_metrics` the largest stays, params are compared, tags are set to the same value. The rows are locked in one
order, runs by id and then keys by name, so that two writers of the same runs never wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from asynctrack.errors import InvalidInputError, RefusedError
from asynctrack.stores.base import Batch, Refusal
from asynctrack.stores.keys import check_key, shorten
from asynctrack.stores.sql.models import write_model_points
from asynctrack.stores.sql.rows import MAX_PARAM_LENGTH, MAX_TAG_LENGTH, flat_points, latest_of, storable, without_nan
from asynctrack.stores.sql.runs import check_active, set_tags
from asynctrack.stores.sql.session import Session

__all__ = ["write_batch"]

logger = logging.getLogger("asynctrack")

_INSERT_PARAM = "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
#: what was cut, as (run, kind, key): each is said once
_cut: set[tuple[str, str, str]] = set()
_MOST_SAID = 1024


def write_batch(session: Session, run_id: str, batch: Batch) -> list[Refusal]:
    """Store what can be stored; the rest comes back refused. Raises `NotFoundError` where there is no such run."""
    try:
        check_active(session, run_id)
    except RefusedError as error:
        return [Refusal(kind, key, value, str(error)) for kind, key, value in batch.items()]
    refusals: list[Refusal] = []
    _write_params(session, run_id, batch, refusals)
    _write_metrics(session, run_id, batch, refusals)
    tags = _with_good_keys("tag", batch.tags, refusals)
    set_tags(session, run_id, [(key, _cut_to(MAX_TAG_LENGTH, run_id, "tag", key, value)) for key, value in tags])
    return refusals


def _write_params(session: Session, run_id: str, batch: Batch, refusals: list[Refusal]) -> None:
    given = _with_good_keys("param", batch.params, refusals)
    if not given:
        return
    texts = [storable(_cut_to(MAX_PARAM_LENGTH, run_id, "param", key, value)) for key, value in given]
    first: dict[str, str] = {}
    for (key, _), text in zip(given, texts, strict=True):
        first.setdefault(key, text)
    session.many(_INSERT_PARAM, [(key, text, run_id) for key, text in sorted(first.items())])
    stored: dict[str, str] = dict(session.rows("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)))
    for (key, value), text in zip(given, texts, strict=True):
        if stored[key] != session.kept(text):
            reason = f"param {shorten(key)} already logged with {shorten(stored[key])}, and params never change"
            refusals.append(Refusal("param", key, value, f"{reason}; log it under another key"))


def _write_metrics(session: Session, run_id: str, batch: Batch, refusals: list[Refusal]) -> None:
    found, refused = flat_points(batch)
    refusals.extend(Refusal("metric", key, point, f"metric {shorten(key)}: {reason}") for key, point, reason in refused)
    latest = []
    for key, points in sorted(found.items()):
        if not points:
            continue
        fault = _fault("metric", key)
        if fault is not None:
            # Only what is refused is decoded into points of its own.
            refusals.extend(Refusal("metric", key, point, fault) for point in batch.metrics[key])
            continue
        for nan, part in enumerate(without_nan(points)):
            if part:
                session.add_points(run_id, key, part, nan=bool(nan))
        latest.append((key, latest_of(points)))
    session.set_latest(run_id, latest)
    refusals += write_model_points(session, run_id, batch, refusals)


def _with_good_keys(kind: str, pairs: Iterable[tuple[str, str]], refusals: list[Refusal]) -> list[tuple[str, str]]:
    good = []
    for key, value in pairs:
        fault = _fault(kind, key)
        if fault is None:
            good.append((key, value))
        else:
            refusals.append(Refusal(kind, key, value, fault))
    return good


def _fault(kind: str, key: str) -> str | None:
    """Why a key cannot be stored; None if it can."""
    try:
        check_key(kind, key)
    except InvalidInputError as error:
        return str(error)
    return None


def _cut_to(limit: int, run_id: str, kind: str, key: str, value: str) -> str:
    if len(value) <= limit:
        return value
    if (run_id, kind, key) not in _cut and len(_cut) < _MOST_SAID:
        _cut.add((run_id, kind, key))
        logger.warning(
            "run %s: %s %s has %d characters and was cut to %d, as MLflow does",
            run_id, kind, shorten(key), len(value), limit,
        )  # fmt: skip
    return value[:limit]
