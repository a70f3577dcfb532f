"""What goes over the wire: bulk, within the server's limits, and as strict as its parser needs."""

from __future__ import annotations

import math

import pytest

import asynctrack
from asynctrack.errors import DeliveryError
from tests import faults
from tests.exchange import Exchange, Recorded
from tests.faults import Fault
from tests.proxy import FaultProxy
from tests.rest import support
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


def assert_within_limits(record: Recorded) -> None:
    """As MLflow documents them, and Databricks enforces them."""
    assert record.size <= 1_000_000
    sent = record.json()  # fails on NaN, Infinity, and keys that come twice
    assert set(sent) <= {"run_id", "metrics", "params", "tags"}
    metrics, params, tags = (sent.get(name, []) for name in ("metrics", "params", "tags"))
    assert len(metrics) <= 1000
    assert len(params) <= 100
    assert len(tags) <= 100
    assert 0 < len(metrics) + len(params) + len(tags) <= 1000
    assert len({param["key"] for param in params}) == len(params)
    assert len({tag["key"] for tag in tags}) == len(tags)
    for metric in metrics:
        assert set(metric) == {"key", "value", "timestamp", "step"}
        assert type(metric["step"]) is type(metric["timestamp"]) is int
        assert type(metric["value"]) is float or metric["value"] in ("NaN", "Infinity", "-Infinity")
    for entry in params + tags:
        assert set(entry) == {"key", "value"}
        assert type(entry["value"]) is str


def test_every_request_keeps_to_the_limits_and_to_strict_json(sqlite_server: MlflowServer) -> None:
    """Whatever is logged: many params and tags at once, large values, special numbers, all of Unicode."""
    with FaultProxy(sqlite_server.url) as proxy:
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            run.log_params({f"p{number}": "ü" * 5000 for number in range(350)})
            run.set_tags({f"t{number}": f'\x01"\\日本 {"x" * 7000}' for number in range(350)})
            for number in range(250):
                run.set_tag("again", number)
            for step in range(5000):
                run.log_metric("x", (math.nan, math.inf, -math.inf, step)[step % 4], step)
            run.log_param("one", "1")
            run.log_param("one", "1")
        records = proxy.requests_to("log-batch")
        for record in records:
            assert_within_limits(record)
        for record in proxy.requests:
            names = {name for name, _ in record.headers}
            assert not names & {"transfer-encoding", "content-encoding", "origin"}
            if record.method == "POST":
                assert record.header("content-length") == str(record.size)
                assert record.header("content-type") == "application/json"
                record.json()
        # 5000 points, 350 params and 350 tags in 17 bodies at the least, were they all full.
        assert len(records) <= 40
    found = support.stored(sqlite_server, run.run_id)
    assert len(found.params) == 351
    assert found.tags["again"] == "249"
    assert found.tags["t7"] == f'\x01"\\日本 {"x" * 7000}'
    assert len(found.points) == 5000
    assert sum(math.isnan(value) for _, _, value in found.points) == 1250


def test_a_value_of_any_size_is_sent_and_cut_as_the_server_cuts_it(
    sqlite_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And a warning says so, once."""
    with FaultProxy(sqlite_server.url) as proxy:
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            run.set_tags({f"t{number}": "\x02" * 3_000_000 for number in range(3)})
            run.log_param("p", "ü" * 3_000_000)
        for record in proxy.requests_to("log-batch"):
            assert_within_limits(record)
    found = support.stored(sqlite_server, run.run_id)
    assert [found.tags[f"t{number}"] for number in range(3)] == ["\x02" * 8000] * 3
    assert found.params["p"] == "ü" * 6000
    assert [text for text in support.spoken(caplog) if "3000000 characters" in text] == support.spoken(caplog)
    assert len(support.spoken(caplog)) == 2


def test_a_long_description_does_not_keep_a_run_from_being_created(postgres_server: MlflowServer) -> None:
    """PostgreSQL refuses at creation what MLflow's server cuts off later."""
    with asynctrack.start_run(
        tracking_uri=postgres_server.url,
        experiment_name=support.fresh(),
        description="d" * 9000,
        run_name="n" * 300,
        tags={"mlflow.user": "u" * 300},
        strict=True,
    ) as run:
        run.log_metric("a", 1.0)
    found = support.stored(postgres_server, run.run_id)
    assert found.tags["mlflow.note.content"] == "d" * 8000
    assert found.points == [("a", 0, 1.0)]


def test_a_nul_is_replaced_where_postgresql_cannot_hold_it(
    postgres_server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And a warning says so, once."""
    with asynctrack.start_run(
        tracking_uri=postgres_server.url, experiment_name=support.fresh(), tags={"t": "a\0b"}, strict=True
    ) as run:
        run.log_params({"p": "\0", "q": "\\u0000 \\\0"})
        run.set_tag("u", "x\0y")
    found = support.stored(postgres_server, run.run_id)
    assert found.params == {"p": "\ufffd", "q": "\\u0000 \\\ufffd"}
    assert {key: found.tags[key] for key in "tu"} == {"t": "a\ufffdb", "u": "x\ufffdy"}
    assert len([text for text in support.spoken(caplog) if "NUL" in text]) == 2, "one for params, one for tags"


class NoLargeBodies(Fault):
    """What nginx does with ``client_max_body_size``, here 20 kB."""

    async def act(self, exchange: Exchange) -> None:
        large = int(exchange.record.header("content-length")) > 20_000
        await (faults.too_large(early=True).act(exchange) if large else exchange.relay())


def test_a_body_too_large_for_something_on_the_way_is_split_until_it_passes(sqlite_server: MlflowServer) -> None:
    """Nothing is refused, and nothing lost."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(NoLargeBodies(), path="log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh(), strict=True) as run:
            for step in range(1000):
                run.log_metric("x" * 200, step, step)
        assert {413, 200} == {record.status for record in proxy.requests_to("log-batch")}
        assert max(record.size for record in proxy.requests_to("log-batch") if record.status == 200) <= 20_000
    assert len(support.stored(sqlite_server, run.run_id).points) == 1000


def test_an_event_that_nothing_lets_through_is_refused_alone(sqlite_server: MlflowServer) -> None:
    """And the others are stored."""
    with FaultProxy(sqlite_server.url) as proxy:
        proxy.always(NoLargeBodies(), path="log-batch")
        with asynctrack.start_run(tracking_uri=proxy.url, experiment_name=support.fresh()) as run:
            support.log_events(run, 1000)
            run.log_param("long", "x" * 30_000)
            with pytest.raises(DeliveryError, match="does not let a request of this size pass"):
                run.flush()
    support.assert_all_stored(sqlite_server, run.run_id, 1000)
