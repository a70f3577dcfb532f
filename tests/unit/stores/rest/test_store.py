"""What RestStore makes of a server's answers, where a real server would not give them on request."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.rest.store import UID_TAG, RestStore
from asynctrack.stores.uri import open_store
from tests import faults
from tests.faults import Answer
from tests.proxy import FaultProxy

RUN = {"run": {"info": {"run_id": "a1", "experiment_id": "0", "status": "RUNNING", "start_time": 1}}}


def says(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), (("Content-Type", "application/json"),))


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Answers everything with ``{}``."""
    with FaultProxy(None) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> Iterator[RestStore]:
    store = open_store(proxy.url, InlineIO())
    assert isinstance(store, RestStore)
    yield store
    drive(store.aclose())


def test_a_run_is_created_with_a_tag_of_its_own(proxy: FaultProxy, store: RestStore) -> None:
    """By which it is found again; its name goes into its field, not into a tag, which could contradict it."""
    proxy.plan(says(RUN), path="runs/create")
    spec = RunSpec(uid="f" * 32, run_name="n", user_id="u", start_time=7, tags={"mlflow.runName": "other", "t": "v"})
    assert drive(store.create_run(spec)).run_id == "a1"
    (request,) = proxy.requests
    assert request.json() == {
        "experiment_id": "0",
        "user_id": "u",
        "start_time": 7,
        "run_name": "n",
        "tags": [{"key": "t", "value": "v"}, {"key": UID_TAG, "value": "f" * 32}],
    }


def test_a_run_that_may_exist_already_is_looked_for_and_never_created_blindly(
    proxy: FaultProxy, store: RestStore
) -> None:
    """Deleted ones too: somebody may have deleted it meanwhile."""
    spec = RunSpec(uid="f" * 32)
    proxy.plan(faults.Silent(0.0), path="runs/create")
    with pytest.raises(UnavailableError):
        drive(store.create_run(spec))
    proxy.plan(says({"runs": [RUN["run"]]}), path="runs/search")
    assert drive(store.create_run(spec)).run_id == "a1"
    assert [record.path.rpartition("/")[2] for record in proxy.requests] == ["create", "search"]
    assert proxy.requests[1].json()["filter"] == f"tags.`{UID_TAG}` = '{'f' * 32}'"
    assert proxy.requests[1].json()["run_view_type"] == "ALL"


def test_a_server_is_asked_once_whether_it_keeps_doubles(proxy: FaultProxy, store: RestStore) -> None:
    """One with a database does not: no bookmark is kept, nothing read back."""
    proxy.plan(says({"store_type": "SqlStore"}), path="server-info")
    for _ in range(3):
        assert drive(store.bookmark("a1", Batch(params=[("p", "1")]))) is None
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("info", [{"store_type": "FileStore"}, {}, None])
def test_whoever_does_not_say_that_it_merges_doubles_is_taken_to_keep_them(
    info: dict[str, str] | None, proxy: FaultProxy, store: RestStore
) -> None:
    """An older server has no such route at all."""
    proxy.plan(faults.html(404) if info is None else says(info), path="server-info")
    assert drive(store.bookmark("a1", Batch(params=[("p", "1")]))) is True


def test_after_a_doubtful_failure_only_what_is_missing_is_sent(proxy: FaultProxy, store: RestStore) -> None:
    """The history is read page by page."""
    proxy.plan(says({"store_type": "FileStore"}), path="server-info")
    bookmark = drive(store.bookmark("a1", Batch()))
    first = {"metrics": [{"key": "m", "value": 1.0, "timestamp": 1, "step": 1}], "next_page_token": "more"}
    second = {"metrics": [{"key": "m", "value": "NaN", "timestamp": 2, "step": 2}]}
    proxy.plan(says(first), says(second), path="get-history")
    batch = Batch({"m": [(1, 1, 1.0), (2, 2, float("nan")), (3, 3, 3.0)]}, [("p", "1")])
    assert drive(store.log_batch("a1", batch, bookmark)) == []
    sent = proxy.requests_to("log-batch")[0].json()
    assert [metric["step"] for metric in sent["metrics"]] == [3]
    assert sent["params"] == [{"key": "p", "value": "1"}]


