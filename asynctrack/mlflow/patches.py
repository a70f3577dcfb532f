"""What is changed in MLflow itself, once, when its first store is wrapped. Results stay what they were."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType
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
    _only_with("pyspark", registry, "_get_active_spark_session")
    _search_for_no_notebook()

    _take_prefix_off(registry)

    # Ours is the honest status: MLflow ends the active run as FINISHED, whatever ends the program.
    end_before_others()


def _only_with(library: str, module: Any, name: str, otherwise: Callable[[], Any] = lambda: None) -> None:
    """Have one of MLflow's functions ask a library only where the program has imported it; ``otherwise`` says what its
    answer would be."""
    asking = getattr(module, name, None)
    if asking is not None:
        setattr(module, name, lambda *args: asking(*args) if library in sys.modules else otherwise())


def _search_for_no_notebook() -> None:
    """At the start and the end of a run MLflow asks a dozen times whether this is a notebook, a job or a cluster of
    Databricks', which takes longer than everything else that it does there: the same as above."""
    from mlflow.utils import databricks_utils

    databricks: Any = databricks_utils

    def no_utilities() -> Any:
        raise databricks._NoDbutilsError

    _only_with("IPython", databricks, "_get_dbutils", no_utilities)
    _only_with("pyspark", databricks, "_get_property_from_spark_context")
    _only_with("pyspark", databricks, "_get_active_spark_session")
    if importlib.util.find_spec("dbruntime") is not None:
        return  # it is one, perhaps: ``dbruntime`` is what runs the notebook
    asking: dict[Any, Any] = {}
    databricks._asynctrack_modules, databricks._asynctrack_asking = sys.modules, asking
    for function in list(vars(databricks).values()):
        code = getattr(function, "__code__", None)
        if code is None or code.co_freevars != _outside.__code__.co_freevars or _CONTEXT not in code.co_names:
            continue
        asked, ignore_none, name = (cell.cell_contents for cell in function.__closure__)
        own = FunctionType(code, databricks.__dict__, function.__name__, None, function.__closure__)
        asking[asked, ignore_none, name] = own
        # Of the function that is there already: other modules have imported it by name.
        function.__code__ = _outside.__code__


def _make_outside(f: Any, ignore_none: Any, name: Any) -> Any:
    def outside(*args: Any, **kwargs: Any) -> Any:
        asked = _asynctrack_asking[f, ignore_none, name] if "dbruntime" in _asynctrack_modules else f
        return asked(*args, **kwargs)

    return outside


#: the code that MLflow's functions get that ask the notebook first; it runs in `mlflow.utils.databricks_utils`
_outside = _make_outside(None, None, None)
_asynctrack_modules: Any = None
_asynctrack_asking: Any = None
_CONTEXT = "dbruntime.databricks_repl_context"


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
