"""Never run: mypy --strict reads it as a user's script that calls every verb of the tracking service."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from asynctrack.entities import (
    Experiment,
    FileInfo,
    Metric,
    PagedList,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
    RunTag,
    SourceType,
    ViewType,
)
from asynctrack.stores.base import AbstractStore
from asynctrack.testing import MemoryStore
from asynctrack.tracking import (
    AsyncMLflowService,
    MlflowClient,
    MLflowService,
    get_async_service,
    get_service,
    get_tracking_uri,
    set_tracking_uri,
)


def classic() -> None:
    set_tracking_uri("file:./mlruns")
    assert_type(get_tracking_uri(), str)
    service = get_service()
    assert_type(service, MLflowService)
    experiment_id = service.create_experiment("vision", artifact_location="s3://bucket")
    assert_type(experiment_id, int)
    assert_type(service.get_experiment(experiment_id), Experiment)
    assert_type(service.list_experiments(), list[Experiment])
    run = service.create_run(
        experiment_id,
        user_id="ann",
        run_name="r1",
        source_type=SourceType.NOTEBOOK,
        source_name="train.py",
        entry_point_name="main",
        start_time=1_700_000_000_000,
        source_version="abc",
        tags={"team": "cv", "n": 1},
    )
    assert_type(run, Run)
    assert_type(run.info, RunInfo)
    assert_type(run.info.run_uuid, str)
    assert_type(run.info.name, str | None)
    assert_type(run.data, RunData)
    assert_type(run.data.metrics, dict[str, float])
    assert_type(run.data.latest, dict[str, Metric])
    run_id = run.info.run_id
    service.log_metric(run_id, "loss", 0.1, timestamp=1, step=2)
    service.log_param(run_id, "lr", 1e-3)
    service.log_artifact("file:///tmp/a", Path("x"), "folder")
    service.log_artifacts("file:///tmp/a", "folder", artifact_path="there")
    service.set_terminated(run_id, status="FAILED", end_time=5)
    assert_type(service.get_run(run_id), Run)
    assert_type(service.list_runs(experiment_id), list[Run])


def later(service: MLflowService, run_id: str) -> None:
    service.set_tag(run_id, "t", 1)
    service.log_batch(run_id, [Metric("m", 1.0, 1)], [Param("p", "1")], [RunTag("t", "1")])
    assert_type(service.list_run_infos("1", ViewType.ALL), list[RunInfo])
    assert_type(service.get_experiment_by_name("x"), Experiment | None)
    page = service.search_runs([1, "2"], "metrics.m > 1", max_results=5, order_by=["metrics.m DESC"])
    assert_type(page, PagedList[Run])
    assert_type(page.token, str | None)
    assert_type(service.search_experiments(filter_string="name LIKE 'a%'"), PagedList[Experiment])
    assert_type(service.get_metric_history(run_id, "m"), list[Metric])
    assert_type(service.update_run(run_id, RunStatus.FAILED, "name"), RunInfo)
    service.delete_run(run_id)
    service.restore_run(run_id)
    service.delete_tag(run_id, "t")
    service.delete_experiment(1)
    service.restore_experiment(1)
    service.rename_experiment(1, "y")
    service.set_experiment_tag(1, "k", "v")
    service.delete_experiment_tag(1, "k")
    assert_type(service.list_artifacts(run_id, "folder"), list[FileInfo])
    assert_type(service.download_artifacts(run_id, "folder", Path("here")), str)
    service.flush(run_id)
    service.flush()


def modern() -> None:
    client = MlflowClient("http://127.0.0.1:5000")
    assert_type(client.create_experiment("x", tags={"a": 1}), str)
    run = client.create_run("0", start_time=1, tags={"a": "b"}, run_name="r")
    run_id = run.info.run_id
    client.log_metric(run_id, "m", 1, timestamp=1, step=1, synchronous=True)
    client.log_param(run_id, "p", 1)
    client.set_tag(run_id, "t", "v")
    client.log_batch(run_id, metrics=[Metric("m", 1.0, 1)], params=(), tags=[RunTag("t", "1")])
    client.log_artifact(run_id, "file.txt")
    client.log_artifacts(run_id, "folder", "there")
    assert_type(client.get_parent_run(run_id), Run | None)
    assert_type(client.search_runs(["0"]), PagedList[Run])
    client.set_terminated(run_id)


async def awaited(store: AbstractStore) -> None:
    async with get_async_service("file:./mlruns") as service:
        assert_type(service, AsyncMLflowService)
        experiment_id = await service.create_experiment("x")
        assert_type(experiment_id, int)
        run = await service.create_run(experiment_id, tags={"a": 1})
        assert_type(run, Run)
        assert_type(service.log_metric(run.info.run_id, "m", 1.0), None)
        service.log_param(run.info.run_id, "p", 1)
        service.set_tag(run.info.run_id, "t", 1)
        service.log_batch(run.info.run_id, [Metric("m", 1.0, 1)])
        assert_type(await service.list_runs(experiment_id), list[Run])
        assert_type(await service.search_runs(experiment_id), PagedList[Run])
        assert_type(await service.list_artifacts(run.info.run_id), list[FileInfo])
        await service.log_artifact("file:///tmp/a", "x")
        await service.set_terminated(run.info.run_id)
        await service.flush()
    await AsyncMLflowService(store).aclose()
    MLflowService(MemoryStore())
