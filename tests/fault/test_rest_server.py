"""A server that goes away, comes back, is slow, asks for patience or does not know us, while programs log to it."""

from __future__ import annotations

import itertools
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import asynctrack
from asynctrack.delivery import retry
from tests import faults
from tests.exchange import Exchange
from tests.fault import programs
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.rest.support import assert_all_stored, assert_quick, log_events, spoken
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_server_that_is_ended_in_the_middle_and_started_again(
    how: str, sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Gracefully or by SIGKILL: each event is stored once."""

    def come_back() -> None:
        if how == "kill":
            sqlite_server.kill()
            sqlite_server.start()
        else:
            sqlite_server.restart()

    comes_back = threading.Thread(target=come_back)
    with asynctrack.start_run(tracking_uri=sqlite_server.url, experiment_name=support.fresh(), strict=True) as run:
        took = log_events(run, at={8000: comes_back.start})
        comes_back.join()
    assert_all_stored(sqlite_server, run.run_id)
    assert len(spoken(caplog, about=run.tracking_uri)) == 2, "once that it is away, once that it is back"
    assert_quick(took)


AMBIGUOUS: dict[str, Fault] = {
    "lost": faults.LoseAnswer(),
    "cut": faults.CutResponse(150),
    "replaced by a gateway's 504": faults.unavailable(504, applied=True),
    "replaced by the server's 500": faults.unavailable(500, applied=True),
    "garbage": faults.garbage(applied=True),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_a_file_backed_server_keeps_no_doubles_when_the_answer_was(what: str, file_server: MlflowServer) -> None:
    """It would keep them: what it has is read back before the rest is sent."""
    with FaultProxy(file_server.url) as proxy:
        proxy.plan(None, *[AMBIGUOUS[what], AMBIGUOUS[what], None] * 3, path="log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            log_events(run, 6000)
            run.log_metric("nan", float("nan"), 1)
            run.log_metric("inf", float("inf"), 1)
    found = support.stored(file_server, run.run_id)
    assert [point for point in found.points if point[0] in support.KEYS] == support.expected(6000)
    assert len(found.points) == 6002


@pytest.mark.parametrize("status", [200, 404])
def test_an_application_in_the_servers_place_for_a_while_takes_and_refuses_nothing(
    status: int, sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """It answers everything, in JSON: neither a run that begins then is lost, nor an end, nor an artifact."""
    (tmp_path / "a.txt").write_text("a")
    experiment = support.fresh()
    with FaultProxy(sqlite_server.url) as proxy:
        asynctrack.set_tracking_uri(proxy.url)
        first = asynctrack.start_run(experiment_name=experiment)
        first.flush()
        proxy.always(faults.foreign(status))
        second = asynctrack.start_run(experiment_name=experiment, nested=True, wait=False)
        for run in (second, first):
            log_events(run, 3000)
            run.log_artifact(tmp_path / "a.txt")
        ends = [threading.Thread(target=run.terminate) for run in (second, first)]
        for end in ends:
            end.start()
        seen = len(proxy.requests)
        support.until(lambda: len(proxy.requests) > seen + 20)
        proxy.heal()
        for end in ends:
            end.join()
        asynctrack.shutdown()
        assert [run.stats().rejected for run in (first, second)] == [0, 0]
    run_ids = support.runs_of(sqlite_server, experiment)
    assert len(run_ids) == 2
    for run_id in run_ids:
        support.assert_all_stored(sqlite_server, run_id, 3000)
        ((place,),) = sqlite_server.rows("SELECT artifact_uri FROM runs WHERE run_uuid = :run", run=run_id)
        stored = sqlite_server.artifacts / place.removeprefix("mlflow-artifacts:/") / "a.txt"
        assert stored.read_text() == "a"


def test_a_database_that_is_read_only_for_a_while_has_refused_nothing(postgres_server: MlflowServer) -> None:
    """As one is that is about to hand over to another: its server says BAD_REQUEST to all that would change it."""
    address = postgres_server.backend.replace("+psycopg", "")

    def make(setting: str) -> None:
        with psycopg.connect(address, autocommit=True) as sql:
            sql.execute("SET default_transaction_read_only = off")
            sql.execute(f"ALTER DATABASE postgres SET default_transaction_read_only = {setting}".encode())
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
            )

    with FaultProxy(postgres_server.url) as proxy:
        run = asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True)
        run.flush()
        try:
            make("on")
            log_events(run, 3000)
            end = threading.Thread(target=run.terminate)
            end.start()
            support.until(lambda: [request.status for request in proxy.requests].count(400) > 10)
        finally:
            make("off")
        end.join()
    assert run.stats().rejected == 0
    support.assert_all_stored(postgres_server, run.run_id, 3000)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_heeded(form: str, sqlite_server: MlflowServer) -> None:
    """In both of its forms: no request of the run comes earlier, although others of its batches succeed."""
    with FaultProxy(sqlite_server.url) as proxy:
        times: list[tuple[float, Fault | None]] = []
        wanted: list[Fault | None] = []

        def draw() -> Fault | None:
            if not wanted:
                when = 2 if form == "seconds" else datetime.now(UTC) + timedelta(seconds=3)
                wanted.append(faults.too_many(when))
                times.append((time.monotonic(), wanted[0]))
                return wanted[0]
            times.append((time.monotonic(), None))
            return None

        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            run.flush()
            proxy.always(draw, path="log-batch")
            log_events(run, 5000)
    refused_at = times[0][0]
    assert not [moment for moment, fault in times[1:] if 0.5 < moment - refused_at < 1.9]
    assert_all_stored(sqlite_server, run.run_id, 5000)


def test_attempts_come_at_growing_random_intervals(
    sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a thousand programs do not come back at once."""
    monkeypatch.setattr(retry, "_BASE", 0.05)
    monkeypatch.setattr(retry, "_CAP", 10.0)
    times: list[float] = []

    def draw() -> Fault | None:
        times.append(time.monotonic())
        return faults.unavailable(503) if len(times) <= 6 else None

    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(draw, path="runs/create")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True):
            pass
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(waits) == 6
    for attempt, wait in enumerate(waits):
        assert wait >= 0.005 * 2**attempt, "a tenth of the ceiling at the least"
    assert len({round(wait / 2**attempt, 3) for attempt, wait in enumerate(waits)}) > 1, "at random"


