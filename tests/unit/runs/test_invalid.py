"""Events that can never be stored, where the program says that they must not stop it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidInputError
from tests.mlruns import only_run

#: of MLflow's and frameworks' making: only "loss" and "step/ok" can be stored
ODD: dict[Any, Any] = {
    "loss": 0.5,
    "acc@1": 0.1,
    "val(loss)": 0.2,
    "a=b": 0.3,
    "none": None,
    "list": [1.0, 2.0],
    "text": "high",
    "complex": 1 + 2j,
    "step/ok": 1,
    5: 0.4,
}
GOOD = {"loss", "step/ok"}


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    yield
    asynctrack.configure(on_invalid=None)


def test_by_default_nothing_of_the_call_is_logged(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        with pytest.raises(InvalidInputError, match=rf"^run {run.run_id}: [^:]*acc@1"):
            run.log_metrics(ODD)
        run.log_metric("loss", 1.0)
    assert set(only_run(tmp_path / "mlruns").metrics) == {"loss"}


@pytest.mark.parametrize("policy", ["warn", "skip"])
def test_the_others_are_logged(policy: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asynctrack.start_run() as run:
        for step in range(3):
            run.log_metrics(ODD, step, on_invalid=policy)
    stored = only_run(tmp_path / "mlruns").metrics
    assert set(stored) == GOOD
    assert [step for *_, step in stored["loss"]] == [0, 1, 2]
    assert len({timestamp for timestamp, _, step in [*stored["loss"], *stored["step/ok"]] if step == 1}) == 1
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == (len(ODD) - len(GOOD) if policy == "warn" else 0), said
    assert all(message.count(f"run {run.run_id}: ") == 1 for message in said)


def test_the_setting_is_for_every_log_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asynctrack.configure(on_invalid="warn")
    with asynctrack.start_run() as run:
        for _ in range(2):
            for key, value in ODD.items():
                run.log_metric(key, value)
            run.log_metric("loss", 1.0, step="three")  # type: ignore[arg-type]
            run.log_metric("loss", 1.0, timestamp=-1)
            run.log_metric("loss", 1.0, 1 << 70)
            run.log_params({"lr": 1, "a=b": 2})
            run.log_param("lr", 2)
            run.log_param("c=d", 2)
            run.set_tags({"phase": "train", "x@y": 1})
            run.set_tag("z@y", 1)
            asynctrack.log_metrics(ODD)
            with pytest.raises(InvalidInputError):
                run.log_metrics(ODD, on_invalid="raise")
    stored = only_run(tmp_path / "mlruns")
    assert set(stored.metrics) == GOOD
    assert stored.params == {"lr": "1"}
    assert stored.tags["phase"] == "train"
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == len(set(said)) == len(ODD) - len(GOOD) + 6, said  # once for each key, "loss" is one


def test_another_word_is_refused() -> None:
    with (
        asynctrack.start_run() as run,
        pytest.raises(InvalidInputError, match="on_invalid='ignore': it must be one of"),
    ):
        run.log_metrics(ODD, on_invalid="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="on_invalid='ignore'"):
        asynctrack.configure(on_invalid="ignore")
