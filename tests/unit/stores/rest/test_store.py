"""What RestStore makes of a server's answers, where a real server would not give them on request."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from asynctrack.constants import UID_TAG
from asynctrack.entities import Dataset, DatasetInput, LoggedModelOutput
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError, WrongServerError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.rest.store import RestStore
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
    """By which it is found again; its name goes into its field, and into its tag, where servers before 1.30 look."""
    proxy.plan(says(RUN), path="runs/create")
    spec = RunSpec(uid="f" * 32, run_name="n", user_id="u", start_time=7, tags={"mlflow.runName": "other", "t": "v"})
    assert drive(store.create_run(spec)).run_id == "a1"
    (request,) = proxy.requests
    assert request.json() == {
        "experiment_id": "0",
        "user_id": "u",
        "start_time": 7,
        "run_name": "n",
        "tags": [
            {"key": "mlflow.runName", "value": "n"},
            {"key": "t", "value": "v"},
            {"key": UID_TAG, "value": "f" * 32},
        ],
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


def test_what_a_server_does_not_know_again_is_not_sent_for_ever(proxy: FaultProxy, store: RestStore) -> None:
    """A NaN that is stored is another one to MLflow before 3.17, and the same to its database, which refuses it."""
    text = f"(raised by autoflush) (sqlite3.IntegrityError) UNIQUE constraint failed: metrics.key {'x' * 500}"
    proxy.plan(faults.error(400, "BAD_REQUEST", text), path="log-batch")
    proxy.plan(says({"metrics": [{"key": "m", "value": "NaN", "timestamp": 1, "step": 1}]}), path="get-history")
    nan = float("nan")
    batch = Batch({"m": [(1, 1, nan), (2, 2, nan), (2, 2, nan), (3, 3, 3.0)]}, [("p", "1")])
    assert drive(store.log_batch("a1", batch)) == []
    bodies = [record.json() for record in proxy.requests_to("log-batch")]
    assert [[metric["step"] for metric in body["metrics"]] for body in bodies] == [[1, 2, 2, 3], [2, 3]]
    assert [len(body["params"]) for body in bodies] == [1, 1]


def test_a_batch_over_a_megabyte_goes_in_pieces(proxy: FaultProxy, store: RestStore) -> None:
    """Of at most a megabyte each."""
    batch = Batch(tags=[(f"t{number}", "x" * 90_000) for number in range(50)])
    assert drive(store.log_batch("a1", batch)) == []
    sizes = [record.size for record in proxy.requests_to("log-batch")]
    assert max(sizes) <= 1_000_000
    assert 5 <= len(sizes) <= 8
    assert sum(len(record.json()["tags"]) for record in proxy.requests_to("log-batch")) == 50


def test_events_of_a_run_that_is_gone_are_refused_with_one_reason(proxy: FaultProxy, store: RestStore) -> None:
    """Deleted; one that was never there may still come, so that nothing is refused."""
    batch = Batch({"m": [(1, 1, 1.0), (2, 2, 2.0)]}, [("p", "1")])
    proxy.plan(faults.error(404, "RESOURCE_DOES_NOT_EXIST", "Run with id=a1 not found"), path="log-batch")
    with pytest.raises(NotFoundError, match="a1"):
        drive(store.log_batch("a1", batch))
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
        drive(store.log_batch("a1", Batch({"m": [(1, 1, 1.0), (2, 1, 1.0)]})))
    assert raised.value.splittable


def test_a_point_alone_goes_the_servers_shorter_way(proxy: FaultProxy, store: RestStore) -> None:
    drive(store.log_batch("a1", Batch({"m": [(1, 2, math.nan)]})))
    drive(store.log_batch("a1", Batch({"m": [(1, 2, 1.0)]}, [("p", "1")])))
    assert [request.path.rsplit("/", 1)[1] for request in proxy.requests] == ["log-metric", "log-batch"]


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
    proxy: FaultProxy, store: RestStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Values longer than it stores, and NULs."""
    caplog.set_level(logging.WARNING, "asynctrack")
    proxy.plan(Answer(200, b"3.17.2"), path="version")
    for _ in range(2):
        drive(store.log_batch("a1", Batch(params=[("p", "x" * 6001), ("q", "\0")], tags=[("t", "x" * 8000)])))
    assert [("NUL" in record.getMessage(), "6001" in record.getMessage()) for record in caplog.records] == [
        (False, True),
        (True, False),
    ]


