"""What can be asked of a run by name: ``name``, ``lr``, ``loss.min``, ``tags.team``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.cli.amounts import moment
from asynctrack.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.stores.columns import Summary

__all__ = [
    "PARTS", "RUN_FIELDS", "Asked", "Listed", "leading_key", "may_be_beside_metrics", "own_tags", "parse", "rate_of",
    "value_of",
]  # fmt: skip

#: the fields that every run has
RUN_FIELDS = (
    *("id", "name", "status", "alive", "started", "ended", "duration", "updated", "step", "rate", "waiting", "stored"),
    *("experiment", "experiment_id", "user", "deleted", "artifact_uri", "params", "metrics", "tags"),
)
#: what can be asked of a metric behind its key; the first needs no summary
PARTS = ("last", "min", "max", "first", "min_step", "max_step", "last_step", "points")


class Listed(NamedTuple):
    """A run in a list. ``summaries``: of the metrics that were asked for."""

    found: FoundRun
    experiment: str
    now: int
    summaries: Mapping[str, Summary]


class Asked(NamedTuple):
    """A field, as it was written; ``kind`` is "run", "param", "metric" or "tag". ``part``: of a metric."""

    text: str
    kind: str
    key: str
    part: str = "last"

    @property
    def summarized(self) -> bool:
        """Whether it takes a summary to know it."""
        return self.kind == "metric" and self.part != "last"


def parse(text: str, runs: Iterable[FoundRun]) -> Asked:
    """The field that a text names. In this order: a field of every run; ``params.KEY``, ``metrics.KEY[.PART]``,
    ``tags.KEY``; a metric, with or without a part; a param; a tag. Raises InvalidInputError that says what there is.
    """
    if text in RUN_FIELDS:
        return Asked(text, "run", text)
    data = [each.run.data for each in runs]
    metrics = {key for each in data for key in each.metrics}
    kind, _, key = text.partition(".")
    if kind == "params" and key:
        return Asked(text, "param", key)
    if kind == "tags" and key:
        return Asked(text, "tag", key)
    name = key if kind == "metrics" and key else text
    stem, _, part = name.rpartition(".")
    if name in metrics:
        return Asked(text, "metric", name)
    if part in PARTS and (stem in metrics or kind == "metrics"):
        return Asked(text, "metric", stem, part)
    if kind == "metrics" and key:
        return Asked(text, "metric", name)
    if any(text in each.params for each in data):
        return Asked(text, "param", text)
    if any(text in each.tags for each in data):
        return Asked(text, "tag", text)
    if not data:  # nothing is there, and so nothing is wrong either
        return Asked(text, "param", text)
    params = {key for each in data for key in each.params}
    keys = sorted(metrics)[:20] + sorted(params)[:20]
    raise InvalidInputError(
        f"there is no field {text!r}; there are {', '.join([*RUN_FIELDS, *keys])}; of a metric also "
        f"{', '.join(f'KEY.{each}' for each in PARTS)}"
    )


def may_be_beside_metrics(text: str) -> bool:
    """Whether a field's text may be answered by params or tags: of all others a run's outline tells."""
    return text in ("params", "tags") or not (text in RUN_FIELDS or text.startswith("metrics."))


def value_of(asked: Asked, listed: Listed) -> Any:
    """The value of a field; None where the run has none. Times are RFC 3339, durations seconds."""
    data = listed.found.run.data
    if asked.kind == "run":
        return _RUN[asked.key](listed)
    if asked.kind == "param":
        return data.params.get(asked.key)
    if asked.kind == "tag":
        return data.tags.get(asked.key)
    if not asked.summarized:
        return data.metrics.get(asked.key)
    summary = listed.summaries.get(asked.key)
    if summary is None:
        return None
    name, _, of_step = asked.part.partition("_")
    if name == "points":
        return summary.points
    spot = {"last": summary.latest, "first": summary.first, "min": summary.min, "max": summary.max}[name]
    return None if spot is None else spot.step if of_step else spot.value


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that a user has set: without MLflow's own."""
    return {key: value for key, value in sorted(tags.items()) if not key.startswith("mlflow.")}


def rate_of(summary: Summary | None) -> float | None:
    """Steps a second between a metric's first and latest point; None where no time is between them."""
    if summary is None:
        return None
    steps, ms = summary.latest.step - summary.first.step, summary.latest.time - summary.first.time
    return steps * 1000 / ms if steps > 0 and ms > 0 else None


def _step(listed: Listed) -> int | None:
    return max((point.step for point in listed.found.run.data.latest.values()), default=None)


def _duration(listed: Listed) -> float | None:
    info = listed.found.run.info
    ended = info.end_time
    if ended is None:
        ended = listed.now if listed.found.alive else listed.found.last_time
    return None if ended is None or info.start_time is None else max(ended - info.start_time, 0) / 1000


def _rate(listed: Listed) -> float | None:
    latest = listed.found.run.data.latest
    if not listed.found.alive or not latest:
        return None
    return rate_of(listed.summaries.get(leading_key(latest)))


def leading_key(latest: Mapping[str, Any]) -> str:
    """The metric that has come furthest."""
    return max(latest, key=lambda key: (latest[key].step, key))


_RUN: dict[str, Callable[[Listed], Any]] = {
    "id": lambda each: each.found.run.info.run_id,
    "name": lambda each: each.found.run.info.run_name,
    "status": lambda each: each.found.run.info.status,
    "alive": lambda each: each.found.alive,
    "started": lambda each: moment(each.found.run.info.start_time),
    "ended": lambda each: moment(each.found.run.info.end_time),
    "duration": _duration,
    "updated": lambda each: moment(each.found.last_time),
    "step": _step,
    "rate": _rate,
    "waiting": lambda each: each.found.waiting,
    "stored": lambda each: each.found.stored,
    "experiment": lambda each: each.experiment,
    "experiment_id": lambda each: each.found.run.info.experiment_id,
    "user": lambda each: each.found.run.info.user_id,
    "deleted": lambda each: each.found.run.info.lifecycle_stage == "deleted",
    "artifact_uri": lambda each: each.found.run.info.artifact_uri,
    "params": lambda each: dict(sorted(each.found.run.data.params.items())),
    "metrics": lambda each: dict(sorted(each.found.run.data.metrics.items())),
    "tags": lambda each: own_tags(each.found.run.data.tags),
}
