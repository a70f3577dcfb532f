"""The verbs that log, which never wait, and `flush`, which waits until the logged events are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.arguments import once, points_of, run_id_of
from asynctrack.runs.waiting import raise_refused
from asynctrack.values import to_text

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Param, RunTag
    from asynctrack.service.session import Session


def log_metric(
    session: Session,
    run_id: str | int,
    key: str,
    value: SupportsFloat | str,
    timestamp: int | None = None,
    step: SupportsIndex | None = None,
) -> None:
    """Log one point. Does not wait: the point is in the journal when this
    returns, and is delivered in the background.

    ``timestamp``: **milliseconds** since the epoch, default now (MLflow before
    1.0 took seconds). ``step``: default 0. Raises InvalidInputError for an
    argument that can never be stored, SpoolFullError when the spool is full
    (with ``spool_full="raise"``).

    The first call for a run that this service has not created asks, in a
    thread, whether the store has it: for at most ``connect_timeout`` seconds;
    raises NotFoundError, and RefusedError for a deleted run. On an event loop
    nothing is asked: `flush` and `set_terminated` raise then, and a log line
    says so.
    """
    session.log(run_id).log_metric(key, value, step, timestamp)


def log_param(session: Session, run_id: str | int, key: str, value: Any) -> None:
    """Log one param, as ``str(value)``. A param never changes. Does not wait.
    Raises what `log_metric` raises."""
    session.log(run_id).log_param(key, to_text("param", key, value))


def set_tag(session: Session, run_id: str | int, key: str, value: Any) -> None:
    """Set one tag, as ``str(value)``. A later value overwrites it. Does not
    wait. Raises what `log_metric` raises."""
    session.log(run_id).set_tag(key, value)


def log_batch(
    session: Session,
    run_id: str | int,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Sequence[RunTag] = (),
) -> None:
    """Log any number of `Metric`, `Param` and `RunTag`. Does not wait. Raises
    InvalidInputError if one is bad, and nothing is logged then; otherwise what
    `log_metric` raises."""
    texts, labels = once("param", params), once("tag", tags, last_wins=True)
    points = points_of(metrics)
    if not (texts or labels or points):
        run_id_of(run_id)
        return  # as in MLflow, the run is not even asked for
    log = session.log(run_id)
    for kind, keys in (("metric", {key for key, *_ in points}), ("param", texts), ("tag", labels)):
        for key in keys:
            log.check_key(kind, key)
    # The params first: only they can still raise (for a second, different value), and nothing must be logged then.
    log.log_params(texts)
    for key, value, step, timestamp in points:
        log.log_metric(key, value, step, timestamp)
    log.set_tags(labels)


async def flush(session: Session, run_id: str | int | None = None) -> None:
    """Wait until the events that this process logged to the run, or to all
    runs of this store, are in the store. Raises FlushTimeoutError after
    ``close_timeout`` seconds, DeliveryError for events that the store refused.
    """
    states = session.states(None if run_id is None else run_id_of(run_id))
    await session.deliver(states)
    for state in states:
        raise_refused(state)