OLD = "{kind} value '{value}' had length {length}, which exceeded length limit of {most}"
NEW = {"Param": "'Param value' exceeds the maximum length of {most} characters"}
NEW["Tag"] = "'tags[0].value' exceeds the maximum length of {most} characters"


@pytest.mark.parametrize("kind", ["Param", "Tag"])
@pytest.mark.parametrize("texts", [{"Param": OLD, "Tag": OLD}, NEW], ids=["MLflow before 2.11", "told not to cut"])
def test_a_value_that_a_server_refuses_for_its_length_is_shortened(
    kind: str, texts: dict[str, str], proxy: FaultProxy, store: RestStore, caplog: pytest.LogCaptureFixture
) -> None:
    """To what its refusal says; that is remembered, and the user is told."""
    caplog.set_level(logging.WARNING, "asynctrack")
    text = texts[kind].format(kind=kind, value="x" * 900, length=900, most=500)
    proxy.plan(faults.error(400, "INVALID_PARAMETER_VALUE", text), path="log-batch")
    field = f"{kind.lower()}s"
    for key in ("a", "b"):
        entries = [(kind.lower(), key, "x" * 900), (kind.lower(), "short", "y")]
        batch = Batch.of([("metric", "m", (1, 1, 1.0)), *entries])
        assert drive(store.log_batch("a1", batch)) == []
    sent = [record.json() for record in proxy.requests_to("log-batch")]
    lengths = [[len(entry["value"]) for entry in body[field]] for body in sent]
    assert lengths == [[900, 1], [500, 1], [500, 1]]
    assert all(body["metrics"] for body in sent)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "900 characters; this server keeps 500" in said


