"""Never run: mypy --strict reads it as a user's script, and each public name must have the type a user expects."""

from __future__ import annotations

from typing import assert_type

import asynctrack
from asynctrack import ActiveRun, AsyncActiveRun, Experiment, Metric, Run, RunInfo


def training() -> None:
    with asynctrack.start_run(run_name="r", tags={"a": 1}, nested=True, strict=True) as run:
        assert_type(run, ActiveRun)
        assert_type(run.run_id, str)
        assert_type(run.info, RunInfo)
        assert_type(run.log_metric("loss", 0.5, step=1, timestamp=2), None)
        assert_type(run.log_metrics({"loss": 0.5, "n": 3}), None)
        assert_type(run.log_params({"a": {"b": 1}}), None)
        assert_type(run.set_tags({"a": None}), None)
        assert_type(run.flush(timeout=1.0), None)
        assert_type(run.stats().accepted, int)
        assert_type(run.stats().last_error, str | None)
        run.terminate("KILLED", end_time=1)


async def service() -> None:
    async with asynctrack.start_run(experiment_id=3) as run:
        assert_type(run, AsyncActiveRun)
        assert_type(run.log_metric("latency", 1), None)
        assert_type(await run.info(), RunInfo)
        await run.flush()
        await run.terminate()


def fluent() -> None:
    assert_type(asynctrack.set_experiment("vision"), Experiment)
    assert_type(asynctrack.active_run(), ActiveRun | None)
    assert_type(asynctrack.get_run("id"), Run)
    assert_type(asynctrack.search_runs(output_format="list"), list[Run])
    assert_type(asynctrack.get_experiment_by_name("x"), Experiment | None)
    asynctrack.configure(flush_interval=0.1, spool_full="block")
    asynctrack.log_metric("loss", 1.0, step=1)
    asynctrack.end_run("FAILED")
    point = Metric("loss", 1.0, 2)
    assert_type(point.timestamp, int)
