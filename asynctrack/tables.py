"""Runs as a pandas table. pandas is imported here and nowhere else, and only when a table is asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["runs_table"]

logger = logging.getLogger("asynctrack")


def runs_table(runs: list[Run]) -> Any:
    """MLflow's DataFrame: one row per run, with the info fields, then ``metrics.*``, ``params.*`` and ``tags.*``."""
    import pandas

    columns: dict[str, list[Any]] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    for name in ("start_time", "end_time"):
        columns[name] = _moments(runs, name)
    for kind, missing in (("metrics", float("nan")), ("params", None), ("tags", None)):
        held = [getattr(run.data, kind) for run in runs]
        for key in {key: None for entries in held for key in entries}:
            columns[f"{kind}.{key}"] = [entries.get(key, missing) for entries in held]
    return pandas.DataFrame(columns)


def _moments(runs: list[Run], name: str) -> list[Any]:
    """Times as pandas has them. Those beyond its years are left out, and said: the table shows the other runs."""
    import pandas

    found, late = [], []
    for run in runs:
        try:
            found.append(pandas.to_datetime(getattr(run.info, name), unit="ms", utc=True))
        except pandas.errors.OutOfBoundsDatetime:
            found.append(pandas.NaT)
            late.append(run.info.run_id)
    if late:
        logger.warning(
            "asynctrack: the %s of %d runs is later than any time of pandas, and left out of the table (%s); "
            "output_format='list' has it",
            name,
            len(late),
            ", ".join(late[:3]),
        )
    return found