@pytest.mark.parametrize(("version", "kept"), [(b"2.14.3", 5000), (b"2.17.0", 8000), (b"3.1.0rc0", 8000), (b"", 5000)])
def test_what_a_server_cuts_in_silence_is_said(
    version: bytes, kept: int, proxy: FaultProxy, store: RestStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Its version tells how much it keeps of a tag; no short value costs the question."""
    caplog.set_level(logging.WARNING, "asynctrack")
    proxy.plan(Answer(200, version) if version else faults.html(404), path="version")
    drive(store.log_batch("a1", Batch(tags=[("t", "x" * 5000)])))
    assert proxy.requests_to("version") == []
    for length in (kept, kept + 1):
        assert caplog.records == []
        drive(store.log_batch("a1", Batch(tags=[("t", "x" * length)])))
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"keeps {kept} of them" in said
    assert ("does not tell its version" in said) == (not version)
    assert len(proxy.requests_to("version")) == 1


def test_a_run_is_created_with_as_much_of_a_tag_as_the_server_keeps(proxy: FaultProxy, store: RestStore) -> None:
    """PostgreSQL fails at a longer one."""
    proxy.plan(Answer(200, b"2.14.3"), path="version")
    proxy.plan(says(RUN), path="runs/create")
    drive(store.create_run(RunSpec(uid="f" * 32, tags={"t": "x" * 6000})))
    assert [len(tag["value"]) for tag in proxy.requests_to("runs/create")[0].json()["tags"]] == [5000, 32]


@pytest.mark.parametrize(
    ("version", "why"),
    [(b"1.29.0", "older than MLflow 1.30"), (b"2.14.3", "A newer MLflow has it"), (b"", "older than MLflow 1.30")],
)
def test_an_endpoint_that_an_old_server_lacks_is_no_wrong_address(
    version: bytes, why: str, proxy: FaultProxy, store: RestStore
) -> None:
    """The server is there, and is MLflow's: it says that it is well."""
    proxy.plan(Answer(200, version) if version else faults.html(404), path="version")
    proxy.plan(Answer(200, b"OK"), path="health")
    proxy.plan(faults.html(404), path="experiments/search")
    with pytest.raises(WrongServerError, match=r"experiments/search: this server, .* has no such endpoint") as raised:
        drive(store.search_experiments())
    assert (version.decode() or "does not tell its version") in str(raised.value)
    assert why in str(raised.value)
    proxy.plan(Answer(200, b"<html>"), path="health")
    proxy.plan(faults.html(404), path="experiments/search")
    with pytest.raises(WrongServerError, match="no MLflow server at this address"):
        drive(store.search_experiments())


def test_it_shows_no_credential_and_has_a_twin_for_those_who_wait_otherwise(store: RestStore) -> None:
    """The same server over another way to wait."""
    twin = store.over(InlineIO())
    assert twin is not store
    assert twin.uri == store.uri
    assert repr(twin) == f"RestStore({store.uri!r})"


@pytest.mark.parametrize("call", ["delete_tag", "delete_experiment", "restore_experiment", "delete_experiment_tag"])
def test_what_was_taken_away_although_the_answer_was_lost_is_not_missed(
    call: str, proxy: FaultProxy, store: RestStore
) -> None:
    """The request is sent again on a new connection, and meets what it has done itself; at first it is an error."""
    missing = faults.error(404, "RESOURCE_DOES_NOT_EXIST", "No such thing")
    arguments = ("a1", "t") if call == "delete_tag" else ("7", "t") if call == "delete_experiment_tag" else ("7",)
    drive(store.search_experiments())  # a connection is kept from then on
    path = {"delete_tag": "delete-tag", "restore_experiment": "experiments/restore"}.get(call, "experiments/delete")
    proxy.plan(faults.Silent(0.0), missing, missing, path=path)
    drive(getattr(store, call)(*arguments))
    with pytest.raises(NotFoundError):
        drive(getattr(store, call)(*arguments))


def test_a_history_that_goes_round_in_a_circle_comes_to_an_end(proxy: FaultProxy, store: RestStore) -> None:
    """A server that gives the same page for ever."""
    point = {"key": "m", "value": 1.0, "timestamp": 1, "step": 1}
    proxy.always(says({"metrics": [point], "next_page_token": "again"}), path="get-history")
    with pytest.raises(UnavailableError, match="without an end"):
        drive(store.get_metric_history("a1", "m"))
    assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"runs": 5},
        {"runs": [7]},
        {"runs": [{"info": {"start_time": "noon"}}]},
        {"runs": [{"data": {"metrics": [{"value": 1}]}}]},
        {"runs": [{"data": {"tags": 3}}]},
    ],
)
def test_an_answer_of_another_shape_is_no_servers_of_mlflow(
    answer: dict[str, object], proxy: FaultProxy, store: RestStore
) -> None:
    """Whoever has answered, another may the next time."""
    proxy.plan(says(answer), path="runs/search")
    with pytest.raises(UnavailableError, match="not what MLflow's servers say"):
        drive(store.search_runs(["0"]))


def test_an_answer_nested_as_deep_as_nobody_means_it_is_not_json(proxy: FaultProxy, store: RestStore) -> None:
    """Whatever its status."""
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for status in (200, 500):
        proxy.plan(faults.Answer(status, deep), path="runs/get")
        with pytest.raises(UnavailableError):
            drive(store.get_run("a1"))


