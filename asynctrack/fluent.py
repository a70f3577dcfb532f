"""MLflow's functions on the active run: ``import asynctrack as mlflow`` runs an ordinary training script.

Names and keywords are MLflow's. Any thread may call these functions. Logging does not wait for the store. Functions
that read (`get_run`, `search_runs`) first wait until the events of this process are delivered, so a script finds what
it has just logged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, SupportsIndex, overload

from asynctrack.arguments import experiment_ids_of, flag_of, given, most_of, not_yet, search_of, several, text_of
from asynctrack.constants import ViewType
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError
from asynctrack.runs.active import attached_run, flush_all, say_that_nothing_ended
from asynctrack.runs.faces import handed_run
from asynctrack.runs.log import RunLog
from asynctrack.runs.operations import RunOperations
from asynctrack.runs.run import active_run, logging_run, start_run
from asynctrack.tables import FORMATS, runs_table
from asynctrack.tracking import get_service
from asynctrack.values import shortened

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Run
    from asynctrack.settings import OnInvalid

__all__ = [
    "delete_run",
    "delete_tag",
    "end_run",
    "flush_async_logging",
    "get_artifact_uri",
    "get_metric_history",
    "get_parent_run",
    "get_run",
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
    "restore_run",
    "search_runs",
    "set_tag",
    "set_tags",
]

logger = logging.getLogger("asynctrack")


def _run(run_id: str | None = None, synchronous: bool | None = None) -> RunLog:
    if synchronous is not None:
        flag_of("synchronous", synchronous)
    if run_id is not None:
        return attached_run(run_id, asks=True)
    return logging_run() or handed_run() or start_run()


def _finish(log: RunLog, synchronous: bool | None) -> RunOperations | None:
    if synchronous is None:
        return None
    if not synchronous:
        return RunOperations(log)
    flush_async_logging()
    return None


def end_run(status: str = "FINISHED") -> None:
    """End the active run and wait for delivery. Does nothing when no run is
    active; a warning names the runs that are open in other threads and tasks.
    Raises what `ActiveRun.terminate` raises."""
    run = active_run()
    if run is None:
        say_that_nothing_ended()
    else:
        run.terminate(status)


def log_metric(
    key: str,
    value: SupportsFloat | str,
    step: SupportsIndex | None = None,
    synchronous: bool | None = None,
    timestamp: int | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> RunOperations | None:
    """Log one point to the active run, or to the run ``run_id``. A run is
    started if none is open.

    ``value``: any number, NaN and ±Inf too, also as text ("0.5"). ``step``: default 0.
    ``timestamp``: ms since the epoch, default now. ``synchronous=True`` waits
    for delivery (see `flush_async_logging`); ``synchronous=False`` returns
    `RunOperations`, to wait for it later. ``model_id`` and ``dataset`` are not
    available yet.

    Raises InvalidInputError for an argument that can never be stored,
    RunEndedError after the run's end, SpoolFullError with
    ``spool_full="raise"``, AmbiguousRunError when this thread has no run and
    several are open in other threads, NoActiveRunError when this task has no
    run and others are open. With ``synchronous=True`` also FlushTimeoutError.
    """
    not_yet(model_id=model_id, dataset=dataset)
    log = _run(run_id, synchronous)
    log.log_metric(key, value, step, timestamp)
    return None if synchronous is None else _finish(log, synchronous)


def log_metrics(
    metrics: Mapping[str, SupportsFloat | str],
    step: SupportsIndex | None = None,
    synchronous: bool | None = None,
    run_id: str | None = None,
    timestamp: int | None = None,
    model_id: str | None = None,
    dataset: Any = None,
    *,
    on_invalid: OnInvalid | None = None,
) -> RunOperations | None:
    """Log several points of one step. All are checked before any is logged,
    unless ``on_invalid`` says to log the others (see `ActiveRun.log_metrics`).
    Raises what `log_metric` raises."""
    not_yet(model_id=model_id, dataset=dataset)
    log = _run(run_id, synchronous)
    log.log_metrics(metrics, step, timestamp, on_invalid=on_invalid)
    return _finish(log, synchronous)


def log_param(key: str, value: Any, synchronous: bool | None = None) -> Any:
    """Log one param to the active run, as ``str(value)``, and return
    ``value``, or `RunOperations` with ``synchronous=False``. Raises what
    `log_metric` raises, and InvalidInputError for a param that has another
    value already."""
    log = _run(None, synchronous)
    log.log_param(key, value)
    return _finish(log, synchronous) or value


def log_params(
    params: Mapping[str, Any],
    synchronous: bool | None = None,
    run_id: str | None = None,
    *,
    flatten: str | None = None,
    max_depth: int | None = None,
) -> RunOperations | None:
    """Log params, each as ``str(value)``. All are checked before any is
    logged. Raises what `log_param` raises.

    ``flatten="."`` makes nested dictionaries params of their own, at most
    ``max_depth`` names deep: ``{"a": {"b": 1}}`` is the param ``a.b``. See
    `ActiveRun.log_params`.
    """
    log = _run(run_id, synchronous)
    log.log_params(params, flatten=flatten, max_depth=max_depth)
    return _finish(log, synchronous)


def set_tag(key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
    """Set one tag of the active run, as ``str(value)``. Raises what
    `log_metric` raises."""
    log = _run(None, synchronous)
    log.set_tag(key, value)
    return _finish(log, synchronous)


def set_tags(tags: Mapping[str, Any], synchronous: bool | None = None) -> RunOperations | None:
    """Set tags of the active run. All are checked before any is set. Raises
    what `log_metric` raises."""
    log = _run(None, synchronous)
    log.set_tags(tags)
    return _finish(log, synchronous)


def log_artifact(
    local_path: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Log a file to the active run, or to the run ``run_id``.

    The file is copied into the spool, then uploaded in the background. After
    the call it may be overwritten or deleted. `ActiveRun.log_artifact` returns
    a receipt that tells when the upload is done.

    Raises what `log_metric` raises, and SpoolError when the file cannot be
    copied.
    """
    _run(run_id).log_artifact(local_path, artifact_path)


