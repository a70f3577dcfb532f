"""Arguments that can never be right are refused at the call: nothing is begun, nothing is left behind, nothing is
retried in the background."""

from __future__ import annotations

import enum
import logging
import os
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asynctrack
from asynctrack.entities import Param
from asynctrack.errors import InvalidInputError
from asynctrack.journal.survey import find_spools
from tests.mlruns import only_run


class _Something:
    """An object of no kind that counts, with the same repr in every process."""

    def __repr__(self) -> str:
        return "<something>"


SOMETHING = _Something()


class Name(str, enum.Enum):  # noqa: UP042  # whose str() is "Name.VISION"
    """A text with a class of its own."""

    VISION = "vision"


NOT_TEXTS: list[Any] = [5, True, 1.5, float("nan"), b"x", Path("x"), uuid.uuid4(), Decimal(1), ["a"], {"a": 1},
                        SOMETHING, np.float64(1), lambda: None, 10**5000]  # fmt: skip
NOT_IDS: list[Any] = [1.5, True, b"x", ["abc"], {"a": 1}, SOMETHING, " ", "../x", "a\n", "x" * 300, Path("x")]
NOT_TIMES: list[Any] = [1.5, float("nan"), "2024-01-01", b"1", True, -1, 10**30, [1], {"a": 1}, SOMETHING, Path("x")]


@pytest.fixture(autouse=True)
def nothing_fails_in_the_background(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    asynctrack.shutdown()
    records = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not records


@pytest.mark.parametrize("name", ["run_name", "description", "experiment_name"])
@pytest.mark.parametrize("value", NOT_TEXTS, ids=lambda value: type(value).__name__)
def test_start_run_refuses_what_is_no_text(name: str, value: Any, tmp_path: Path) -> None:
    """A seed as a run's name, for one: the message names the argument, and no run is begun."""
    with pytest.raises(InvalidInputError, match=name if name != "experiment_name" else "name"):
        asynctrack.start_run(**{name: value})
    assert asynctrack.active_run() is None
    assert list(find_spools()) == []
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("name", ["run_id", "experiment_id", "parent_run_id"])
@pytest.mark.parametrize("value", NOT_IDS, ids=lambda value: repr(value)[:12])
def test_start_run_refuses_what_can_be_no_id(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match="id"):
        asynctrack.start_run(**{name: value})
    assert asynctrack.active_run() is None
    assert list(find_spools()) == []


@pytest.mark.parametrize("tags", [5, "text", [("a", 1)], {5: 6}, {"a$b": 1}, {None: 1}])
def test_start_run_refuses_tags_that_can_never_be_set(tags: Any) -> None:
    with pytest.raises(InvalidInputError, match="tag"):
        asynctrack.start_run(tags=tags)
    assert list(find_spools()) == []


LOG_CALLS: dict[str, Callable[[Any], object]] = {
    "log_metric": lambda run_id: asynctrack.log_metric("m", 1.0, run_id=run_id),
    "log_metrics": lambda run_id: asynctrack.log_metrics({"m": 1.0}, run_id=run_id),
    "log_params": lambda run_id: asynctrack.log_params({"p": 1}, run_id=run_id),
    "log_text": lambda run_id: asynctrack.log_text("text", "t.txt", run_id=run_id),
    "log_dict": lambda run_id: asynctrack.log_dict({}, "t.json", run_id=run_id),
}


@pytest.mark.parametrize("verb", LOG_CALLS)
@pytest.mark.parametrize("value", ["", [], ["abc"], {"a": 1}, 1.5, b"x", False, SOMETHING], ids=repr)
def test_logging_to_what_can_be_no_run_is_refused(verb: str, value: Any) -> None:
    """An empty run id too: it was never settled, and every program with that spool folder waited for it."""
    with pytest.raises(InvalidInputError, match="run id"):
        LOG_CALLS[verb](value)
    assert list(find_spools()) == []


@pytest.mark.parametrize("end_time", NOT_TIMES, ids=lambda value: repr(value)[:12])
def test_a_run_is_open_still_when_its_end_was_no_time(end_time: Any) -> None:
    """`time.time() * 1000`, for one. It is ended by whoever ends it with a time."""
    run = asynctrack.start_run()
    with pytest.raises(InvalidInputError, match="end_time"):
        run.terminate(end_time=end_time)
    assert not run.ended
    run.log_metric("loss", 1.0)
    run.terminate(end_time=1_700_000_000_000)
    info = asynctrack.get_run(run.run_id).info
    assert (info.status, info.end_time) == ("FINISHED", 1_700_000_000_000)


@pytest.mark.parametrize("status", ["RUNNING", "finished", "", 17, SOMETHING, ["FINISHED"]])
def test_a_run_is_open_still_when_its_end_was_no_status(status: Any) -> None:
    run = asynctrack.start_run()
    with pytest.raises(InvalidInputError, match="status"):
        run.terminate(status)
    assert not run.ended
    run.terminate()


class Moment(enum.IntEnum):
    """An integer with a class of its own."""

    THEN = 1_700_000_000_000


@pytest.mark.parametrize("end_time", [np.int64(Moment.THEN), np.uint64(Moment.THEN), Moment.THEN], ids=repr)
def test_any_integer_is_a_time(end_time: Any) -> None:
    with asynctrack.start_run() as run:
        run.terminate(end_time=end_time)
    assert asynctrack.get_run(run.run_id).info.end_time == 1_700_000_000_000


def test_a_text_of_a_class_of_its_own_is_its_text(tmp_path: Path) -> None:
    with asynctrack.start_run(run_name=Name.VISION, description=Name.VISION) as run:
        run.set_tag("kind", "x")
    stored = only_run(tmp_path / "mlruns")
    assert stored.tags["mlflow.runName"] == "vision"
    assert stored.tags["mlflow.note.content"] == "vision"


@pytest.mark.parametrize("name", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])
def test_a_variable_that_is_set_but_empty_counts_as_not_set(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "")
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    assert only_run(tmp_path / "mlruns").run_id == run.run_id


