"""The tracking service: its surfaces agree, its verbs do what they say, and what is wrong is said and not done."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
from asynctrack.entities import Metric, Param, Run, RunTag, ViewType
from asynctrack.errors import (
    AlreadyExistsError,
    AuthenticationError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from asynctrack.stores.base import Batch
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import drive
from asynctrack.testing import FaultyStore, MemoryStore
from asynctrack.tracking import (
    AsyncMLflowService,
    MlflowClient,
    MLflowService,
    get_async_service,
    get_service,
    set_tracking_uri,
    store_for,
)

#: plain calls in every face
LOGGING = {"log_metric", "log_param", "set_tag", "log_batch"}
MISSING = "f" * 32


@pytest.fixture(params=["file", "memory"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> MLflowService:
    """A service by its URI, and one over a user's own store object."""
    return get_service(tmp_path / "ml runs") if request.param == "file" else MLflowService(MemoryStore())


def files(root: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# ── surfaces


def surface(kind: type) -> dict[str, Any]:
    """A class's public verbs; ways to make and close one are not among them."""
    found = {name: value for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")}
    return {name: value for name, value in found.items() if name not in ("at", "aclose")}


def test_the_blocking_and_the_awaitable_service_have_one_surface() -> None:
    """The same verbs, arguments, defaults and types; what waits is awaited, what logs is a plain call in both."""
    blocking, awaitable = surface(MLflowService), surface(AsyncMLflowService)
    assert blocking.keys() == awaitable.keys()
    for name, verb in blocking.items():
        assert inspect.signature(verb) == inspect.signature(awaitable[name]), name
        assert not inspect.iscoroutinefunction(verb)
        assert inspect.iscoroutinefunction(awaitable[name]) == (name not in LOGGING), name


def test_there_is_one_implementation() -> None:
    """Both services call the same function for each verb, and it says what it does."""
    awaitable = surface(AsyncMLflowService)
    for name, verb in surface(MLflowService).items():
        assert inspect.unwrap(verb) is inspect.unwrap(awaitable[name]), name
        assert verb.__name__ == name
        assert inspect.getdoc(verb), name


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("create_experiment", "name artifact_location"),
        ("create_run", "experiment_id user_id run_name source_type source_name entry_point_name start_time "
                       "source_version tags"),
        ("get_run", "run_id"),
        ("list_runs", "experiment_id"),
        ("list_experiments", ""),
        ("get_experiment", "experiment_id"),
        ("log_metric", "run_id key value timestamp"),
        ("log_param", "run_id key value"),
        ("log_artifact", "artifact_uri local_path artifact_path"),
        ("log_artifacts", "artifact_uri local_dir artifact_path"),
        ("set_terminated", "run_id status end_time"),
    ],
)  # fmt: skip
def test_the_verbs_of_2018_take_their_arguments_in_their_order(name: str, arguments: str) -> None:
    """Further ones, of later versions, come behind."""
    found = list(inspect.signature(getattr(MLflowService, name)).parameters)[1:]
    assert found[: len(arguments.split())] == arguments.split()


#: what verbs of MLflow's take here beside its own arguments, and behind them
OUR_ARGUMENTS = {("get_metric_history", "branches")}


def test_the_client_has_mlflows_signatures() -> None:
    """Names, order and defaults of `mlflow.MlflowClient`, except for what it has none of."""
    mlflow = pytest.importorskip("mlflow")
    for name, verb in surface(MlflowClient).items():
        theirs = getattr(mlflow.MlflowClient, name, None)
        if theirs is None:
            assert name in ("flush",), name
            continue
        ours = inspect.signature(verb).parameters
        wanted = inspect.signature(theirs).parameters
        given = {key: value.default for key, value in ours.items() if (name, key) not in OUR_ARGUMENTS}
        assert list(ours)[: len(given)] == list(given), name
        assert list(given) == [key for key in wanted if key in given], name
        left_out = wanted.keys() - given.keys()
        assert left_out <= {"trace_location"}, (name, left_out)
        for key, default in given.items():
            theirs_default = wanted[key].default
            assert default in (theirs_default, None if theirs_default == "" else theirs_default), (name, key)