def test_events_are_held_while_the_credentials_are_wrong_and_shipped_once_the_environment_is_mended(
    auth_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, and once that it is over."""
    assert auth_server.credentials is not None
    name, password = auth_server.credentials
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with (
        FaultProxy(auth_server.url) as proxy,
        asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run,
    ):
        run.flush()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "rotated away")
        took = log_events(run)
        proxy.wait_for(5, "log-batch")
        assert {record.status for record in proxy.requests_to("log-batch")} == {401}
        assert run.stats().rejected == 0
        (warning,) = spoken(caplog, about=run.tracking_uri)
        assert "MLFLOW_TRACKING_PASSWORD" in warning
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert_all_stored(auth_server, run.run_id)
    assert len(spoken(caplog, about=run.tracking_uri)) == 2
    assert "again" in spoken(caplog, about=run.tracking_uri)[1]
    assert_quick(took)


def test_a_user_who_may_not_write_is_told_so(auth_server: MlflowServer) -> None:
    """403, from MLflow's basic-auth app: as loudly as a wrong password, and nothing is dropped."""
    assert auth_server.credentials is not None
    asynctrack.configure(close_timeout=1.0)
    auth_server.add_user(name := support.fresh("ada"), "a long password")
    host = auth_server.url.removeprefix("http://")
    owner = asynctrack.get_service(f"http://{':'.join(auth_server.credentials)}@{host}")
    experiment = owner.create_experiment(support.fresh())
    asynctrack.set_tracking_uri(f"http://{name}:a%20long%20password@{host}")
    with (
        pytest.raises(asynctrack.AuthenticationError, match="may not do this"),
        asynctrack.start_run(experiment_id=experiment),
    ):
        pass
    asynctrack.shutdown()


def test_a_token_function_that_returns_a_good_token_again_ships_what_was_held(
    sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked before each request."""
    token = ["good"]
    asynctrack.configure(token=lambda: token[0])
    with FaultProxy(sqlite_server.url) as proxy:

        class Checked(Fault):
            async def act(self, exchange: Exchange) -> None:
                good = exchange.record.header("authorization") == "Bearer good"
                await (exchange.relay() if good else faults.unauthorized().act(exchange))

        proxy.always(Checked())
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            run.flush()
            token[0] = "expired"
            log_events(run)
            support.until(lambda: [record.status for record in proxy.requests].count(401) >= 3)
            token[0] = "good"
    assert_all_stored(sqlite_server, run.run_id)
    assert len(spoken(caplog, about=run.tracking_uri)) == 2


def test_a_run_whose_requests_are_never_answered_delays_no_other(sqlite_server: MlflowServer) -> None:
    """Nor does one that is refused, or told to wait."""
    asynctrack.configure(close_timeout=1.0)
    with FaultProxy(sqlite_server.url) as proxy:
        asynctrack.set_tracking_uri(proxy.url)
        runs = [asynctrack.start_run(experiment_name=support.fresh(), nested=True) for _ in range(3)]
        for run in runs:
            run.flush()
        proxy.always(faults.Silent(), body=runs[0].run_id.encode())
        proxy.always(faults.too_many(600), body=runs[1].run_id.encode())
        for run in runs:
            log_events(run, 3000)
        begun = time.monotonic()
        runs[2].flush()
        assert time.monotonic() - begun < 30.0
        assert runs[0].stats().delivered + runs[1].stats().delivered < 6000
        proxy.heal()
        runs[0].flush()
        asynctrack.shutdown()
    assert support.stored(sqlite_server, runs[0].run_id).points == support.expected(3000)
    found = support.stored(sqlite_server, runs[2].run_id)
    assert found.points == support.expected(3000)


ENDS: dict[str, Fault] = {
    "stays silent": faults.Silent(),
    "is down": faults.Refuse(),
    "answers a byte now and then": faults.Drip(1, 1.0),
    "is overloaded": faults.unavailable(503, 3600),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_program_ends_in_time_and_its_events_are_kept_when_the_server(
    what: str, sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    """The next program delivers them, once."""
    experiment = support.fresh()
    environment = {"ASYNCTRACK_CLOSE_TIMEOUT": "2", "MLFLOW_EXPERIMENT_NAME": experiment}
    with FaultProxy(sqlite_server.url) as proxy:
        environment["MLFLOW_TRACKING_URI"] = proxy.url
        process = programs.start(
            programs.COUNTING + "with asynctrack.start_run() as run:\n"
            "    run.flush(); print('created', flush=True); input()\n"
            "    log_some(run, 20000)\n",
            tmp_path,
            **environment,
        )
        assert programs.line_for(process) == "created"
        proxy.always(ENDS[what])
        begun = time.monotonic()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        result = programs.finish(process)
        assert time.monotonic() - begun < 15.0, result.stderr
        assert result.returncode == 0
        assert "are kept in" in result.stderr
        proxy.heal()
        programs.recover(tmp_path, **environment | {"ASYNCTRACK_CLOSE_TIMEOUT": "60"})
    run_ids = support.runs_of(sqlite_server, experiment)
    assert len(run_ids) == 2
    points = [support.stored(sqlite_server, run_id).points for run_id in run_ids]
    assert sorted(points, key=len)[1] == [("loss", step, step * 0.25) for step in range(20_000)]
    assert programs.spools(tmp_path) == []
