"""MLflow's tables: the columns that are written, and whether a database's fit.

Every column written here exists since MLflow 1.28 (August 2022). MLflow upgrades an older database as soon as it opens
it, also while we write: what was found out is looked at again whenever the schema has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from asynctrack.errors import WrongServerError

__all__ = ["Column", "Schema", "check_schema", "creation"]

#: the columns that are written, by table
_WRITTEN = {
    "experiments": "experiment_id name artifact_location lifecycle_stage creation_time last_update_time",
    "experiment_tags": "key value experiment_id",
    "runs": (
        "run_uuid name source_type source_name entry_point_name user_id status start_time end_time source_version "
        "lifecycle_stage artifact_uri experiment_id deleted_time"
    ),
    "metrics": "key value timestamp run_uuid step is_nan",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
    "params": "key value run_uuid",
    "tags": "key value run_uuid",
}
#: written where it is there
_OF_MODELS = {
    *("model_id", "metric_name", "metric_timestamp_ms", "metric_step", "metric_value"),
    *("experiment_id", "run_id", "dataset_uuid", "dataset_name", "dataset_digest"),
}
#: kept apart from other workspaces' since MLflow 3.10; the default one unless somebody says otherwise
_WORKSPACE = "workspace"


class Column(NamedTuple):
    """A column as its database describes it. ``required``: an INSERT has to give it a value."""

    name: str
    required: bool


class Schema(NamedTuple):
    """What differs from one version of MLflow to another. ``workspaces``: experiments belong to one.
    ``assessments``: there are some, which go with the run that made them. ``models``: metrics may be about logged
    models (MLflow 3). ``datasets``: what runs have used. ``outputs``: the models that they have used and made, too."""

    workspaces: bool
    assessments: bool
    models: bool
    datasets: bool
    outputs: bool


def check_schema(where: str, columns: Callable[[str], Iterable[Column]]) -> Schema:
    """Raise `WrongServerError` unless rows as we write them fit. ``columns`` looks up those of a table, none if there
    is no such table; ``where`` is the database's name for messages."""
    for table, names in _WRITTEN.items():
        found = list(columns(table))
        missing = sorted(set(names.split()) - {column.name for column in found})
        if missing:
            what = f"has no table {table}" if not found else f"lacks {', '.join(missing)} in its table {table}"
            raise WrongServerError(
                f"{where} {what}: it is no MLflow database, or one of before MLflow 1.28. Choose another, or let "
                f"`mlflow db upgrade` upgrade it"
            )
        foreign = [column.name for column in found if column.required and column.name not in names.split()]
        if foreign:
            raise WrongServerError(
                f"{where} wants a value for {', '.join(foreign)} in its table {table}, and this version of asynctrack "
                f"knows of no such column: upgrade asynctrack, or log through `mlflow server`"
            )
    return Schema(
        workspaces=any(column.name == _WORKSPACE for column in columns("experiments")),
        assessments=any(column.name == "assessment_metadata" for column in columns("assessments")),
        models={column.name for column in columns("logged_model_metrics")} >= _OF_MODELS,
        datasets=any(column.name == "dataset_profile" for column in columns("datasets")),
        outputs=any(column.name == "step" for column in columns("inputs")),
    )


def creation() -> list[str]:
    """The statements that make MLflow's tables in an empty SQLite database, as MLflow 3.0 has them.

    Every MLflow from 3.0 on opens them, and upgrades them where it must. Newer ones, older versions do not open.
    """
    from asynctrack.stores.sql.mlflow_3_0 import TABLES  # late: it is needed once in the life of a database

    return [statement.strip() for statement in TABLES.split(";\n") if statement.strip()]