# ── the table


def test_what_is_created_is_what_was_asked_for(service: MLflowService) -> None:
    """Every argument of create_run, the source as today's tags; the run does not become active."""
    experiment_id = service.create_experiment("vision", "s3://bucket/vision")
    assert type(experiment_id) is int
    before = time.time_ns() // 1_000_000
    run = service.create_run(
        experiment_id, "bob", "baseline", "NOTEBOOK", "train.py", "main", 1234, "abc123", {"team": "cv", "n": 1}
    )
    assert isinstance(run, Run)
    info = run.info
    assert (info.experiment_id, info.user_id, info.run_name) == (str(experiment_id), "bob", "baseline")
    assert (info.status, info.start_time, info.end_time) == ("RUNNING", 1234, None)
    assert run.data.tags == {
        "mlflow.user": "bob", "mlflow.runName": "baseline", "mlflow.source.type": "NOTEBOOK",
        "mlflow.source.name": "train.py", "mlflow.project.entryPoint": "main", "mlflow.source.git.commit": "abc123",
        "team": "cv", "n": "1",
    }  # fmt: skip
    assert asynctrack.active_run() is None
    bare = service.create_run(str(experiment_id)).info
    assert bare.start_time >= before
    assert bare.user_id == store_user()
    assert bare.run_name


def store_user() -> str:
    """Who runs this."""
    from asynctrack.runs.context import default_user

    return default_user()


def test_what_is_logged_is_found(service: MLflowService) -> None:
    """By run id, as a string; values converted; the run is ended with what it was told."""
    run_id = service.create_run(0).info.run_id
    before = time.time_ns() // 1_000_000
    assert service.log_metric(run_id, "loss", 1) is None
    service.log_metric(run_id, "loss", 0.5, 2_000_000_000_000, step=7)
    service.log_param(run_id, "opt", {"lr": 1})
    service.set_tag(run_id, "t", None)
    service.log_batch(run_id, [Metric("acc", 0.9, 5, 2)], [Param("p", "1")], [RunTag("u", "a"), RunTag("u", "b")])
    data = service.get_run(run_id).data
    assert (data.metrics, data.params) == ({"loss": 0.5, "acc": 0.9}, {"opt": "{'lr': 1}", "p": "1"})
    assert (data.tags["t"], data.tags["u"]) == ("None", "b")
    first, second = service.get_metric_history(run_id, "loss")
    assert before <= first.timestamp <= time.time_ns() // 1_000_000
    assert (first.step, second) == (0, Metric("loss", 0.5, 2_000_000_000_000, 7))
    service.set_terminated(run_id)
    info = service.get_run(run_id).info
    assert info.status == "FINISHED"
    assert info.end_time is not None
    assert info.end_time >= before
    for status, name in (("FAILED", "FAILED"), (5, "KILLED")):
        service.set_terminated(run_id, status, 99)
        assert (service.get_run(run_id).info.status, service.get_run(run_id).info.end_time) == (name, 99)


def test_lists_and_searches(service: MLflowService) -> None:
    """list_runs fills only the info; everything is listed, however many pages it takes."""
    experiment_id = service.create_experiment("a")
    ids = [service.create_run(experiment_id, start_time=i).info.run_id for i in range(3)]
    service.log_metric(ids[0], "m", 1)
    listed = service.list_runs(experiment_id)
    assert [run.info for run in listed] == service.list_run_infos(experiment_id)
    assert [run.info.run_id for run in listed] == ids[::-1]
    assert all(run.data.metrics == {} and run.data.tags == {} for run in listed)
    assert {found.name for found in service.list_experiments()} == {"a", "Default"}
    page = service.search_runs([experiment_id], max_results=2)
    assert len(page) == 2
    assert [run.info.run_id for run in service.search_runs(experiment_id, page_token=page.token)] == [ids[0]]
    assert [run.info.run_id for run in service.search_runs(experiment_id, "metrics.m = 1")] == [ids[0]]
    assert [found.name for found in service.search_experiments(filter_string="name = 'a'")] == ["a"]


