"""Runs as tables: pandas, polars, Arrow. Each library is imported here only, and only when its table is asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrack.entities import Run

__all__ = ["FORMATS", "runs_table"]

logger = logging.getLogger("asynctrack")

#: what `search_runs` gives
FORMATS = ("pandas", "polars", "arrow", "list")
_TIMES = ("start_time", "end_time")


def runs_table(runs: list[Run], output_format: str = "pandas") -> Any:
    """The runs in one of `FORMATS`: but for the list, MLflow's columns, with a row for each run: the info fields, then
    ``metrics.*``, ``params.*`` and ``tags.*``. Raises ImportError where the library is not installed."""
    if output_format == "list":
        from asynctrack.entities import PagedList

        return PagedList(runs)  # which a notebook shows as a table
    from asynctrack.reading.chunks import needed

    if output_format == "pandas":
        pandas = needed("pandas", "a table of runs", "pandas")
        times = {name: _moments(runs, name) for name in _TIMES}
        return pandas.DataFrame(_columns(runs, times, float("nan")))
    times = {name: [getattr(run.info, name) for run in runs] for name in _TIMES}
    columns = _columns(runs, times, None)
    if output_format == "polars":
        pl = needed("polars", "output_format='polars'", "polars")
        moment = pl.Datetime("ms", "UTC")
        return pl.DataFrame(columns, schema={name: _type(name, moment, pl.Float64, pl.String) for name in columns})
    pa = needed("pyarrow", "output_format='arrow'", "pyarrow")
    moment = pa.timestamp("ms", "UTC")
    types = {name: _type(name, moment, pa.float64(), pa.string()) for name in columns}
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})


def _columns(runs: list[Run], times: dict[str, list[Any]], no_metric: float | None) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [getattr(run.info, name) for run in runs]
        for name in ("run_id", "experiment_id", "status", "artifact_uri")
    }
    columns |= times
    for kind, missing in (("metrics", no_metric), ("params", None), ("tags", None)):
        held = [getattr(run.data, kind) for run in runs]
        for key in {key: None for entries in held for key in entries}:
            columns[f"{kind}.{key}"] = [entries.get(key, missing) for entries in held]
    return columns


def _type(name: str, moment: Any, number: Any, text: Any) -> Any:
    return moment if name in _TIMES else number if name.startswith("metrics.") else text


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