def test_the_run_that_the_environment_names_is_used_up_by_a_start_that_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.run_id)
    with pytest.raises(InvalidInputError):
        asynctrack.start_run(run_name=5)  # type: ignore[arg-type]  # what is tried
    assert os.environ["MLFLOW_RUN_ID"] == run.run_id
    with asynctrack.start_run() as again:
        assert again.run_id == run.run_id
    assert "MLFLOW_RUN_ID" not in os.environ


@pytest.mark.parametrize("path", ["", Path("missing") / "file"], ids=repr)
@pytest.mark.parametrize("verb", ["log_artifact", "log_artifacts"])
def test_an_empty_path_is_not_the_working_directory(verb: str, path: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with asynctrack.start_run() as run, pytest.raises(InvalidInputError):
        getattr(run, verb)(path)
    assert not list((tmp_path / "mlruns").glob("*/*/artifacts/*"))


@pytest.mark.parametrize("path", ["a\ud800.txt", "f\udcff/a.txt"])
def test_an_artifacts_path_that_is_no_text_in_utf_8_is_refused(path: str) -> None:
    with asynctrack.start_run() as run:
        with pytest.raises(InvalidInputError, match="surrogate"):
            run.log_text("text", path)
        with pytest.raises(InvalidInputError, match="step"):
            run.log_image(np.zeros((2, 2, 3), np.uint8), key="k", step=SOMETHING)  # type: ignore[arg-type]  # tried
        with pytest.raises(InvalidInputError, match="timestamp"):
            run.log_image(np.zeros((2, 2, 3), np.uint8), key="k", timestamp="now")  # type: ignore[arg-type]  # tried
        with pytest.raises(InvalidInputError, match="snapshot"):
            run.log_artifact(__file__, snapshot="lnik")  # type: ignore[arg-type]  # what is tried


@pytest.mark.parametrize("timeout", ["1", b"1", float("nan"), [1], SOMETHING], ids=repr)
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    with asynctrack.start_run() as run:
        receipt = run.log_text("text", "t.txt")
        for wait in (run.flush, receipt.wait):
            with pytest.raises(InvalidInputError, match="timeout"):
                wait(timeout)


class Ids:
    """An index that is another one each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __index__(self) -> int:
        self.asked += 1
        return self.asked


def test_a_step_that_changes_from_call_to_call_is_asked_once(tmp_path: Path) -> None:
    """Otherwise the two halves of its record differ, and the point is lost."""
    with asynctrack.start_run() as run:
        run.log_metric("loss", 0.5, Ids())
        run.log_metrics({"acc": 0.25}, Ids())
    stored = only_run(tmp_path / "mlruns").metrics
    assert [point[2] for point in stored["loss"] + stored["acc"]] == [1, 1]


# ── experiments and searches


def test_one_text_is_one_experiment() -> None:
    """ "309" was once taken apart into "3", "0" and "9"."""
    ids = [asynctrack.create_experiment(f"e{number}") for number in range(3)]
    for experiment_id in ids:
        with asynctrack.start_run(experiment_id=experiment_id):
            pass
    found = asynctrack.search_runs(ids[1], output_format="list")
    assert [run.info.experiment_id for run in found] == [ids[1]]
    by_name = asynctrack.search_runs(experiment_names="e2", output_format="list")
    assert [run.info.experiment_id for run in by_name] == [ids[2]]
    assert [e.name for e in asynctrack.search_experiments(order_by="name ASC")][-1] == "e2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filter_string": 5}, "filter_string"),
        ({"order_by": [5]}, "order_by"),
        ({"order_by": 5}, "order_by"),
        ({"max_results": "many"}, "max_results"),
        ({"max_results": 1.5}, "max_results"),
        ({"run_view_type": "DELETED_ONLY"}, "view type"),
        ({"experiment_ids": 1.5}, "experiment"),
    ],
)
def test_a_search_says_which_argument_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        asynctrack.search_runs(**arguments, output_format="list")


def test_experiment_tags_are_all_set_or_none() -> None:
    experiment = asynctrack.set_experiment("vision")
    with pytest.raises(InvalidInputError, match="tag key 5"):
        asynctrack.set_experiment_tags({"z": 1, 5: 1})  # type: ignore[dict-item]  # what is tried
    assert "z" not in asynctrack.get_experiment(experiment.experiment_id).tags


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("name", [5, "", " ", "a\0b", b"x", ["a"]], ids=repr)
def test_a_name_that_no_experiment_can_have_is_not_chosen(name: Any, mode: Any) -> None:
    asynctrack.configure(mode=mode)
    try:
        with pytest.raises(InvalidInputError, match="name"):
            asynctrack.set_experiment(name)
        assert "MLFLOW_EXPERIMENT_NAME" not in os.environ
    finally:
        asynctrack.configure(mode=None)


@pytest.mark.parametrize("location", [5, True, ["a"], b"x", "a\0b", ""], ids=repr)
def test_a_location_that_is_neither_a_path_nor_a_uri_makes_no_experiment(location: Any) -> None:
    with pytest.raises(InvalidInputError, match="artifact location"):
        asynctrack.create_experiment("vision", location)
    assert asynctrack.get_experiment_by_name("vision") is None


def test_a_relative_location_is_one_from_here(tmp_path: Path) -> None:
    experiment = asynctrack.get_experiment(asynctrack.create_experiment("vision", Path("somewhere")))
    assert experiment.artifact_location.endswith(str(tmp_path / "somewhere"))


@pytest.mark.parametrize("status", [17, "RUNNING", "finished", SOMETHING], ids=repr)
def test_shutdown_refuses_a_status_before_it_closes_anything(status: Any) -> None:
    run = asynctrack.start_run()
    with pytest.raises(InvalidInputError, match="status"):
        asynctrack.shutdown(status)
    run.log_metric("loss", 1.0)
    run.terminate()
    assert asynctrack.get_run(run.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"description": "a", "tags": {"mlflow.note.content": "b"}}, "description='a'.*mlflow.note.content='b'"),
        ({"run_name": "a", "tags": {"mlflow.runName": "b"}}, "run_name='a'.*mlflow.runName='b'"),
    ],
)
def test_an_argument_and_a_tag_that_contradict_it_are_refused(arguments: dict[str, Any], says: str) -> None:
    """Neither wins in silence. Twice the same thing is none."""
    with pytest.raises(InvalidInputError, match=says):
        asynctrack.start_run(**arguments)
    if "run_name" in arguments:
        with pytest.raises(InvalidInputError, match=says):
            asynctrack.tracking.MlflowClient().create_run("0", **arguments)
    assert list(find_spools(".asynctrack")) == []
    with asynctrack.start_run(**{**arguments, "tags": dict.fromkeys(arguments["tags"], "a")}):
        pass
    assert only_run(Path("mlruns")).tags[next(iter(arguments["tags"]))] == "a"


def test_a_batch_with_a_param_twice_is_refused_as_mlflow_does() -> None:
    """Whether the values differ or not. One without anything is nothing, and does not even ask for its run."""
    client = asynctrack.tracking.MlflowClient()
    run_id = client.create_run("0").info.run_id
    for other in ("1", "2"):
        with pytest.raises(InvalidInputError, match="param 'p' is given twice"):
            client.log_batch(run_id, params=[Param("p", "1"), Param("p", other)])
    assert client.get_run(run_id).data.params == {}
    client.log_batch("f" * 32)
    with pytest.raises(InvalidInputError, match="run id"):
        client.log_batch("../x")


def test_a_value_that_mlflow_would_cut_is_refused_where_cutting_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``MLFLOW_TRUNCATE_LONG_VALUES=false``, as in MLflow."""
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    with asynctrack.start_run() as run:
        run.log_param("p", "x" * 6000)
        run.set_tag("t", "x" * 8000)
        with pytest.raises(InvalidInputError, match="MLFLOW_TRUNCATE_LONG_VALUES"):
            run.log_params({"q": 1, "p2": "x" * 6001})
        with pytest.raises(InvalidInputError, match="MLFLOW_TRUNCATE_LONG_VALUES"):
            run.set_tags({"u": 1, "t": "x" * 8001})
    with pytest.raises(InvalidInputError, match="tag 't' has 8001 characters"):
        asynctrack.start_run(tags={"t": "x" * 8001})
    stored = only_run(Path("mlruns"))
    assert {key: len(value) for key, value in stored.params.items()} == {"p": 6000}
    assert "u" not in stored.tags


@pytest.mark.parametrize("wrong", [1 << 63, str(1 << 64), "9" * 30])
def test_an_experiment_has_no_id_of_more_than_64_bits(wrong: Any) -> None:
    """A server says that it is out of order then, and creating the run would be tried for ever."""
    with pytest.raises(InvalidInputError, match="does not fit 64 bits"):
        asynctrack.start_run(experiment_id=wrong)
    with pytest.raises(InvalidInputError, match="does not fit 64 bits"):
        asynctrack.set_experiment(experiment_id=wrong)
    with pytest.raises(InvalidInputError, match="does not fit 64 bits"):
        asynctrack.search_runs([wrong])