def test_runs_and_experiments_are_managed(service: MLflowService) -> None:
    """Deleted, restored, renamed, tagged; what was logged before a deletion is in the store before it."""
    experiment_id = service.create_experiment("a", tags={"k": 1})
    run_id = service.create_run(experiment_id, parent_run_id="p" * 32).info.run_id
    service.log_metric(run_id, "m", 1)
    service.delete_run(run_id)
    assert service.get_run(run_id).data.metrics == {"m": 1.0}
    assert service.list_runs(experiment_id) == []
    assert len(service.list_runs(experiment_id, ViewType.DELETED_ONLY)) == 1
    service.restore_run(run_id)
    assert service.update_run(run_id, "SCHEDULED", "new").run_name == "new"
    service.delete_tag(run_id, "mlflow.parentRunId")
    assert "mlflow.parentRunId" not in service.get_run(run_id).data.tags
    service.rename_experiment(experiment_id, "b")
    service.set_experiment_tag(experiment_id, "k", 2)
    found = service.get_experiment_by_name("b")
    assert found is not None
    assert (found.experiment_id, found.tags) == (str(experiment_id), {"k": "2"})
    service.delete_experiment_tag(experiment_id, "k")
    assert service.get_experiment(experiment_id).tags == {}
    service.delete_experiment(experiment_id)
    assert service.get_experiment(experiment_id).lifecycle_stage == "deleted"
    assert [found.name for found in service.list_experiments(ViewType.DELETED_ONLY)] == ["b"]
    service.restore_experiment(experiment_id)
    assert service.get_experiment_by_name("a") is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_awaitable_service_does_the_same(backend: str, tmp_path: Path) -> None:
    """On both loops, by URI and over a store object; logging is a plain call there too."""

    async def use(service: AsyncMLflowService) -> None:
        async with service:
            experiment_id = await service.create_experiment("vision")
            run = await service.create_run(experiment_id, tags={"team": "cv"})
            for step in range(100):
                service.log_metric(run.info.run_id, "loss", step / 2, step=step)
            service.log_param(run.info.run_id, "p", 1)
            assert (await service.get_run(run.info.run_id)).data.params == {"p": "1"}
            await service.set_terminated(run.info.run_id)
            assert len(await service.get_metric_history(run.info.run_id, "loss")) == 100
            assert [found.info.status for found in await service.list_runs(experiment_id)] == ["FINISHED"]
            with pytest.raises(NotFoundError):
                await service.set_terminated(MISSING)

    async def main() -> None:
        await use(get_async_service(tmp_path / "by-uri"))
        await use(AsyncMLflowService(MemoryStore()))
        await use(AsyncMLflowService(FileStore(tmp_path / "by-object")))

    anyio.run(main, backend=backend)


# ── which store


def test_the_store_is_the_one_that_was_set_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, set_tracking_uri, MLFLOW_TRACKING_URI; an empty argument is ./mlruns. A service keeps its own."""
    assert get_service().tracking_uri == (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "env"))
    from_environment = get_service()
    set_tracking_uri(tmp_path / "set")
    assert get_service().tracking_uri == (tmp_path / "set").as_uri()
    assert get_service(f"file:{tmp_path}/given").tracking_uri == (tmp_path / "given").as_uri()
    assert get_service("").tracking_uri == (tmp_path / "mlruns").as_uri()
    run_id = from_environment.create_run(0).info.run_id
    from_environment.log_metric(run_id, "m", 1)
    from_environment.set_terminated(run_id)
    assert (tmp_path / "env/0" / run_id / "metrics/m").exists()
    assert not (tmp_path / "set").exists()


def test_setting_the_uri_does_not_touch_an_active_run(tmp_path: Path) -> None:
    """get_tracking_uri may differ from the active run's store."""
    with asynctrack.start_run(tracking_uri=str(tmp_path / "one")) as run:
        set_tracking_uri(tmp_path / "two")
        run.log_metric("m", 1)
    assert asynctrack.get_tracking_uri() == (tmp_path / "two").as_uri()
    assert get_service(tmp_path / "one").get_run(run.run_id).data.metrics == {"m": 1.0}


