"""asynctrack: an asynchronous batching logger for experiment tracking. A log call survives ``kill -9``."""

from typing import TYPE_CHECKING, Any

from asynctrack.constants import VERSION as __version__
from asynctrack.constants import RunStatus, SourceType, ViewType
from asynctrack.engine.lifecycle import shutdown
from asynctrack.errors import (
    AlreadyExistsError,
    AmbiguousRunError,
    AsynctrackError,
    AuthenticationError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    InvalidTypeError,
    MissingFileError,
    MlflowException,
    NoActiveRunError,
    NotFoundError,
    RefusedError,
    RunEndedError,
    SpoolError,
    SpoolFullError,
    StoreError,
    UnavailableError,
)
from asynctrack.runs import mistaken as _mistaken  # noqa: F401  # what it says is for programs that use nothing here
from asynctrack.settings import Settings, configure

if TYPE_CHECKING:
    from asynctrack import entities as entities
    from asynctrack import exceptions as exceptions
    from asynctrack.aggregates import OverRanks, over_ranks
    from asynctrack.entities import Experiment, FileInfo, Metric, Param, Run, RunData, RunInfo, RunTag
    from asynctrack.experiments import (
        create_experiment,
        delete_experiment,
        delete_experiment_tag,
        get_experiment,
        get_experiment_by_name,
        search_experiments,
        set_experiment,
        set_experiment_tag,
        set_experiment_tags,
    )
    from asynctrack.fluent import (
        delete_run,
        delete_tag,
        end_run,
        flush_async_logging,
        get_artifact_uri,
        get_metric_history,
        get_parent_run,
        get_run,
        log_artifact,
        log_artifacts,
        log_dict,
        log_figure,
        log_image,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        log_text,
        restore_run,
        search_runs,
        set_tag,
        set_tags,
    )
    from asynctrack.histories import history
    from asynctrack.importing.runs import Import, import_runs
    from asynctrack.integrations.aggregator import Aggregator
    from asynctrack.reading.table import History
    from asynctrack.recovery.shipment import Shipment
    from asynctrack.recovery.sync import sync
    from asynctrack.runs.faces import AsyncAttachedRun, AttachedRun, attach
    from asynctrack.runs.run import ActiveRun, AsyncActiveRun, active_run, last_active_run, start_run
    from asynctrack.runs.viewer import Viewer, view
    from asynctrack.stores.keys import clean_key
    from asynctrack.tracking import (
        AsyncMLflowService,
        MlflowClient,
        MLflowService,
        get_async_service,
        get_service,
        get_tracking_uri,
        is_tracking_uri_set,
        set_tracking_uri,
    )
    from asynctrack.ui.widget import live

__all__ = [
    "ActiveRun",
    "Aggregator",
    "AlreadyExistsError",
    "AmbiguousRunError",
    "AsyncActiveRun",
    "AsyncAttachedRun",
    "AsyncMLflowService",
    "AsynctrackError",
    "AttachedRun",
    "AuthenticationError",
    "DeliveryError",
    "Experiment",
    "FileInfo",
    "FlushTimeoutError",
    "History",
    "Import",
    "InvalidInputError",
    "InvalidTypeError",
    "MLflowService",
    "Metric",
    "MissingFileError",
    "MlflowClient",
    "MlflowException",
    "NoActiveRunError",
    "NotFoundError",
    "OverRanks",
    "Param",
    "RefusedError",
    "Run",
    "RunData",
    "RunEndedError",
    "RunInfo",
    "RunStatus",
    "RunTag",
    "Settings",
    "Shipment",
    "SourceType",
    "SpoolError",
    "SpoolFullError",
    "StoreError",
    "UnavailableError",
    "ViewType",
    "Viewer",
    "__version__",
    "active_run",
    "attach",
    "clean_key",
    "configure",
    "create_experiment",
    "delete_experiment",
    "delete_experiment_tag",
    "delete_run",
    "delete_tag",
    "end_run",
    "flush_async_logging",
    "get_artifact_uri",
    "get_async_service",
    "get_experiment",
    "get_experiment_by_name",
    "get_metric_history",
    "get_parent_run",
    "get_run",
    "get_service",
    "get_tracking_uri",
    "history",
    "import_runs",
    "is_tracking_uri_set",
    "last_active_run",
    "live",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_image",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_text",
    "over_ranks",
    "restore_run",
    "search_experiments",
    "search_runs",
    "set_experiment",
    "set_experiment_tag",
    "set_experiment_tags",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "shutdown",
    "start_run",
    "sync",
    "view",
]


#: where the other names are that are loaded late: what a program that logs needs, and a verb of the command does not
_LOGGING = ("experiments", "fluent", "runs.faces", "runs.run", "stores.keys", "tracking")


def __getattr__(name: str) -> Any:
    """Load names on first use: those of programs that log together, and each of the others by itself."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"asynctrack.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    found: dict[str, Any] = {}
    for part in _LOGGING:
        there = vars(import_module(f"asynctrack.{part}"))
        found |= {each: there[each] for each in there["__all__"] if each in __all__ and each in there}
    globals().update(found)  # all at once: another thread may ask meanwhile
    return found[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


#: parts of the package that are there without an import of their own
_MODULES = ("artifacts", "entities", "exceptions", "experiments", "fluent", "runs", "tracking")

_ENTITIES = ("Experiment", "FileInfo", "Metric", "Param", "Run", "RunData", "RunInfo", "RunTag")
_HOMES = {
    **dict.fromkeys(_ENTITIES, "asynctrack.entities"),
    "Aggregator": "asynctrack.integrations.aggregator",
    "History": "asynctrack.reading.table",
    "Import": "asynctrack.importing.runs",
    "OverRanks": "asynctrack.aggregates",
    "over_ranks": "asynctrack.aggregates",
    "history": "asynctrack.histories",
    "import_runs": "asynctrack.importing.runs",
    "live": "asynctrack.ui.widget",
    "AsyncMLflowService": "asynctrack.tracking",
    "MLflowService": "asynctrack.tracking",
    "MlflowClient": "asynctrack.tracking",
    "Shipment": "asynctrack.recovery.shipment",
    "sync": "asynctrack.recovery.sync",
    "Viewer": "asynctrack.runs.viewer",
    "view": "asynctrack.runs.viewer",
}