def test_a_creation_that_is_carried_out_after_we_have_looked_leaves_no_second_run(
    proxy: FaultProxy, store: RestStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It had been stuck on its way. What it made is empty, and is deleted when the run ends; one with data stays."""
    spec = RunSpec(uid="f" * 32)
    proxy.plan(faults.Silent(0.0), says(RUN), path="runs/create")
    with pytest.raises(UnavailableError):
        drive(store.create_run(spec))
    assert drive(store.create_run(spec)).run_id == "a1"
    late = {"info": {"run_id": "b2", "lifecycle_stage": "active"}}
    used = {"info": {"run_id": "c3"}, "data": {"params": [{"key": "p", "value": "1"}]}}
    proxy.plan(says({"runs": [RUN["run"], late, used]}), path="runs/search")
    proxy.always(says({"run_info": RUN["run"]["info"]}), path="runs/update")
    for _ in range(2):
        drive(store.update_run("a1", status="FINISHED"))
    assert [record.json() for record in proxy.requests_to("runs/delete")] == [{"run_id": "b2"}]
    assert "b2" in caplog.text


def test_a_run_that_the_server_knows_by_another_name_is_looked_for_once(proxy: FaultProxy, store: RestStore) -> None:
    """By its uid, in every experiment, deleted ones too. One that is nowhere is not found."""
    uid, missing = "f" * 32, faults.error(404, "RESOURCE_DOES_NOT_EXIST", "No such run")
    proxy.plan(missing, path="log-batch", body=uid.encode())
    proxy.plan(says({"experiments": [{"experiment_id": "7"}]}), path="experiments/search")
    proxy.plan(says({"runs": [RUN["run"]]}), path="runs/search")
    for _ in range(3):
        assert drive(store.log_batch(uid, Batch(params=[("p", "1")]))) == []
    assert [record.json()["run_id"] for record in proxy.requests_to("log-batch")] == [uid, "a1", "a1", "a1"]
    assert proxy.requests_to("experiments/search")[0].json()["view_type"] == "ALL"
    assert proxy.requests_to("runs/search")[0].json()["experiment_ids"] == ["7"]
    proxy.always(missing, path="log-batch")
    with pytest.raises(NotFoundError, match="No such run"):
        drive(store.log_batch("e" * 32, Batch(params=[("p", "1")])))


def test_a_run_that_asynctrack_0_1_created_is_found_by_that_one_s_tag(proxy: FaultProxy, store: RestStore) -> None:
    """After that of today, which MLflow's UI does not show."""
    assert UID_TAG.startswith("mlflow.")
    proxy.plan(says({}), says({"runs": [RUN["run"]]}), path="runs/search")
    found = drive(store.find_run(RunSpec(uid="f" * 32, experiment_id="7")))
    assert found is not None
    assert found.run_id == "a1"
    filters = [record.json()["filter"] for record in proxy.requests_to("runs/search")]
    assert filters == [f"tags.`{tag}` = '{'f' * 32}'" for tag in (UID_TAG, "asynctrack.uid")]


def test_of_two_runs_of_one_uid_everybody_finds_the_same_and_not_a_deleted_one(
    proxy: FaultProxy, store: RestStore
) -> None:
    """In whatever order the server names them."""
    info = RUN["run"]["info"]
    twins = [
        {"info": {**info, "run_id": run_id, "run_uuid": run_id, "lifecycle_stage": stage}}
        for run_id, stage in [("c3", "active"), ("b2", "active"), ("a1", "deleted")]
    ]
    proxy.plan(says({"runs": twins}), says({"runs": twins[::-1]}), says({"runs": twins[2:]}), path="runs/search")
    found = [drive(store.find_run(RunSpec(uid="f" * 32, experiment_id="7"))) for _ in range(3)]
    assert [run and run.run_id for run in found] == ["b2", "b2", "a1"]


def metrics(*steps: int) -> list[dict[str, object]]:
    return [{"key": "m", "value": 0.5, "timestamp": 100 + step, "step": step} for step in steps]


def test_columns_are_read_a_page_at_a_time_and_then_from_the_last_point_on(proxy: FaultProxy, store: RestStore) -> None:
    run = {"run": {"info": RUN["run"]["info"], "data": {"metrics": metrics(3)}}}
    proxy.always(says(run), path="runs/get")
    proxy.plan(says({"metrics": metrics(1, 2), "next_page_token": "x"}), path="get-history")
    proxy.plan(says({"metrics": metrics(3)}), path="get-history")
    first = drive(store.read_columns("a1"))
    assert list(first.columns["m"].steps) == [1, 2, 3]
    proxy.plan(says({"metrics": metrics(3, 4)}), path="get-history")
    second = drive(store.read_columns("a1", after=first.cursor))
    assert (list(second.columns["m"].steps), second.anew) == ([4], frozenset())
    # Another point stands where the last one was: one has come in between.
    proxy.plan(says({"metrics": metrics(3, 4)}), path="get-history")
    proxy.plan(says({"metrics": metrics(0, 1, 2, 3, 4)}), path="get-history")
    third = drive(store.read_columns("a1", after=second.cursor))
    assert (list(third.columns["m"].steps), third.anew) == ([0, 1, 2, 3, 4], frozenset({"m"}))


def test_where_a_number_is_no_pages_token_all_is_read_anew(proxy: FaultProxy, store: RestStore) -> None:
    run = {"run": {"info": RUN["run"]["info"], "data": {"metrics": metrics(3)}}}
    proxy.always(says(run), path="runs/get")
    proxy.plan(says({"metrics": metrics(1, 2)}), path="get-history")
    first = drive(store.read_columns("a1"))
    proxy.plan(says({"error_code": "INVALID_PARAMETER_VALUE", "message": "no token"}, 400), path="get-history")
    proxy.plan(says({"metrics": metrics(1, 2, 3)}), path="get-history")
    second = drive(store.read_columns("a1", after=first.cursor))
    assert (list(second.columns["m"].steps), second.anew) == ([1, 2, 3], frozenset({"m"}))


def test_pages_of_columns_that_go_round_in_a_circle_come_to_an_end(proxy: FaultProxy, store: RestStore) -> None:
    proxy.plan(says({"run": {"info": RUN["run"]["info"], "data": {"metrics": metrics(3)}}}), path="runs/get")
    proxy.always(says({"metrics": metrics(1), "next_page_token": "x"}), path="get-history")
    with pytest.raises(UnavailableError, match="without an end"):
        drive(store.read_columns("a1"))


DATASET = DatasetInput(Dataset("d", "12", "s", "{}"))
#: every call that the delivery makes, and those that people make who change something
CALLS: dict[str, Callable[[RestStore], Coroutine[Any, Any, object]]] = {
    "one point": lambda store: store.log_batch("a1", Batch({"m": [(1, 1, 1.0)]})),
    "a batch": lambda store: store.log_batch("a1", Batch(params=[("p", "1")])),
    "a probe": lambda store: store.probe("a1"),
    "the end": lambda store: store.update_run("a1", status="FINISHED", end_time=1),
    "a run": lambda store: store.create_run(RunSpec(uid="f" * 32)),
    "a run taken up": lambda store: store.create_run(RunSpec(uid="f" * 32, run_id="a1")),
    "a run in an experiment": lambda store: store.create_run(RunSpec(uid="f" * 32, experiment_name="e")),
    "a run looked for": lambda store: store.find_run(RunSpec(uid="f" * 32)),
    "an experiment": lambda store: store.create_experiment("e"),
    "an experiment looked for": lambda store: store.get_experiment_by_name("e"),
    "experiments": lambda store: store.search_experiments(),
    "a run's state": lambda store: store.get_run("a1"),
    "a history": lambda store: store.get_metric_history("a1", "m"),
    "inputs": lambda store: store.log_inputs("a1", [DATASET]),
    "outputs": lambda store: store.log_outputs("a1", [LoggedModelOutput("m-1", 0)]),
    "whether it keeps doubles": lambda store: store.bookmark("a1", Batch(params=[("p", "1")])),
    "a run deleted": lambda store: store.delete_run("a1"),
    "a tag deleted": lambda store: store.delete_tag("a1", "t"),
    "an experiment deleted": lambda store: store.delete_experiment("7"),
    "an experiment renamed": lambda store: store.rename_experiment("7", "e"),
    "an experiment's tag": lambda store: store.set_experiment_tag("7", "t", "v"),
}


@pytest.mark.parametrize("call", CALLS)
def test_something_in_the_servers_place_that_answers_everything_has_stored_nothing(
    call: str, proxy: FaultProxy, store: RestStore
) -> None:
    """A page that says in JSON that there is maintenance: the same call is tried again later, and nothing is learned
    from it."""
    proxy.always(says({"status": "maintenance"}))
    with pytest.raises(UnavailableError) as raised:
        drive(CALLS[call](store))
    assert raised.value.ambiguous
    assert not raised.value.suspicious
    proxy.heal()
    proxy.plan(says({"store_type": "SqlStore"}), path="server-info")
    assert drive(store.bookmark("a1", Batch(params=[("p", "1")]))) is None


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"whether it keeps doubles"}))
def test_something_in_the_servers_place_that_knows_no_such_path_refuses_nothing(
    call: str, proxy: FaultProxy, store: RestStore
) -> None:
    """As an application of FastAPI does, in JSON."""
    proxy.always(says({"detail": "Not Found"}, 404))
    with pytest.raises(WrongServerError):
        drive(CALLS[call](store))