def test_a_batch_over_a_megabyte_goes_in_pieces(proxy: FaultProxy, store: RestStore) -> None:
    """Of at most a megabyte each."""
    batch = Batch(tags=[(f"t{number}", "x" * 90_000) for number in range(50)])
    assert drive(store.log_batch("a1", batch)) == []
    sizes = [record.size for record in proxy.requests_to("log-batch")]
    assert max(sizes) <= 1_000_000
    assert 5 <= len(sizes) <= 8
    assert sum(len(record.json()["tags"]) for record in proxy.requests) == 50


def test_events_of_a_run_that_is_gone_are_refused_with_one_reason(proxy: FaultProxy, store: RestStore) -> None:
    """Deleted, or never there."""
    batch = Batch({"m": [(1, 1, 1.0), (2, 2, 2.0)]}, [("p", "1")])
    proxy.plan(faults.error(404, "RESOURCE_DOES_NOT_EXIST", "Run with id=a1 not found"), path="log-batch")
    refusals = drive(store.log_batch("a1", batch))
    assert len(refusals) == 3
    assert len({refusal.reason for refusal in refusals}) == 1
    text = "The run a1 must be in the 'active' state. Current state is deleted."
    proxy.plan(faults.error(400, "INVALID_PARAMETER_VALUE", text), path="log-batch")
    proxy.plan(says({"run": {"info": {"run_id": "a1", "lifecycle_stage": "deleted"}}}), path="runs/get")
    assert {refusal.reason for refusal in drive(store.log_batch("a1", batch))} == {
        "run a1 is deleted; restore it to log to it"
    }


def test_a_refusal_that_names_no_culprit_is_the_engines_to_isolate(proxy: FaultProxy, store: RestStore) -> None:
    """It halves the batch."""
    proxy.plan(faults.error(400, "INVALID_PARAMETER_VALUE", "some value is wrong"), path="log-batch")
    with pytest.raises(RefusedError) as raised:
        drive(store.log_batch("a1", Batch({"m": [(1, 1, 1.0)]})))
    assert raised.value.splittable


def test_a_status_that_is_none_is_refused_before_the_server_ignores_it(proxy: FaultProxy, store: RestStore) -> None:
    """It would answer 200."""
    with pytest.raises(RefusedError, match="BOGUS"):
        drive(store.update_run("a1", status="BOGUS"))
    assert proxy.requests == []


def test_arguments_of_the_wrong_type_are_refused_before_the_server_takes_them_for_absent(store: RestStore) -> None:
    """IDs are strings."""
    with pytest.raises(InvalidInputError, match="not a string"):
        drive(store.get_run(7))  # type: ignore[arg-type]  # what a user without a type checker writes
    with pytest.raises(InvalidInputError, match="at least 1"):
        drive(store.search_runs(["0"], max_results=0))


def test_a_metric_without_points_of_a_run_that_is_not_there_is_said(proxy: FaultProxy, store: RestStore) -> None:
    """A server with a database answers an empty history then."""
    proxy.plan(faults.error(404, "RESOURCE_DOES_NOT_EXIST", "Run with id=a1 not found"), path="runs/get")
    with pytest.raises(NotFoundError, match="a1"):
        drive(store.get_metric_history("a1", "m"))


def test_what_a_server_will_not_keep_is_said_once_of_each_kind(
    store: RestStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Values longer than it stores, and NULs."""
    caplog.set_level(logging.WARNING, "asynctrack")
    for _ in range(2):
        drive(store.log_batch("a1", Batch(params=[("p", "x" * 6001), ("q", "\0")], tags=[("t", "x" * 8000)])))
    assert [("NUL" in record.getMessage(), "6001" in record.getMessage()) for record in caplog.records] == [
        (False, True),
        (True, False),
    ]


def test_it_shows_no_credential_and_has_a_twin_for_those_who_wait_otherwise(store: RestStore) -> None:
    """The same server over another way to wait."""
    twin = store.over(InlineIO())
    assert twin is not store
    assert twin.uri == store.uri
    assert repr(twin) == f"RestStore({store.uri!r})"
