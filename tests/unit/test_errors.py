"""What MLflow's programs do with MLflow's errors they can do with ours."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack import errors
from asynctrack.exceptions import MlflowException, RestException
from asynctrack.tracking import get_service

MISSING = "f" * 32


def raised(call: Callable[[], object]) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value


def test_a_spool_error_keeps_its_errno() -> None:
    """It is an OSError as well."""
    assert errors.SpoolError(errno.ENOSPC, "full").errno == errno.ENOSPC
    assert errors.SpoolFullError("full").errno is None


def test_an_experiment_that_exists_is_told_by_its_code(tmp_path: Path) -> None:
    """The idiom of public scripts: create it, and go on if it is there."""
    asynctrack.set_tracking_uri(tmp_path)
    asynctrack.create_experiment("vision")
    error = raised(lambda: asynctrack.create_experiment("vision"))
    assert (error.error_code, error.get_http_status_code()) == ("RESOURCE_ALREADY_EXISTS", 400)
    with pytest.raises(RestException):
        asynctrack.create_experiment("vision")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: asynctrack.get_run(MISSING), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: asynctrack.get_experiment("777"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda: asynctrack.search_runs(["0"], "metrics."), "INVALID_PARAMETER_VALUE"),
        (lambda: asynctrack.search_runs(["0"], order_by=["nothing at all"]), "INVALID_PARAMETER_VALUE"),
        (lambda: asynctrack.log_param("a$b", "abc"), "INVALID_PARAMETER_VALUE"),
        (lambda: asynctrack.log_metric("a$b", 1.0), "INVALID_PARAMETER_VALUE"),
        (lambda: asynctrack.set_experiment("a", "0"), "INVALID_PARAMETER_VALUE"),
    ],
)
def test_errors_carry_the_code_that_mlflows_have(call: Callable[[], object], code: str) -> None:
    """Each call raises an MlflowException of that code in MLflow 3.17."""
    error = raised(call)
    assert error.error_code == code


def test_a_missing_file_is_a_file_not_found(tmp_path: Path) -> None:
    """As in MLflow, by every way to log one."""
    asynctrack.set_tracking_uri(tmp_path / "store")
    missing = tmp_path / "missing.txt"
    with asynctrack.start_run() as run:
        with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
            asynctrack.log_artifact(missing)
        with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
            asynctrack.MlflowClient().log_artifact(run.info.run_id, missing)
        with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
            get_service().log_artifact(str(run.info.artifact_uri), missing)


@pytest.mark.parametrize(
    "log",
    [
        lambda run: run.log_text(5, "a.txt"),
        lambda run: run.log_figure("no figure", "a.png"),
        lambda run: run.log_image("no image", "a.png"),
    ],
)
def test_a_wrong_object_is_a_type_error(tmp_path: Path, log: Callable[[Any], object]) -> None:
    """As in MLflow; it stays an InvalidInputError, and names the run."""
    with asynctrack.start_run(tracking_uri=str(tmp_path)) as run:
        with pytest.raises(TypeError, match=run.run_id) as caught:
            log(run)
        assert isinstance(caught.value, errors.InvalidInputError)


def test_mlflows_module_is_an_attribute() -> None:
    """``import asynctrack as mlflow; except mlflow.exceptions.MlflowException``."""
    assert asynctrack.exceptions.MlflowException is asynctrack.MlflowException is MlflowException
