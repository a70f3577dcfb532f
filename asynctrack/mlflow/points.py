"""What of MLflow's arguments the journal takes as it is, and how points of one millisecond are kept apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from asynctrack.errors import InvalidInputError
from asynctrack.journal.measured import MeasuredOn

__all__ = [
    "CLOCK",
    "LIMIT",
    "MetricPoint",
    "Moments",
    "current_time",
    "entries_of",
    "is_issued",
    "may_be_moved",
    "points_of",
]

LIMIT = 1 << 63
#: ms
_A_MOMENT = 100


_issued = threading.local()
#: of ``time.time``, unless a program, a test mostly, has put its own there: perhaps before this module was imported
CLOCK: Any = type(time.time_ns)


def current_time() -> int:
    """Instead of MLflow's ``get_current_time_millis``."""
    if type(time.time) is not CLOCK:  # what that says is not to be moved
        return int(time.time() * 1000)
    now = _issued.last = time.time_ns() // 1_000_000
    return now


def is_issued(timestamp: int) -> bool:
    """Whether it is what `current_time` has answered last: MLflow has just asked for it, because the program gave none
    (it is that very object: an equal number of the program's is another)."""
    return timestamp is getattr(_issued, "last", None)


def _is_now(timestamp: int) -> bool:
    """Whether a timestamp only says when the call was made: it is issued; or it is the clock's, as libraries give it
    that make MLflow's entities themselves (Lightning)."""
    return is_issued(timestamp) or 0 <= time.time_ns() // 1_000_000 - timestamp < _A_MOMENT


def may_be_moved(timestamp: int, on: MeasuredOn | None) -> bool:
    """Whether a point's timestamp only says when the call was made. Of a point about a logged model that is only what
    MLflow has just issued: when it logs a model it reads points of the run, and logs the same ones about the model."""
    return is_issued(timestamp) or (on is None and _is_now(timestamp))


class Moments:
    """Gives each observation of one run a timestamp of its own.

    A database keeps one point of those with equal key, step, value and timestamp, and of several points with one step
    and timestamp it takes the largest for the latest. With plain MLflow each call takes milliseconds, so the order is
    that of the calls. Here a millisecond has room for many calls: a timestamp that the program did not give is moved
    behind the one before.
    """

    def __init__(self) -> None:
        #: by metric key: the highest step and the latest timestamp so far
        self.last: dict[str, list[int]] = {}
        #: the latest timestamp that was moved
        self.moved_to = 0

    def own(self, key: str, step: int, now: int) -> int:
        """The timestamp of a point that is logged ``now`` (ms)."""
        last = self.last.get(key) or self.last.setdefault(key, [step - 1, -1])
        # A lock would cost as much as the rest, and a signal handler that logs would wait for ever for one that its own
        # thread holds. None is needed: CPython changes threads, and calls handlers, at calls only, and there is none.
        if step > last[0]:  # nothing was logged there yet
            last[0] = step
        elif now <= last[1]:
            now = last[1] + 1
            if now > self.moved_to:
                self.moved_to = now
        if now > last[1]:
            last[1] = now
        return now


class MetricPoint(NamedTuple):
    """One point, ready for the journal."""

    key: str
    value: float
    step: int
    timestamp: int
    #: whether the timestamp may be moved
    movable: bool
    #: the key with the logged model and the dataset, where there is one
    on: MeasuredOn | None = None


def points_of(metrics: Iterable[Any]) -> Iterator[MetricPoint]:
    """Metrics of MLflow's, checked. Raises InvalidInputError for what MLflow may refuse, or the journal cannot hold:
    then MLflow itself has to decide."""
    for metric in metrics:
        value, step, timestamp = metric.value, metric.step, metric.timestamp
        if type(value) is not float:
            if type(value) is not int or not -LIMIT <= value < LIMIT:
                raise InvalidInputError(f"metric {metric.key!r}: the value {value!r}")
            value = float(value)
        if type(step) is not int or not -LIMIT <= step < LIMIT:
            raise InvalidInputError(f"metric {metric.key!r}: the step {step!r}")
        if type(timestamp) is not int or not 0 <= timestamp < LIMIT:
            raise InvalidInputError(f"metric {metric.key!r}: the timestamp {timestamp!r}")
        on = _measured_on(metric)
        yield MetricPoint(metric.key, value, step, timestamp, may_be_moved(timestamp, on), on)


def _measured_on(metric: Any) -> MeasuredOn | None:
    model_id = getattr(metric, "_model_id", None)  # MLflow 2 has none
    name, digest = getattr(metric, "_dataset_name", None), getattr(metric, "_dataset_digest", None)
    if model_id is None and name is None and digest is None:
        return None
    for field, most in ((model_id, 36), (name, 500), (digest, 36)):
        if field is not None and (type(field) is not str or not 0 < len(field) <= most):
            raise InvalidInputError(f"metric {metric.key!r}: {field!r}")
    if (name is None) is not (digest is None):
        raise InvalidInputError(f"metric {metric.key!r}: a dataset has a name and a digest")
    return MeasuredOn(metric.key, model_id, name, digest)


def entries_of(kind: str, entities: Iterable[Any]) -> dict[str, str]:
    """Params or tags of MLflow's by key. Raises InvalidInputError as `points_of`, also for a param that comes twice."""
    found: dict[str, str] = {}
    for entity in entities:
        if type(entity.value) is not str or (kind == "param" and entity.key in found):
            raise InvalidInputError(f"{kind} {entity.key!r}: {entity.value!r}")
        found[entity.key] = entity.value
    return found
