"""The tracking service on every kind of store, called word for word; results checked through the real MLflow client
reading the same store or server, and the other way round."""

from __future__ import annotations

import math
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from asynctrack.constants import UID_TAG
from asynctrack.entities import Experiment, FileInfo, Metric, Param, Run, RunInfo, RunTag, ViewType
from asynctrack.errors import (
    AlreadyExistsError,
    AsynctrackError,
    DeliveryError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
)
from asynctrack.tracking import MlflowClient, MLflowService, get_async_service, get_service, set_tracking_uri
from tests.databricks import DatabricksHost

MISSING = "f" * 32


class Place(NamedTuple):
    """A store: as our service reaches it, and as MLflow's client does."""

    uri: str
    theirs: Any
    prefix: str
    #: false where ±Inf become the largest doubles
    infinities: bool

    def name(self, name: str) -> str:
        """An experiment's name of this place's form."""
        return f"{self.prefix}{name}"


@pytest.fixture(params=["file", "sqlite", "postgres", "file server", "databricks"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each kind of store, and MLflow's own client on it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, while they are imported
        client = pytest.importorskip("mlflow.tracking").MlflowClient
    kind, mark = request.param, uuid.uuid4().hex[:8]
    if kind == "file":
        root = tmp_path / "ml rüns"
        yield Place(str(root), client(str(root)), f"{mark}-", True)
    elif kind == "databricks":
        server = request.getfixturevalue("sqlite_server")
        with DatabricksHost(server.url, tmp_path / "dbfs") as host:
            monkeypatch.setenv("DATABRICKS_HOST", host.url)
            monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
            yield Place("databricks", client(server.url), f"/Shared/{mark}-", False)
    else:
        server = request.getfixturevalue({"file server": "file_server"}.get(kind, f"{kind}_server"))
        yield Place(server.url, client(server.url), f"{mark}-", kind == "file server")


@pytest.fixture
def service(place: Place) -> MLflowService:
    """Ours."""
    set_tracking_uri(place.uri)
    return get_service()


def same_experiment(ours: Experiment, theirs: Any) -> None:
    """Every field of the two is equal."""
    for name in ("experiment_id", "name", "lifecycle_stage", "creation_time", "last_update_time"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.tags == theirs.tags
    same_place(ours.artifact_location, theirs.artifact_location)


def same_place(ours: str | None, theirs: str) -> None:
    """Databricks's stand-in says where its own artifacts are, which the server behind it does not know."""
    assert ours == theirs or (ours or "").startswith("dbfs:")


def same_info(ours: RunInfo, theirs: Any) -> None:
    """Every field of the two is equal, under its names of both generations."""
    for name in RunInfo.__dataclass_fields__:
        if name != "artifact_uri":
            assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.run_uuid, ours.name) == (theirs.run_id, theirs.run_name)
    same_place(ours.artifact_uri, theirs.artifact_uri)


def same_run(ours: Run, theirs: Any) -> None:
    """Every field of the two is equal."""
    same_info(ours.info, theirs.info)
    assert repr(dict(sorted(ours.data.metrics.items()))) == repr(dict(sorted(theirs.data.metrics.items())))
    assert (ours.data.params, ours.data.tags) == (theirs.data.params, theirs.data.tags)


def points_of(history: Any) -> list[str]:
    """Comparable, with NaN equal to NaN."""
    return [repr((point.key, point.timestamp, point.step, point.value)) for point in history]


def test_what_our_service_writes_mlflows_client_reads(place: Place, service: MLflowService, tmp_path: Path) -> None:
    """The service's table, word for word; each entity compared field by field."""
    theirs = place.theirs
    experiment_id = service.create_experiment(place.name("vision"))
    assert isinstance(experiment_id, int)
    same_experiment(service.get_experiment(experiment_id), theirs.get_experiment(str(experiment_id)))
    run = service.create_run(
        experiment_id, user_id="ann", run_name="baseline", source_type="PROJECT", source_name="train.py",
        entry_point_name="main", start_time=1_700_000_000_000, source_version="abc123", tags={"team": "cv", "n": 1},
    )  # fmt: skip
    run_id = run.info.run_id
    same_run(run, theirs.get_run(run_id))
    assert {
        "team": "cv", "n": "1", "mlflow.user": "ann", "mlflow.runName": "baseline", "mlflow.source.type": "PROJECT",
        "mlflow.source.name": "train.py", "mlflow.project.entryPoint": "main", "mlflow.source.git.commit": "abc123",
    }.items() <= theirs.get_run(run_id).data.tags.items()  # fmt: skip

    service.log_metric(run_id, "loss", 0.1 + 0.2)
    service.log_metric(run_id, "loss", 1, 1_700_000_000_001, step=2)
    values = [1e308, -5e-324, math.nan, math.inf, -math.inf, 0]
    for step, value in enumerate(values):
        service.log_metric(run_id, "edge/value", value, 1_700_000_000_000 + step, step=step - 2)
    service.log_param(run_id, "lr", 0.1)
    service.log_param(run_id, "text", "a\r\nb é 日本")
    service.set_tag(run_id, "t", "1")
    service.log_batch(
        run_id,
        [Metric("bulk", i / 7, 1_700_000_000_000 + i, i) for i in range(2500)],
        [Param(f"p{i}", str(i)) for i in range(150)],
        [RunTag("t", "2"), RunTag("a b", "v")],
    )
    service.set_terminated(run_id, "FAILED", 1_700_000_009_000)

    found = theirs.get_run(run_id)
    same_run(service.get_run(run_id), found)
    assert (found.info.status, found.info.end_time) == ("FAILED", 1_700_000_009_000)
    assert (found.data.params["lr"], found.data.params["text"]) == ("0.1", "a\r\nb é 日本")
    assert len(found.data.params) == 152
    assert (found.data.tags["t"], found.data.tags["a b"]) == ("2", "v")
    largest = math.inf if place.infinities else sys.float_info.max
    for key, wanted in (("edge/value", [*values[:3], largest, -largest, 0.0]), ("bulk", [i / 7 for i in range(2500)])):
        history = theirs.get_metric_history(run_id, key)
        assert points_of(service.get_metric_history(run_id, key)) == points_of(history)
        # Batches of one run overlap on their way to a server; one over files keeps points as they come.
        history.sort(key=lambda point: point.timestamp)
        assert repr([point.value for point in history]) == repr([float(value) for value in wanted])

    same_experiment(service.get_experiment_by_name(place.name("vision")) or pytest.fail("not found"),
                    theirs.get_experiment_by_name(place.name("vision")))  # fmt: skip
    assert experiment_id in [int(found.experiment_id) for found in service.list_experiments()]
    (listed,) = service.list_runs(experiment_id)
    same_info(listed.info, found.info)
    assert (listed.data.metrics, listed.data.params, listed.data.tags) == ({}, {}, {})
    assert service.list_run_infos(experiment_id) == [listed.info]
    (searched,) = service.search_runs([experiment_id], "metrics.loss > 0.5 and params.lr = '0.1'")
    same_run(searched, found)


def test_what_is_left_out_has_its_default(place: Place, service: MLflowService) -> None:
    """User, time and name of a run; status and time of its end."""
    experiment_id = service.create_experiment(place.name("defaults"))
    before = time.time_ns() // 1_000_000
    run = service.create_run(experiment_id)
    service.log_metric(run.info.run_id, "m", 1)
    service.set_terminated(run.info.run_id)
    found = place.theirs.get_run(run.info.run_id)
    assert found.info.user_id == found.data.tags["mlflow.user"] == run.info.user_id != ""
    assert found.info.run_name == found.data.tags["mlflow.runName"] != ""
    assert found.info.status == "FINISHED"
    (point,) = place.theirs.get_metric_history(run.info.run_id, "m")
    assert before <= found.info.start_time <= point.timestamp <= found.info.end_time <= time.time_ns() // 1_000_000
    assert point.step == 0


def test_what_mlflows_client_writes_our_service_reads(place: Place, service: MLflowService) -> None:
    """Experiments, runs, points, deleted ones too: each field."""
    theirs = place.theirs
    experiment_id = theirs.create_experiment(place.name("theirs"), tags={"k/l": "v"})
    ids = []
    for i in range(3):
        run_id = theirs.create_run(experiment_id, 1000 + i, {"a b": f"v{i}", "mlflow.user": "eve"}, f"r{i}").info.run_id
        ids.append(run_id)
        for step, value in enumerate((0.5, math.nan, math.inf, 1e-300)):
            theirs.log_metric(run_id, "m/n", value, timestamp=2000 + step, step=step)
        theirs.log_param(run_id, "p", f"{i}\nx")
        theirs.set_terminated(run_id, "KILLED", 3000)
        same_run(service.get_run(run_id), theirs.get_run(run_id))
        assert points_of(service.get_metric_history(run_id, "m/n")) == points_of(
            theirs.get_metric_history(run_id, "m/n")
        )
    theirs.delete_run(ids[0])
    same_experiment(service.get_experiment(experiment_id), theirs.get_experiment(experiment_id))
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        ours = service.search_runs([experiment_id], run_view_type=view)
        for one, other in zip(ours, theirs.search_runs([experiment_id], run_view_type=view), strict=True):
            same_run(one, other)
        infos = service.list_run_infos(experiment_id, view)
        assert infos == [run.info for run in ours]
    theirs.delete_experiment(experiment_id)
    same_experiment(service.get_experiment(experiment_id), theirs.get_experiment(experiment_id))
    same_run(service.get_run(ids[1]), theirs.get_run(ids[1]))


def test_the_two_manage_the_same_things(place: Place, service: MLflowService) -> None:
    """Delete, restore, rename, tag: what one does the other sees."""
    theirs = place.theirs
    experiment_id = service.create_experiment(place.name("old"), tags={"k": 1})
    run_id = service.create_run(experiment_id, tags={"t": "1"}).info.run_id
    service.delete_run(run_id)
    assert theirs.get_run(run_id).info.lifecycle_stage == "deleted"
    service.restore_run(run_id)
    service.update_run(run_id, "SCHEDULED", "renamed")
    service.delete_tag(run_id, "t")
    same_run(service.get_run(run_id), theirs.get_run(run_id))
    assert "t" not in theirs.get_run(run_id).data.tags
    service.rename_experiment(experiment_id, place.name("new"))
    service.set_experiment_tag(experiment_id, "k", 2)
    for key in ("ours", "theirs"):
        service.set_experiment_tag(experiment_id, key, "v")
    service.delete_experiment_tag(experiment_id, "ours")
    theirs.delete_experiment_tag(str(experiment_id), "theirs")
    same_experiment(service.get_experiment(experiment_id), theirs.get_experiment(str(experiment_id)))
    service.delete_experiment(experiment_id)
    assert theirs.get_experiment(str(experiment_id)).lifecycle_stage == "deleted"
    theirs.restore_experiment(str(experiment_id))
    same_experiment(service.get_experiment(experiment_id), theirs.get_experiment(str(experiment_id)))
    assert service.get_experiment(experiment_id).tags == {"k": "2"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_awaited_verbs_do_the_same(place: Place, backend: str, tmp_path: Path) -> None:
    """On both loops; one object serves several tasks at once."""

    async def main() -> list[str]:
        async with get_async_service(place.uri) as service:
            experiment_id = await service.create_experiment(place.name(f"awaited-{backend}"))
            ids = []

            async def session(number: int) -> None:
                run = await service.create_run(experiment_id, run_name=f"r{number}", start_time=number)
                ids.append(run.info.run_id)
                service.log_batch(run.info.run_id, [Metric("m", float(i), i, i) for i in range(300)])
                service.log_param(run.info.run_id, "p", number)
                await service.set_terminated(run.info.run_id, "KILLED", 9)
                same_run(await service.get_run(run.info.run_id), place.theirs.get_run(run.info.run_id))
                assert len(await service.get_metric_history(run.info.run_id, "m")) == 300

            async with anyio.create_task_group() as sessions:
                for number in range(3):
                    sessions.start_soon(session, number)
            assert [info.run_name for info in await service.list_run_infos(experiment_id)] == ["r2", "r1", "r0"]
            assert len(await service.search_runs(experiment_id, "params.p = '1'")) == 1
            with pytest.raises(NotFoundError):
                await service.set_terminated(MISSING)
            (tmp_path / "file.txt").write_text("x")
            artifact_uri = (await service.get_run(ids[0])).info.artifact_uri
            assert artifact_uri is not None
            await service.log_artifact(artifact_uri, tmp_path / "file.txt", "there")
            listed = await service.list_artifacts(ids[0], "there")
            assert listed == [FileInfo("there/file.txt", False, 1)]
            return ids

    for run_id in anyio.run(main, backend=backend):
        found = place.theirs.get_run(run_id)
        assert (found.info.status, found.info.end_time, found.data.metrics) == ("KILLED", 9, {"m": 299.0})


def test_artifacts_are_where_mlflows_client_looks_for_them(
    place: Place, service: MLflowService, tmp_path: Path
) -> None:
    """By the run's artifact URI; complete when the call returns; and back again."""
    folder = tmp_path / "outputs"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"\0\1")
    (folder / "deep/a b.txt").write_text("é")
    run_id = service.create_run(service.create_experiment(place.name("artifacts"))).info.run_id
    artifact_uri = service.get_run(run_id).info.artifact_uri
    assert artifact_uri is not None
    service.log_artifact(artifact_uri, str(folder / "model.bin"))
    service.log_artifact(artifact_uri, folder / "model.bin", "models/first")
    service.log_artifacts(artifact_uri, str(folder), "all")
    listed = service.list_artifacts(run_id)
    assert sorted(item.path for item in listed) == ["all", "model.bin", "models"]
    assert FileInfo("model.bin", False, 2) in listed
    assert [item.path for item in service.list_artifacts(run_id, "all/deep")] == ["all/deep/a b.txt"]
    fetched = service.download_artifacts(run_id, "all/deep/a b.txt", tmp_path)
    assert Path(fetched).read_text() == "é"
    if not artifact_uri.startswith("dbfs:"):  # the server behind the stand-in has no part in its artifacts
        theirs = sorted((item.path, item.is_dir, item.file_size) for item in place.theirs.list_artifacts(run_id))
        assert theirs == sorted((item.path, item.is_dir, item.file_size) for item in listed)
        place.theirs.log_text(run_id, "theirs", "from/mlflow.txt")
        assert Path(service.download_artifacts(run_id, "from/mlflow.txt", tmp_path)).read_text() == "theirs"


def test_artifact_paths_stay_inside(place: Place, service: MLflowService, tmp_path: Path) -> None:
    """``../``, absolute paths and the like: an error, and nothing is written or read outside."""
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    run_id = service.create_run(service.create_experiment(place.name("inside"))).info.run_id
    artifact_uri = service.get_run(run_id).info.artifact_uri
    assert artifact_uri is not None
    for bad in ("..", "../x", "a/../../x", "/etc", "/x"):
        with pytest.raises(AsynctrackError):
            service.log_artifact(artifact_uri, secret, bad)
        with pytest.raises(AsynctrackError):
            service.list_artifacts(run_id, bad)
        with pytest.raises(AsynctrackError):
            service.download_artifacts(run_id, bad, tmp_path)
    with pytest.raises(AsynctrackError, match=r"nowhere\.txt"):
        service.log_artifact(artifact_uri, tmp_path / "nowhere.txt")
    assert service.list_artifacts(run_id) == []


def test_what_is_wrong_is_said_and_nothing_is_written(place: Place, service: MLflowService) -> None:
    """Unknown ids, deleted runs and experiments, taken names, wrong types: an error of the right class."""
    experiment_id = service.create_experiment(place.name("errors"))
    run_id = service.create_run(experiment_id).info.run_id
    for wrong in (lambda: service.get_run(MISSING), lambda: service.set_terminated(MISSING),
                  lambda: service.delete_run(MISSING), lambda: service.restore_run(MISSING),
                  lambda: service.get_experiment(123456789), lambda: service.create_run(123456789),
                  lambda: service.list_runs(123456789), lambda: service.delete_experiment(123456789)):  # fmt: skip
        with pytest.raises(NotFoundError):
            wrong()
    with pytest.raises(AlreadyExistsError, match="errors"):
        service.create_experiment(place.name("errors"))
    for bad in ("../x", "", None, 1.5):
        with pytest.raises(InvalidInputError):
            service.get_run(bad)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(InvalidInputError):
            service.log_metric(bad, "m", 1)  # type: ignore[arg-type]  # that is the point
    service.log_param(run_id, "p", 1)
    service.set_terminated(run_id)
    with pytest.raises(InvalidInputError, match="'p' is '1' already"):
        service.log_param(run_id, "p", 2)
    service.log_metric(run_id, "m", 1)
    place.theirs.log_param(run_id, "q", "1")  # what is stored is read once
    service.log_param(run_id, "q", 2)
    with pytest.raises(DeliveryError, match=r"(?s)'q'.*rejected\.jsonl"):
        service.set_terminated(run_id, "KILLED")
    run = place.theirs.get_run(run_id)
    assert (run.info.status, run.data.params, run.data.metrics) == ("KILLED", {"p": "1", "q": "1"}, {"m": 1.0})
    service.delete_run(run_id)
    for refused in (lambda: service.set_terminated(run_id), lambda: service.update_run(run_id, "FAILED")):
        with pytest.raises(RefusedError):
            refused()
    with pytest.raises(RefusedError, match="is deleted"):
        service.log_metric(run_id, "m", 2, step=1)
    assert place.theirs.get_run(run_id).data.metrics == {"m": 1.0}
    service.delete_experiment(experiment_id)
    with pytest.raises(RefusedError):
        service.create_run(experiment_id)


def test_our_client_and_mlflows_are_called_alike(place: Place) -> None:
    """One script for both clients, statement by statement, and equal results."""
    outcomes = []
    for client in (MlflowClient(place.uri), place.theirs):
        ours = client is not place.theirs
        entities = (Metric, Param, RunTag) if ours else _their_entities()
        experiment_id = client.create_experiment(place.name(f"script-{ours}"), tags={"k": "v"})
        run = client.create_run(experiment_id, start_time=5, tags={"mlflow.user": "ann"}, run_name="r")
        run_id = run.info.run_id
        client.log_metric(run_id, "m", 1.5, timestamp=10, step=1)
        assert client.log_param(run_id, "p", 3) == 3
        client.set_tag(run_id, "t", "v")
        client.log_batch(
            run_id, metrics=[entities[0]("m", 2.5, 11, 2)], params=[entities[1]("q", "1")], tags=[entities[2]("u", "w")]
        )
        client.set_terminated(run_id, status="FAILED", end_time=20)
        page = client.search_runs([experiment_id], "metrics.m > 2", ViewType.ALL, 1, ["metrics.m DESC"])
        info, data = page[0].info, page[0].data
        tags = {key: value for key, value in data.tags.items() if key != UID_TAG}
        outcomes.append(
            (len(page), page.token, info.run_name, info.user_id, info.status, info.start_time, info.end_time,
             data.metrics, data.params, tags, client.get_experiment(experiment_id).tags,
             points_of(client.get_metric_history(run_id, "m")))
        )  # fmt: skip
    assert outcomes[0] == outcomes[1]


def _their_entities() -> tuple[Any, Any, Any]:
    from mlflow.entities import Metric, Param, RunTag

    return Metric, Param, RunTag
