"""How many requests a server is given at once, and what keeps its order meanwhile."""

from __future__ import annotations

import threading

import pytest

import asynctrack
from tests import faults
from tests.exchange import Exchange
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer


class Busy(Fault):
    """A distant server: each request takes a while. Notes how many were under way when each arrived, by path."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: list[int] = []
        self.params_under_way = self.most_params = 0

    async def act(self, exchange: Exchange) -> None:
        await exchange.prefetch()
        ordered = b'"params"' in exchange.record.body or b'"tags"' in exchange.record.body
        self.seen.append(exchange.proxy.in_flight)
        self.params_under_way += ordered
        self.most_params = max(self.most_params, self.params_under_way)
        try:
            await faults.Delay(before=self.seconds).act(exchange)
        finally:
            self.params_under_way -= ordered


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


def test_batches_of_a_run_overlap_when_the_server_is_far_away_and_params_and_tags_keep_their_order(
    sqlite_server: MlflowServer,
) -> None:
    """The limit rises while requests take no longer for it; only one batch with params or tags is under way at once."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(busy := Busy(0.3), path="log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            for step in range(20_000):
                run.log_metric(support.KEYS[step % 4], step * 0.25, step)
                if step % 4000 == 0:
                    run.set_tag("last", step)
                    run.log_param(f"q{step}", step)
        assert max(busy.seen) >= 2
        assert busy.most_params == 1
    found = support.stored(sqlite_server, run.run_id)
    assert found.points == support.expected()
    assert found.tags["last"] == "16000"
    assert len([key for key in found.params if key.startswith("q")]) == 5


def test_an_overloaded_server_is_given_fewer_requests_at_once(sqlite_server: MlflowServer) -> None:
    """Whatever is too much is refused with 503, and comes again; nothing is lost."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(busy := Busy(0.2), path="log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            support.log_events(run, 20_000)
            support.until(lambda: max(busy.seen, default=0) >= 2 or run.stats().pending == 0)
            proxy.heal()
            proxy.always(faults.Overload(1), path="log-batch")
            before = len(proxy.requests_to("log-batch"))
            for step in range(20_000, 30_000):
                run.log_metric(support.KEYS[step % 4], step * 0.25, step)
        later = [record.status for record in proxy.requests_to("log-batch")[before:]]
    assert later.count(503) <= len(later) // 2
    found = support.stored(sqlite_server, run.run_id)
    assert found.points == support.expected(30_000)


def test_many_runs_at_once_are_all_stored(postgres_server: MlflowServer) -> None:
    """Eight threads, each with a run of its own."""
    asynctrack.set_tracking_uri(postgres_server.url)
    experiment = support.fresh()
    ids: list[str] = []

    def work() -> None:
        with asynctrack.start_run(experiment_name=experiment, strict=True) as run:
            support.log_events(run, 2000, pace=0.0)
        ids.append(run.run_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(support.runs_of(postgres_server, experiment)) == sorted(ids)
    for run_id in ids:
        support.assert_all_stored(postgres_server, run_id, 2000)


def test_connections_are_kept_and_their_idle_end_is_not_noticed(
    sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server closes them after a few seconds; the next request simply takes another one."""
    with FaultProxy(sqlite_server.url) as proxy:
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            for step in range(10):
                run.log_metric("a", step, step)
                run.flush()
            assert proxy.connections <= 3
            for step in range(10, 15):
                proxy.close_idle()
                run.log_metric("a", step, step)
                run.flush()
        assert run.stats().retries == 0
    assert support.spoken(caplog) == []
    assert support.stored(sqlite_server, run.run_id).points == [("a", step, float(step)) for step in range(15)]
