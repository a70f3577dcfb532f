"""Runs as a pandas table. pandas is imported here and nowhere else, and only when a table is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["runs_table"]


def runs_table(runs: list[Run]) -> Any:
    """MLflow's DataFrame: one row per run, with the info fields, then ``metrics.*``, ``params.*`` and ``tags.*``."""
    import pandas

    columns: dict[str, list[Any]] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    for name in ("start_time", "end_time"):
        columns[name] = [pandas.to_datetime(getattr(run.info, name), unit="ms", utc=True) for run in runs]
    for kind, missing in (("metrics", float("nan")), ("params", None), ("tags", None)):
        held = [getattr(run.data, kind) for run in runs]
        for key in {key: None for entries in held for key in entries}:
            columns[f"{kind}.{key}"] = [entries.get(key, missing) for entries in held]
    return pandas.DataFrame(columns)
