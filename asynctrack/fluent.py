"""MLflow's functions on the active run: ``import asynctrack as mlflow`` runs an ordinary training script.

Names and keywords are MLflow's. Logging never waits; what reads (`get_run`, `search_runs`) first waits until this
process's own events are delivered, so that a script finds what it has just logged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, SupportsIndex, overload

from asynctrack.constants import ViewType
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError
from asynctrack.run import active_run, attached_run, flush_all, logging_run, start_run
from asynctrack.runlog import RunLog
from asynctrack.tracking import get_service

if TYPE_CHECKING:
    from asynctrack.entities import Metric, Run

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


def _run(run_id: str | None = None) -> RunLog:
    if run_id is not None:
        return attached_run(run_id)
    return logging_run() or start_run()


def _not_yet(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise InvalidInputError(f"{name}= is not available in this version of asynctrack; leave it out")


def _finish(synchronous: bool | None) -> None:
    if synchronous:
        flush_async_logging()


def end_run(status: str = "FINISHED") -> None:
    """End the active run and wait for delivery (see `ActiveRun.terminate`); does nothing without one."""
    run = active_run()
    if run is not None:
        run.terminate(status)


def log_metric(
    key: str,
    value: SupportsFloat,
    step: SupportsIndex | None = None,
    synchronous: bool | None = None,
    timestamp: int | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> None:
    """Log one point to the active run, or to ``run_id``. ``synchronous=True`` also waits for its delivery."""
    _not_yet(model_id=model_id, dataset=dataset)
    _run(run_id).log_metric(key, value, step, timestamp)
    _finish(synchronous)


def log_metrics(
    metrics: Mapping[str, SupportsFloat],
    step: SupportsIndex | None = None,
    synchronous: bool | None = None,
    run_id: str | None = None,
    timestamp: int | None = None,
    model_id: str | None = None,
    dataset: Any = None,
) -> None:
    """Log several points of one step to the active run, or to ``run_id``."""
    _not_yet(model_id=model_id, dataset=dataset)
    _run(run_id).log_metrics(metrics, step, timestamp)
    _finish(synchronous)


def log_param(key: str, value: Any, synchronous: bool | None = None) -> Any:
    """Log one param to the active run and return its value."""
    _run().log_param(key, value)
    _finish(synchronous)
    return value


def log_params(params: Mapping[str, Any], synchronous: bool | None = None, run_id: str | None = None) -> None:
    """Log params, nested dictionaries flattened with dots, to the active run, or to ``run_id``."""
    _run(run_id).log_params(params)
    _finish(synchronous)


def set_tag(key: str, value: Any, synchronous: bool | None = None) -> None:
    """Set one tag of the active run."""
    _run().set_tag(key, value)
    _finish(synchronous)


def set_tags(tags: Mapping[str, Any], synchronous: bool | None = None) -> None:
    """Set tags of the active run."""
    _run().set_tags(tags)
    _finish(synchronous)


def log_artifact(
    local_path: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Log a file to the active run, or to ``run_id``; it may be overwritten or deleted at once.

    Here as in `log_artifacts`, `log_text`, `log_dict`, `log_figure` and `log_image`: the upload goes on in the
    background; `ActiveRun`'s methods of these names return a receipt to wait for.
    """
    _run(run_id).log_artifact(local_path, artifact_path)


def log_artifacts(
    local_dir: str | os.PathLike[str], artifact_path: str | None = None, run_id: str | None = None
) -> None:
    """Log everything in a folder to the active run, or to ``run_id``."""
    _run(run_id).log_artifacts(local_dir, artifact_path)


def log_text(text: str, artifact_file: str, run_id: str | None = None) -> None:
    """Log text as a file of the active run, or of ``run_id``."""
    _run(run_id).log_text(text, artifact_file)


def log_dict(dictionary: Mapping[str, Any] | list[Any], artifact_file: str, run_id: str | None = None) -> None:
    """Log a dictionary as a YAML or JSON file of the active run, or of ``run_id``."""
    _run(run_id).log_dict(dictionary, artifact_file)