def test_one_store_a_uri_serves_all_blocking_calls(tmp_path: Path) -> None:
    """A server's would hold a connection pool; a forked child has one of its own."""
    first = store_for(tmp_path)
    assert store_for(tmp_path) is first
    assert asynctrack.experiments.store_here() is store_for()
    child = os.fork()
    if child == 0:
        os._exit(0 if store_for(tmp_path) is not first else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asynctrack.shutdown()
    assert store_for(tmp_path) is not first


def test_a_service_goes_on_in_a_forked_child(tmp_path: Path) -> None:
    """The child logs and reads through a store and an engine of its own."""
    service = get_service(tmp_path / "store")
    run_id = service.create_run(0).info.run_id
    service.log_metric(run_id, "m", 1)
    service.flush()
    child = os.fork()
    if child == 0:
        try:
            service.log_metric(run_id, "child", 2)
            done = service.get_run(run_id).data.metrics == {"m": 1.0, "child": 2.0}
            asynctrack.shutdown()
        finally:
            os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert service.get_run(run_id).data.metrics == {"m": 1.0, "child": 2.0}


def test_a_file_store_object_shares_the_engine_of_its_uri(tmp_path: Path) -> None:
    """So what a run logs through either arrives in the order of the calls."""
    service = MLflowService(FileStore(tmp_path / "store"))
    with asynctrack.start_run(tracking_uri=str(tmp_path / "store")) as run:
        run.log_metric("m", 1, step=0)
        service.log_metric(run.run_id, "m", 2, step=1)
        run.log_metric("m", 3, step=2)
        assert [point.value for point in service.get_metric_history(run.run_id, "m")] == [1.0, 2.0, 3.0]
    assert service.get_run(run.run_id).info.status == "FINISHED"


def test_two_stores_of_one_uri_do_not_mix() -> None:
    """A store object is itself, whatever it calls itself."""
    services = [MLflowService(MemoryStore()) for _ in range(2)]
    ids = [service.create_run(0).info.run_id for service in services]
    for service, run_id in zip(services, ids, strict=True):
        service.log_metric(run_id, "m", 1)
        service.set_terminated(run_id)
    for service, run_id, other in zip(services, ids, ids[::-1], strict=True):
        assert service.get_run(run_id).data.metrics == {"m": 1.0}
        with pytest.raises(NotFoundError):
            service.get_run(other)


# ── delivery


def test_a_run_can_be_logged_to_after_its_end(service: MLflowService) -> None:
    """As in MLflow; it stays ended, and nothing of it is kept in memory meanwhile."""
    run_id = service.create_run(0).info.run_id
    for step in range(3):
        service.log_metric(run_id, "m", step, step=step)
        service.set_terminated(run_id)
    assert len(service.get_metric_history(run_id, "m")) == 3
    service.set_terminated(run_id)
    assert not [state for state in asynctrack.runs.active.states_of_process() if state.run_id == run_id]


def test_a_service_that_ends_many_runs_keeps_none_of_them(tmp_path: Path) -> None:
    """It may run for months: what has ended leaves the engine and its saved position."""
    service = get_service(tmp_path / "store")
    for number in range(20):
        run_id = service.create_run(0).info.run_id
        service.log_metric(run_id, "m", number)
        service.set_terminated(run_id)
    spool = asynctrack.engine.lifecycle.engine_for(service.tracking_uri).journal.spool
    deadline = time.monotonic() + 30
    # Where there is none, the spool is deleted: everything is delivered and no run is open.
    while (spool.load_cursor() or {"runs": {}})["runs"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (spool.load_cursor() or {"runs": {}})["runs"] == {}
    assert len(service.list_runs(0)) == 20


def test_an_end_that_comes_with_refused_events_is_set_and_said() -> None:
    """The status is right, the message names the event, the reason and where it is kept; a second end is quiet."""
    store = MemoryStore()
    service = MLflowService(store)
    run_id = service.create_run(0).info.run_id
    service.log_metric(run_id, "m", 1)
    drive(store.log_batch(run_id, Batch(params=[("p", "1")])))  # another program
    service.log_param(run_id, "p", 2)
    with pytest.raises(DeliveryError, match=r"(?s)'p'.*rejected\.jsonl"):
        service.set_terminated(run_id, "FAILED")
    run = service.get_run(run_id)
    assert (run.info.status, run.data.params, run.data.metrics) == ("FAILED", {"p": "1"}, {"m": 1.0})
    service.set_terminated(run_id)


def test_an_end_behind_undelivered_events_is_kept_with_them() -> None:
    """The store is down for longer than ``close_timeout``: set_terminated says what is missing and where it is, and
    when the store is back, events and status arrive."""
    asynctrack.configure(close_timeout=0.3, flush_interval=0.05)
    inner = MemoryStore()
    store = FaultyStore(inner)
    service = MLflowService(store)
    run_id = service.create_run(0).info.run_id
    store.fail("log_batch", UnavailableError("the store is down"), times=1_000_000)
    service.log_metric(run_id, "m", 1)
    with pytest.raises(FlushTimeoutError, match=r"(?s)1 of 1 events.*\.asynctrack.*FAILED"):
        service.set_terminated(run_id, "FAILED", 77)
    store._plan.clear()
    deadline = time.monotonic() + 30
    while inner._runs[run_id].info.status != "FAILED" and time.monotonic() < deadline:
        time.sleep(0.02)
    run = inner._runs[run_id].whole()
    assert (run.info.status, run.info.end_time, run.data.metrics) == ("FAILED", 77, {"m": 1.0})


def test_a_read_waits_for_what_it_reads_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run may not be written to (403): what is read of other experiments and runs does not wait for its events, and
    the store is asked once where they belong."""
    monkeypatch.setattr("asynctrack.service.session._GRACE", 0.1)
    asynctrack.configure(close_timeout=0.5)
    store = FaultyStore(MemoryStore())
    service = MLflowService(store)
    mine, theirs = service.create_experiment("mine"), service.create_experiment("theirs")
    kept, run_id = service.create_run(mine).info.run_id, service.create_run(theirs).info.run_id
    store.fail("log_batch", AuthenticationError("403: may not do this"), times=10_000)
    service.log_metric(run_id, "m", 1)
    before = store.calls["get_run"]
    for _ in range(2):
        assert [run.info.run_id for run in service.search_runs([mine])] == [kept]
        assert [info.run_id for info in service.list_run_infos(mine)] == [kept]
    assert store.calls["get_run"] == before + 1
    assert service.get_run(kept).info.run_id == kept
    for read in (lambda: service.search_runs([mine, theirs]), lambda: service.get_run(run_id)):
        with pytest.raises(FlushTimeoutError, match=run_id):
            read()
    service.delete_experiment(mine)


@pytest.mark.parametrize("shown", [NotFoundError("gone"), AuthenticationError("403: may not see this")])
def test_a_run_that_the_store_does_not_show_holds_up_no_search(
    shown: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever experiment it is in, the search would not find it."""
    monkeypatch.setattr("asynctrack.service.session._GRACE", 0.1)
    asynctrack.configure(close_timeout=0.5)
    store = FaultyStore(MemoryStore())
    service = MLflowService(store)
    theirs = service.create_experiment("theirs")
    run_id = service.create_run(theirs).info.run_id
    store.fail("log_batch", AuthenticationError("403: may not do this"), times=10_000)
    service.log_metric(run_id, "m", 1)
    store.fail("get_run", shown, times=10)
    assert len(service.search_runs([theirs])) == 1


def test_a_run_that_does_not_exist_takes_nothing(service: MLflowService) -> None:
    """Every verb says so, with the same class; nothing is stored."""
    service.create_run(0)  # where there is nothing at all, the file system may not be mounted, and events are kept
    with pytest.raises(NotFoundError, match=MISSING):
        service.log_metric(MISSING, "m", 1)
    with pytest.raises(NotFoundError, match=MISSING):
        service.set_terminated(MISSING)
    with pytest.raises(NotFoundError):
        service.get_run(MISSING)


# ── what is wrong

BAD_IDS: list[Any] = ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a" * 300, "é", None, 1.5, True, b"x", ["x"], {}]


@pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
def test_an_id_that_can_be_none_is_refused_by_every_verb(tmp_path: Path, bad: Any) -> None:
    """Wrong types, and whatever could lead somewhere else; nothing is written."""
    service = get_service(tmp_path / "store")
    good = service.create_run(0).info.run_id
    before = files(tmp_path / "store")
    calls: list[Callable[[], object]] = [
        lambda: service.get_run(bad),
        lambda: service.log_metric(bad, "m", 1),
        lambda: service.log_param(bad, "p", 1),
        lambda: service.set_tag(bad, "t", 1),
        lambda: service.log_batch(bad, [Metric("m", 1, 1)]),
        lambda: service.set_terminated(bad),
        lambda: service.get_metric_history(bad, "m"),
        lambda: service.update_run(bad, "FAILED"),
        lambda: service.delete_run(bad),
        lambda: service.restore_run(bad),
        lambda: service.delete_tag(bad, "t"),
        lambda: service.create_run(bad),
        lambda: service.get_experiment(bad),
        lambda: service.list_runs(bad),
        lambda: service.list_run_infos(bad),
        lambda: service.search_runs([bad]),
        lambda: service.rename_experiment(bad, "x"),
        lambda: service.delete_experiment(bad),
        lambda: service.restore_experiment(bad),
        lambda: service.set_experiment_tag(bad, "k", "v"),
        lambda: service.delete_experiment_tag(bad, "k"),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="id"):
            call()
    asynctrack.shutdown()
    assert files(tmp_path / "store") == before
    assert sorted(path.name for path in (tmp_path / "store/0").iterdir()) == sorted([good, "meta.yaml"])


def test_what_does_not_exist_is_not_found(service: MLflowService) -> None:
    """Runs and experiments, by every verb that reads or changes one."""
    service.create_experiment("a")
    for call in (service.get_run, service.set_terminated, service.update_run, service.delete_run, service.restore_run):
        with pytest.raises(NotFoundError, match=MISSING):
            call(MISSING)
    for verb in (service.get_experiment, service.list_runs, service.delete_experiment, service.restore_experiment):
        with pytest.raises(NotFoundError, match="123456"):
            verb(123456)
    with pytest.raises(NotFoundError, match="123456"):
        service.create_run(123456)
    with pytest.raises(NotFoundError):
        service.rename_experiment(123456, "x")
    assert service.search_runs([123456]) == []
    assert service.get_experiment_by_name("none") is None


def test_what_is_deleted_or_taken_is_refused(service: MLflowService) -> None:
    """A deleted run cannot be changed, a deleted experiment takes no runs, a name is given once."""
    experiment_id = service.create_experiment("a")
    run_id = service.create_run(experiment_id).info.run_id
    service.delete_run(run_id)
    for call in (lambda: service.set_terminated(run_id), lambda: service.update_run(run_id, "FAILED")):
        with pytest.raises(RefusedError, match="deleted"):
            call()
    service.delete_experiment(experiment_id)
    for refused in (lambda: service.create_run(experiment_id), lambda: service.rename_experiment(experiment_id, "b")):
        with pytest.raises(RefusedError, match="deleted"):
            refused()
    with pytest.raises(AlreadyExistsError, match="'a'"):
        service.create_experiment("a")
    service.create_experiment("c")
    service.restore_experiment(experiment_id)
    with pytest.raises(AlreadyExistsError, match="'c'"):
        service.rename_experiment(experiment_id, "c")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, r: s.create_experiment(""), "visible"),
        (lambda s, r: s.create_experiment(None), "visible"),
        (lambda s, r: s.create_experiment(7), "visible"),
        (lambda s, r: s.create_experiment("x", ""), "artifact location"),
        (lambda s, r: s.create_experiment("x", None, ["t"]), "dictionary"),
        (lambda s, r: s.create_experiment("x", None, {"../t": 1}), "tag key"),
        (lambda s, r: s.create_run(0, tags={"a//b": 1}), "tag key"),
        (lambda s, r: s.create_run(0, tags={1: 1}), "tag key"),
        (lambda s, r: s.create_run(0, tags="t"), "dictionary"),
        (lambda s, r: s.create_run(0, source_type="SCRIPT"), "NOTEBOOK, JOB"),
        (lambda s, r: s.create_run(0, start_time=-1), "start_time=-1"),
        (lambda s, r: s.create_run(0, start_time=1.5), "milliseconds"),
        (lambda s, r: s.log_metric(r, "../m", 1), "metric key"),
        (lambda s, r: s.log_metric(r, "m", "x"), "not one number"),
        (lambda s, r: s.log_metric(r, "m", 1, timestamp=1.5), "timestamp=1.5"),
        (lambda s, r: s.log_metric(r, "m", 1, step="1"), "step="),
        (lambda s, r: s.log_param(r, "/p", 1), "param key"),
        (lambda s, r: s.set_tag(r, "", 1), "tag key"),
        (lambda s, r: s.log_batch(r, [Metric("m", 1, 1), Metric("m", 1, -1)]), "timestamp=-1"),
        (lambda s, r: s.log_batch(r, [Metric("m", 1, 1)], [], [RunTag("../t", "1")]), "tag key"),
        (lambda s, r: s.log_batch(r, [Metric("m", 1, 1)], [Param("p", "1"), Param("p", "2")]), "'1' and '2'"),
        (lambda s, r: s.log_batch(r, [("m", 1, 1)]), "not a metric"),
        (lambda s, r: s.log_batch(r, [], [("p", 1)]), "not a param"),
        (lambda s, r: s.set_terminated(r, "DONE"), "RUNNING, SCHEDULED"),
        (lambda s, r: s.set_terminated(r, "RUNNING"), "does not end"),
        (lambda s, r: s.set_terminated(r, None, "now"), "end_time='now'"),
        (lambda s, r: s.update_run(r, "finished"), "status"),
        (lambda s, r: s.list_runs(0, "ALL"), "view type"),
        (lambda s, r: s.search_runs([0], "metrics.m ~ 1"), "filter"),
        (lambda s, r: s.search_runs([0], max_results=0), "max_results"),
        (lambda s, r: s.search_runs([0], order_by=["m DOWN"]), "order"),
        (lambda s, r: s.search_experiments(page_token="x"), "page token"),
        (lambda s, r: s.log_artifact(r, "x"), "run's id"),
        (lambda s, r: s.log_artifacts("", "x"), "not a URI"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_and_nothing_happens(
    tmp_path: Path, call: Callable[[Any, str], object], message: str
) -> None:
    """InvalidInputError, which is a ValueError, before anything is done."""
    service = get_service(tmp_path / "store")
    run_id = service.create_run(0).info.run_id
    before = files(tmp_path / "store")
    with pytest.raises(InvalidInputError, match=message):
        call(service, run_id)
    asynctrack.shutdown()
    assert files(tmp_path / "store") == before


def test_a_link_that_leads_out_of_the_artifacts_is_not_followed(tmp_path: Path) -> None:
    """Nothing is written where it leads."""
    service = get_service(tmp_path / "store")
    artifact_uri = service.create_run(0).info.artifact_uri
    assert artifact_uri is not None
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "file.txt").write_text("x")
    os.symlink(outside, Path(artifact_uri.removeprefix("file://")) / "link")
    with pytest.raises(asynctrack.AsynctrackError, match="link"):
        service.log_artifact(artifact_uri, tmp_path / "file.txt", "link")
    with pytest.raises(asynctrack.AsynctrackError, match="link"):
        service.log_artifacts(artifact_uri, tmp_path / "outside/..", "link/deeper")
    assert list(outside.iterdir()) == []


def test_databricks_wants_names_that_are_paths() -> None:
    """The workspace says that a name is wrong; the message says what is right."""
    store = FaultyStore(MemoryStore("databricks"))
    store.fail("create_experiment", RefusedError("Got an invalid experiment name 'vision'."))
    with pytest.raises(RefusedError, match=r"(?s)invalid experiment name.*/Shared/vision"):
        MLflowService(store).create_experiment("vision")


def test_an_id_that_is_no_integer_is_said() -> None:
    """The service of 2018 gives integers; the experiment exists, and the message says how to get at it."""

    class WithNamesForIds(MemoryStore):
        async def create_experiment(self, name: str, *args: Any, **kwargs: Any) -> str:
            await super().create_experiment(name, *args, **kwargs)
            return "exp-1"

    with pytest.raises(InvalidInputError, match=r"'exp-1' is not an integer.*MlflowClient"):
        MLflowService(WithNamesForIds()).create_experiment("x")


# ── MlflowClient


def test_the_client_does_it_under_todays_names(tmp_path: Path) -> None:
    """String ids, entity objects, pages, synchronous logging."""
    client = MlflowClient(tmp_path / "store")
    experiment_id = client.create_experiment("vision", tags={"k": "v"})
    assert type(experiment_id) is str
    run = client.create_run(experiment_id, 5, {"mlflow.user": "eve", "mlflow.parentRunId": "p" * 32}, "r1")
    run_id = run.info.run_id
    assert (run.info.user_id, run.info.start_time, run.info.run_name) == ("eve", 5, "r1")
    client.log_metric(run_id, "m", 1, 10, 2, synchronous=True)
    assert FileStore(tmp_path / "store").root
    assert (tmp_path / "store" / experiment_id / run_id / "metrics/m").read_text() == "10 1.0 2\n"
    assert client.log_param(run_id, "p", 3) == 3
    client.set_tag(run_id, "t", "v")
    client.log_batch(run_id, [Metric("m", 2.0, 11, 3)], [Param("q", "1")], [RunTag("u", "1")], synchronous=True)
    assert client.search_runs([experiment_id], "params.q = '1'").token is None
    with pytest.raises(NotFoundError):
        client.get_parent_run(run_id)
    with pytest.raises(InvalidInputError, match="dataset_name"):
        client.log_metric(run_id, "m", 1, dataset_name="d")
    with pytest.raises(InvalidInputError, match="registry_uri"):
        MlflowClient(registry_uri="sqlite:///x.db")
    client.set_terminated(run_id)
    assert client.get_run(run_id).data.metrics == {"m": 2.0}
    assert repr(client) == f"MlflowClient({(tmp_path / 'store').as_uri()!r})"


# ── what this process is still uploading


def test_reading_artifacts_waits_for_what_this_process_has_logged_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `get_run` does; of that run alone."""
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "1000")
    set_tracking_uri(tmp_path / "store")
    client = MlflowClient()
    with asynctrack.start_run() as run:
        for name in ("a.txt", "b.txt"):
            run.log_text(name, f"notes/{name}")
            assert name in [Path(info.path).name for info in client.list_artifacts(run.run_id, "notes")]
        run.log_text("c", "c.txt")
        assert Path(client.download_artifacts(run.run_id, "c.txt", tmp_path)).read_text() == "c"


@pytest.mark.anyio
async def test_and_so_does_an_awaited_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_FLUSH_INTERVAL", "1000")
    service = get_async_service(tmp_path / "store")
    async with service, asynctrack.start_run(tracking_uri=service.tracking_uri) as run:
        run.log_text("a", "a.txt")
        assert [info.path for info in await service.list_artifacts(run.run_id)] == ["a.txt"]
