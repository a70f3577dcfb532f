"""What is changed in MLflow itself, once, when its first store is wrapped. Results stay what they were."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from asynctrack.engine.lifecycle import end_before_others
from asynctrack.mlflow.points import current_time

__all__ = ["adapt_mlflow", "called_by", "ends_a_run", "takes_up_a_run", "wants_no_data"]

#: MLflow's functions that are recognized when they call a store, by what they do
_codes: dict[str, list[CodeType]] = {}


def adapt_mlflow() -> None:
    """Do it; a second call does nothing."""
    if _codes:
        return
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils
    from mlflow.tracking._tracking_service import client

    modules: list[Any] = [fluent, client, utils]

    _codes["end"] = _codes_of(client.TrackingServiceClient.set_terminated)
    _codes["take up"] = _codes_of(fluent.start_run)
    _codes["no data"] = _codes_of(
        fluent.log_metric, fluent.log_metrics, getattr(client.TrackingServiceClient, "_log_url", None)
    )

    # A timestamp that MLflow has chosen is told from one that the program gave.
    for module in modules[:2]:
        if hasattr(module, "get_current_time_millis"):
            module.get_current_time_millis = current_time

    # MLflow looks for a Spark session at each call, and Python does not remember an import that failed: it searches all
    # of sys.path. A program that has not imported pyspark has no session.
    registry = modules[2]
    looking = getattr(registry, "_get_active_spark_session", None)
    if looking is not None:
        registry._get_active_spark_session = lambda: looking() if "pyspark" in sys.modules else None

    _take_prefix_off(registry)

    # Ours is the honest status: MLflow ends the active run as FINISHED, whatever ends the program.
    end_before_others()


def _take_prefix_off(registry: Any) -> None:
    """Also of a model registry's URI: it is the tracking URI as a rule, and given once more by who wants to be sure."""
    from asynctrack_for_mlflow import without_prefix

    asking, resolving = registry._get_registry_uri_from_context, registry._resolve_registry_uri
    registry._get_registry_uri_from_context = lambda: without_prefix(asking())
    registry._resolve_registry_uri = lambda registry_uri=None, tracking_uri=None: resolving(
        without_prefix(registry_uri), tracking_uri
    )


def _codes_of(*functions: Any) -> list[CodeType]:
    return [inspect.unwrap(function).__code__ for function in functions if function is not None]


def called_by(frame: FrameType | None, what: str, depth: int) -> bool:
    """Whether one of the ``depth`` functions from ``frame`` up is one of MLflow's that do ``what``."""
    codes = _codes[what]
    return any(found is code for found in _up(frame, depth) for code in codes)


def _up(frame: FrameType | None, depth: int) -> Iterator[CodeType]:
    while frame is not None and depth:
        yield frame.f_code
        frame, depth = frame.f_back, depth - 1


def ends_a_run(frame: FrameType | None) -> bool:
    """Whether MLflow is about to end a run, which waits for this run's events in a moment."""
    return called_by(frame, "end", 1)


def takes_up_a_run(frame: FrameType | None) -> bool:
    """Whether ``start_run(run_id=…)`` calls: from now on this process is the one that ends the run."""
    return called_by(frame, "take up", 1)


def wants_no_data(frame: FrameType | None) -> bool:
    """Whether who asks for a run needs only what it is, its inputs and its outputs, and none of its metrics, params
    and tags: ``mlflow.log_metric(…, run_id=…)`` does so at each call."""
    return called_by(frame, "no data", 4)