def log_artifacts(
    local_dir: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Log everything in a folder, sub-folders included. Raises what
    `log_artifact` raises."""
    _run(run_id).log_artifacts(local_dir, artifact_path)


def log_text(text: str, artifact_file: str, run_id: str | None = None) -> None:
    """Log text as an artifact, in UTF-8. Raises what `log_artifact` raises."""
    _run(run_id).log_text(text, artifact_file)


def log_dict(dictionary: Mapping[str, Any] | list[Any], artifact_file: str, run_id: str | None = None) -> None:
    """Log a dictionary as an artifact in YAML (.yml, .yaml) or JSON (any other
    ending). Raises what `log_artifact` raises."""
    _run(run_id).log_dict(dictionary, artifact_file)


def log_figure(figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
    """Log a matplotlib or plotly figure to the active run. Raises what
    `log_artifact` raises."""
    _run().log_figure(figure, artifact_file, save_kwargs=save_kwargs)


def log_image(
    image: Any,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = False,
) -> None:
    """Log an image to the active run: as ``artifact_file``, or under ``key``
    as the image of one ``step``.

    ``timestamp``: ms since the epoch, default now. ``synchronous=True`` waits
    for the upload. Raises what `log_artifact` raises; with
    ``synchronous=True`` also DeliveryError when the store refuses the image.
    """
    receipt = _run(None, synchronous).log_image(image, artifact_file, key, step, timestamp)
    if synchronous:
        receipt.wait()


def delete_tag(key: str) -> None:
    """Remove a tag of the active run, after waiting until everything logged
    before is delivered. Raises NotFoundError for a tag that does not exist,
    and what `get_run` raises."""
    run = logging_run()
    if run is None:
        raise NotFoundError(f"no run is active, so there is no tag {shortened(key)} to delete")
    get_service(run.tracking_uri).delete_tag(run.run_id, key)


def flush_async_logging() -> None:
    """Wait until everything logged in this process is delivered. Raises
    FlushTimeoutError after ``close_timeout`` seconds."""
    flush_all()


def get_run(run_id: str) -> Run:
    """A run as the store holds it, with what this process logged to it before.
    Raises NotFoundError or another StoreError, and FlushTimeoutError when the
    events of this process are not delivered in time."""
    return get_service().get_run(run_id)


def get_parent_run(run_id: str) -> Run | None:
    """The parent of a nested run, or None for a run that is not nested. Raises
    what `get_run` raises."""
    parent = get_run(run_id).data.tags.get("mlflow.parentRunId")
    return None if parent is None else get_run(parent)


def get_metric_history(run_id: str, key: str, branches: Literal["all", "latest"] = "all") -> list[Metric]:
    """Every point of a metric, in the order of the store. ``branches="latest"``
    leaves out what was replaced by ``start_run(from_step=…)`` and a server
    still has. Raises what `get_run` raises."""
    return get_service().get_metric_history(run_id, key, branches)


def delete_run(run_id: str) -> None:
    """Mark a run deleted. Raises what `get_run` raises."""
    get_service().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Mark a deleted run active. Raises NotFoundError or another StoreError."""
    get_service().restore_run(run_id)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """The URI of the active run's artifact folder, or of the artifact
    ``artifact_path`` in it. Waits until the run is created. Raises
    UnavailableError when the store does not create it, and what `log_metric`
    raises."""
    from asynctrack.artifacts.paths import artifact_folder, path_text
    from asynctrack.stores.file.layout import append_to_uri

    path = artifact_folder(None if artifact_path is None else path_text(artifact_path).lstrip("/"))
    run = logging_run() or start_run()
    base = run.info.artifact_uri
    if base is None:
        raise AsynctrackError(f"run {run.run_id} has no artifact location")
    return append_to_uri(base, path) if path else base


@overload
def search_runs(
    experiment_ids: Sequence[str] | None = ...,
    filter_string: str = ...,
    run_view_type: int = ...,
    max_results: int | None = ...,
    order_by: Sequence[str] | None = ...,
    *,
    output_format: Literal["list"],
    search_all_experiments: bool = ...,
    experiment_names: Sequence[str] | None = ...,
) -> list[Run]: ...


@overload
def search_runs(
    experiment_ids: Sequence[str] | None = ...,
    filter_string: str = ...,
    run_view_type: int = ...,
    max_results: int | None = ...,
    order_by: Sequence[str] | None = ...,
    output_format: str = ...,
    search_all_experiments: bool = ...,
    experiment_names: Sequence[str] | None = ...,
) -> Any: ...


def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = 100_000,
    order_by: Sequence[str] | None = None,
    output_format: str = "pandas",
    search_all_experiments: bool = False,
    experiment_names: Sequence[str] | None = None,
) -> Any:
    """Runs that match a filter in MLflow's syntax: a pandas DataFrame with
    MLflow's columns. ``output_format``: "pandas", "polars", "arrow" (a pyarrow
    Table), or "list" (of `Run`).

    Without ``experiment_ids`` and ``experiment_names``, the experiment of new
    runs is searched, or with ``search_all_experiments`` all active ones. A
    ``max_results`` that is not positive finds none, as in MLflow. Raises
    InvalidInputError for a bad filter, ImportError when pandas (polars,
    pyarrow) is needed and not installed, a StoreError, FlushTimeoutError when the events of this
    process are not delivered in time.
    """
    if not (isinstance(output_format, str) and output_format in FORMATS):
        raise InvalidInputError(f"output_format={shortened(output_format)}: it must be one of {', '.join(FORMATS)}")
    most = most_of(max_results)
    search_of(run_view_type, 1, filter_string, order_by)  # before anything is asked of the store
    service = get_service()
    ids = _experiments_to_search(experiment_ids, experiment_names, search_all_experiments)
    runs: list[Run] = []
    token: str | None = None
    while ids and (most is None or len(runs) < most):
        wanted = 1000 if most is None else min(1000, most - len(runs))
        page = service.search_runs(ids, filter_string, run_view_type, wanted, order_by, token)
        runs += page
        token = page.token
        if token is None:
            break
    return runs_table(runs, output_format)


def _experiments_to_search(ids: Sequence[str] | None, names: Sequence[str] | None, everything: bool) -> list[str]:
    from asynctrack.experiments import choose_experiment, get_experiment_by_name, search_experiments

    by_id = several("experiment_ids", () if given(ids) is None else ids)
    by_name = several("experiment_names", () if given(names) is None else names)
    if by_id and by_name:
        raise InvalidInputError("give experiment_ids or experiment_names, not both")
    if by_id:
        return experiment_ids_of(by_id)
    if by_name:
        wanted = [text_of("experiment_names", name) for name in by_name if name is not None]
        found = {name: get_experiment_by_name(name) for name in wanted}
        for missing in (called for called, experiment in found.items() if experiment is None):
            logger.warning("asynctrack: search_runs: there is no experiment named %s", shortened(missing))
        return [experiment.experiment_id for experiment in found.values() if experiment is not None]
    if flag_of("search_all_experiments", everything):
        return [experiment.experiment_id for experiment in search_experiments(ViewType.ACTIVE_ONLY)]
    chosen, name = choose_experiment(None, None)
    if name is not None:
        experiment = get_experiment_by_name(name)
        return [experiment.experiment_id] if experiment is not None else []
    return [chosen or "0"]