def log_figure(figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
    """Log a matplotlib or plotly figure to the active run."""
    _run().log_figure(figure, artifact_file, save_kwargs=save_kwargs)


def log_image(
    image: Any,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = False,
) -> None:
    """Log an image to the active run, as a file or under a key, step by step."""
    receipt = _run().log_image(image, artifact_file, key, step, timestamp)
    if synchronous:
        receipt.wait()


def delete_tag(key: str) -> None:
    """Remove a tag of the active run; waits for what was logged before. Raises NotFoundError."""
    run = logging_run()
    if run is None:
        raise NotFoundError(f"no run is active, so there is no tag {key!r} to delete")
    get_service(run.tracking_uri).delete_tag(run.run_id, key)


def flush_async_logging() -> None:
    """Wait until everything logged in this process is delivered. Raises FlushTimeoutError after ``close_timeout``."""
    flush_all()


def get_run(run_id: str) -> Run:
    """A run as the store holds it, this process's own events included. Raises NotFoundError."""
    return get_service().get_run(run_id)


def get_parent_run(run_id: str) -> Run | None:
    """The run that a nested run was started in; None for a run that is not nested."""
    parent = get_run(run_id).data.tags.get("mlflow.parentRunId")
    return None if parent is None else get_run(parent)


def get_metric_history(run_id: str, key: str) -> list[Metric]:
    """Every point of a metric, in the order the store keeps them."""
    return get_service().get_metric_history(run_id, key)


def delete_run(run_id: str) -> None:
    """Mark a run deleted. Raises NotFoundError."""
    get_service().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Mark a deleted run active. Raises NotFoundError."""
    get_service().restore_run(run_id)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Where the active run's artifacts go, or one of them."""
    run = logging_run() or start_run()
    base = run.info.artifact_uri
    if base is None:
        raise AsynctrackError(f"run {run.run_id} has no artifact location")
    return base if artifact_path is None else f"{base.rstrip('/')}/{artifact_path}"


@overload
def search_runs(
    experiment_ids: Sequence[str] | None = ...,
    filter_string: str = ...,
    run_view_type: int = ...,
    max_results: int = ...,
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
    max_results: int = ...,
    order_by: Sequence[str] | None = ...,
    output_format: str = ...,
    search_all_experiments: bool = ...,
    experiment_names: Sequence[str] | None = ...,
) -> Any: ...


def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = 100_000,
    order_by: Sequence[str] | None = None,
    output_format: str = "pandas",
    search_all_experiments: bool = False,
    experiment_names: Sequence[str] | None = None,
) -> Any:
    """Runs that match MLflow's filter: a pandas DataFrame with MLflow's columns, or ``output_format="list"`` of `Run`.

    Without experiments: those of the experiment that runs started now belong to. Raises InvalidInputError for a bad
    filter, and ImportError for "pandas" where pandas is not installed.
    """
    if output_format not in ("pandas", "list"):
        raise InvalidInputError(f"output_format={output_format!r}: it must be 'pandas' or 'list'")
    service = get_service()
    ids = _experiments_to_search(experiment_ids, experiment_names, search_all_experiments)
    runs: list[Run] = []
    token: str | None = None
    while ids:
        wanted = min(1000, max_results - len(runs))
        page = service.search_runs(ids, filter_string, run_view_type, wanted, order_by, token)
        runs += page
        token = page.token
        if token is None or len(runs) >= max_results:
            break
    return runs if output_format == "list" else _to_pandas(runs)


def _experiments_to_search(ids: Sequence[str] | None, names: Sequence[str] | None, everything: bool) -> list[str]:
    from asynctrack.experiments import choose_experiment, get_experiment_by_name, search_experiments

    if ids and names:
        raise InvalidInputError("give experiment_ids or experiment_names, not both")
    if ids:
        return [str(experiment_id) for experiment_id in ids]
    if names:
        found = [get_experiment_by_name(name) for name in names]
        return [experiment.experiment_id for experiment in found if experiment is not None]
    if everything:
        return [experiment.experiment_id for experiment in search_experiments(ViewType.ALL)]
    chosen, name = choose_experiment(None, None)
    if name is not None:
        experiment = get_experiment_by_name(name)
        return [experiment.experiment_id] if experiment is not None else []
    return [chosen or "0"]


def _to_pandas(runs: list[Run]) -> Any:
    """MLflow's DataFrame: a row a run, columns info fields, ``metrics.*``, ``params.*`` and ``tags.*``."""
    import pandas

    rows = []
    for run in runs:
        info = run.info
        row: dict[str, Any] = {
            "run_id": info.run_id,
            "experiment_id": info.experiment_id,
            "status": info.status,
            "artifact_uri": info.artifact_uri,
            "start_time": pandas.to_datetime(info.start_time, unit="ms", utc=True),
            "end_time": pandas.to_datetime(info.end_time, unit="ms", utc=True),
        }
        for kind in ("metrics", "params", "tags"):
            row |= {f"{kind}.{key}": value for key, value in getattr(run.data, kind).items()}
        rows.append(row)
    columns = ["run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time"]
    return pandas.DataFrame(rows, columns=None if rows else columns)
