"""Where the real MLflow can be asked what is right, asynctrack does the same."""

from __future__ import annotations

import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import mlflow
import mlflow.entities
import mlflow.exceptions
import mlflow.tracking
import numpy as np
import pandas
import pytest
from mlflow.protos.databricks_pb2 import ErrorCode

import asynctrack
from asynctrack import errors
from asynctrack.exceptions import MlflowException, RestException

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AsynctrackError)]

# ── errors


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_mlflows_code_and_survives_pickle(kind: type[errors.AsynctrackError]) -> None:
    """A worker process sends its error to the main one."""
    error = kind("what happened")
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert type(found) is kind
        assert (str(found), found.message) == ("what happened", "what happened")
        status = mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS[found.error_code]
        assert found.get_http_status_code() == status
        assert json.loads(found.serialize_as_json()) == {"error_code": found.error_code, "message": "what happened"}


def test_the_codes_are_mlflows() -> None:
    """For each code that MLflow has a status for."""
    for name, status in mlflow.exceptions.ERROR_CODE_TO_HTTP_STATUS.items():
        number = ErrorCode.Value(name)
        for ours in (MlflowException("x", name), MlflowException("x", number)):
            theirs = mlflow.exceptions.MlflowException("x", number)
            assert (ours.error_code, ours.get_http_status_code()) == (theirs.error_code, status)
            assert ours.message == theirs.message
    assert MlflowException("x").error_code == mlflow.exceptions.MlflowException("x").error_code
    ours = MlflowException.invalid_parameter_value("x", extra=1)
    assert json.loads(ours.serialize_as_json()) == {"error_code": "INVALID_PARAMETER_VALUE", "message": "x", "extra": 1}


def test_a_rest_exception_is_made_from_a_servers_answer() -> None:
    """MLflow's constructor."""
    answer = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}
    ours, theirs = RestException(answer), mlflow.exceptions.RestException(answer)  # type: ignore[no-untyped-call]  # MLflow's
    assert (str(ours), ours.error_code) == (str(theirs), theirs.error_code)
    copy = pickle.loads(pickle.dumps(ours))
    assert (str(copy), copy.error_code, copy.get_http_status_code()) == (str(ours), ours.error_code, 404)


# ── entities


def made(module: Any) -> list[Any]:
    """One entity of each kind, made by position as MLflow's are."""
    info = module.RunInfo("r1", "7", "ann", "FINISHED", 1, 2, "active", "file:///a", "first")
    data = module.RunData(
        [module.Metric("a", 1.0, 5, 2)], [module.Param("p", "1")], [module.RunTag("t", "v"), module.RunTag("u", "w")]
    )
    dataset = module.Dataset("d", "1234", "local", "{}", "schema", "profile")
    inputs = module.RunInputs([module.DatasetInput(dataset, [module.InputTag("k", "v")])], [])
    outputs = module.RunOutputs([module.LoggedModelOutput("m-2", 3)])
    return [
        info,
        data,
        module.Run(info, data),
        module.Run(run_info=info, run_data=data, run_inputs=inputs, run_outputs=outputs),
        module.Param("p", "1"),
        module.RunTag("t", "v"),
        module.ExperimentTag("t", "v"),
        module.FileInfo("p", False, 3),
        inputs,
        outputs,
        module.LoggedModelInput("m-1"),
    ]


def test_entities_are_made_and_shown_as_mlflows() -> None:
    """By position and by keyword; their repr and their dictionaries."""
    for ours, theirs in zip(made(asynctrack.entities), made(mlflow.entities), strict=True):
        assert repr(ours) == repr(theirs)
        assert set(dict(ours)) == set(dict(theirs))
        if hasattr(theirs, "to_dictionary"):
            assert ours.to_dictionary() == theirs.to_dictionary()


def test_a_run_without_info_is_refused_as_by_mlflow() -> None:
    """Both raise their MlflowException."""
    with pytest.raises(MlflowException, match="run_info cannot be None"):
        asynctrack.entities.Run(None)
    with pytest.raises(mlflow.exceptions.MlflowException, match="run_info cannot be None"):
        mlflow.entities.Run(None, None)  # type: ignore[arg-type]  # that is the point


# ── searches


def test_a_data_frame_has_mlflows_columns_and_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs with different keys, and of none; the same folder read by both."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    asynctrack.set_tracking_uri(tmp_path)
    for number in range(3):
        with asynctrack.start_run(run_name=f"run {number}"):
            asynctrack.log_metrics({"loss": number / 2} | ({"only": 1.0} if number == 1 else {}))
            asynctrack.log_params({f"p{number}": number, "lr": 0.1})
    open_run = asynctrack.start_run()
    asynctrack.MlflowClient().flush()
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", tmp_path.as_uri())
    try:
        for ids in (["0"], ["no such experiment".replace(" ", "-")]):
            ours = asynctrack.search_runs(ids, order_by=["start_time ASC"])
            theirs = mlflow.search_runs(ids, order_by=["start_time ASC"])
            heads = [[name.partition(".")[0] for name in frame.columns] for frame in (ours, theirs)]
            assert heads[0] == heads[1]
            pandas.testing.assert_frame_equal(ours[sorted(ours)], theirs[sorted(theirs)])
    finally:
        open_run.terminate()


# ── values

ODD: list[Any] = [
    None, "", " ", 5, -1, True, 1.5, float("nan"), b"bytes", Path("a/b"), ["a", 1], {"a": 1}, "a\nb", "a\0b", "日本",
    "0.5", "1e3", np.float32(0.5), np.array([2.0]), "x" * 300,
]  # fmt: skip


def test_odd_values_are_read_back_by_mlflow_as_it_would_have_stored_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each takes as a param, a tag or a metric has the same text or number; nothing more is taken here."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    ours = asynctrack.MlflowClient(tmp_path / "ours")
    theirs = mlflow.MlflowClient((tmp_path / "theirs").as_uri())
    ids = [client.create_run("0").info.run_id for client in (ours, theirs)]

    def taken(client: Any, run_id: str, verb: str, key: str, value: Any) -> bool:
        try:
            getattr(client, verb)(run_id, key, value)
        except (MlflowException, mlflow.exceptions.MlflowException, ValueError, TypeError):
            return False
        return True

    for number, value in enumerate(ODD):
        for verb in ("log_param", "set_tag", "log_metric"):
            here, there = (
                taken(client, run_id, verb, f"k{number}", value)
                for client, run_id in zip((ours, theirs), ids, strict=True)
            )
            assert there >= here, (verb, value)
            assert here or isinstance(value, bytes | Path) or verb == "log_metric", (verb, value)
    ours.flush()
    read = [
        mlflow.MlflowClient((tmp_path / name).as_uri()).get_run(run_id).data
        for name, run_id in zip(("ours", "theirs"), ids, strict=True)
    ]
    assert read[0].params == read[1].params
    assert repr(read[0].metrics) == repr(read[1].metrics)
    names = [name for name in read[1].tags if not name.startswith("mlflow.")]
    assert len(names) == len(ODD)
    assert [read[0].tags[name] for name in names] == [read[1].tags[name] for name in names]
