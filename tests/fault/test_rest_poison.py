"""Events that a server refuses, or fails at, for good: they alone end in ``rejected.jsonl``, and cost few requests."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import DeliveryError
from tests import faults
from tests.proxy import FaultProxy
from tests.rest import support
from tests.rest.support import assert_quick, expected, log_events, spoken
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


def rejected() -> Iterator[dict[str, Any]]:
    """What is kept of what the store refused, in the order in which it did."""
    for path in Path(".asynctrack").glob("*/rejected.jsonl"):
        for line in path.read_text().splitlines():
            yield json.loads(line)


@pytest.mark.parametrize(
    ("kind", "status"), [("sqlite", 400), ("postgres", 400), ("file", 500)], ids=["sqlite", "postgres", "files"]
)
def test_a_param_that_has_another_value_already_is_refused_alone(
    kind: str, status: int, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else wrote it first; a file-backed server says so with an internal error, again and again."""
    server: MlflowServer = request.getfixturevalue(f"{kind}_server")
    with FaultProxy(server.url) as proxy:
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            asynctrack.get_service(server.url).log_param(run.run_id, "p7000", "somebody else's")
            took = log_events(run)
            with pytest.raises(DeliveryError, match="p7000"):
                run.flush()
            assert run.stats().rejected == 1
            (refused,) = rejected()
        failed = [record for record in proxy.requests_to("log-batch") if record.status != 200]
        probes = [record for record in proxy.requests if "-tag" in record.path]
    assert (refused["kind"], refused["key"], refused["value"]) == ("param", "p7000", "7000")
    assert {record.server_status for record in failed} == {status}
    # Whole, each half that holds it, and it alone; a batch that meets with a failure is first tried again.
    assert len(failed) <= math.log2(1000) + 1 + (3 if status == 500 else 0) + 1
    assert len(probes) == (2 if status == 500 else 0)
    found = support.stored(server, run.run_id)
    assert found.points == expected()
    assert found.params["p7000"] == "somebody else's"
    assert len([key for key in found.params if key.startswith("p")]) == 20
    assert len([text for text in spoken(caplog) if "refused param 'p7000'" in text]) == 1
    assert_quick(took)


def test_a_metric_that_a_file_backed_server_cannot_hold_is_refused_alone(
    file_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where another metric's name makes a folder of its file the server fails for good, and everything else is
    stored once."""
    with (
        FaultProxy(file_server.url) as proxy,
        asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run,
    ):
        asynctrack.get_service(file_server.url).log_metric(run.run_id, "clash/deep", 1.0)
        took = log_events(run, at={10_000: lambda: run.log_metric("clash", 0.5, 1)})
        with pytest.raises(DeliveryError, match="clash"):
            run.flush()
        assert run.stats().rejected == 1
        (refused,) = rejected()
    assert (refused["kind"], refused["key"], refused["value"], refused["step"]) == ("metric", "clash", "0.5", 1)
    found = support.stored(file_server, run.run_id)
    assert [point for point in found.points if "clash" not in point[0]] == expected()
    assert_quick(took)


def test_a_deleted_run_costs_only_its_own_events_and_no_search_for_the_guilty_one(
    sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them are kept with one reason; another run of the process goes on."""
    with FaultProxy(sqlite_server.url) as proxy:
        asynctrack.set_tracking_uri(proxy.url)
        with asynctrack.start_run(experiment_name=support.fresh()) as other:
            with asynctrack.start_run(experiment_name=support.fresh(), nested=True) as deleted:
                log_events(deleted, 3000)
                deleted.flush()
                asynctrack.get_service(sqlite_server.url).delete_run(deleted.run_id)
                before = len(proxy.requests)
                for step in range(20_000, 25_000):
                    deleted.log_metric("late", step, step)
                with pytest.raises(DeliveryError, match=r"is deleted; restore it"):
                    deleted.flush()
                assert len(proxy.requests) - before <= 2 * (5 + 2)
            took = log_events(other)
        lines = list(rejected())
    assert len([line for line in lines if line["kind"] == "metric"]) == 5000
    assert {line["run_id"] for line in lines} == {deleted.run_id}
    assert len({line["reason"] for line in lines if line["kind"] == "metric"}) == 1
    assert support.stored(sqlite_server, deleted.run_id).points == expected(3000)
    support.assert_all_stored(sqlite_server, other.run_id)
    assert len([text for text in spoken(caplog) if "refused metric" in text]) == 1
    assert_quick(took)


def test_a_server_that_cannot_write_at_all_convicts_nobody(sqlite_server: MlflowServer) -> None:
    """Its disk is full, say: it fails at everything, also at what it is asked as a test, and everything is kept."""
    with (
        FaultProxy(sqlite_server.url) as proxy,
        asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run,
    ):
        run.flush()
        for path in ("log-batch", "set-tag"):
            proxy.always(faults.unavailable(500), path=path)
        log_events(run)
        proxy.wait_for(3, "set-tag")
        assert run.stats().rejected == 0
        proxy.heal()
    support.assert_all_stored(sqlite_server, run.run_id)
