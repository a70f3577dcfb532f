"""Metrics of logged models for which a real server's database has no room: the rest is delivered, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient

import asynctrack
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.survey import find_spools, read_rejected
from tests.rest import support
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> MlflowServer:
    found: MlflowServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.mark.parametrize("server", ["sqlite", "postgres"], indirect=True)
def test_only_a_second_value_of_one_time_and_step_is_refused(
    server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a batch with such a point MLflow stores the run's points and no model's, and answers with an error."""
    client: Any = MlflowClient(server.url)
    experiment_id = client.create_experiment(support.fresh())
    one, other = (client.create_logged_model(experiment_id).model_id for _ in range(2))
    metric: Any = MeasuredOn  # what code that calls mlflow logs by
    with asynctrack.start_run(tracking_uri=server.url, experiment_id=experiment_id) as run:
        run.flush()
        for step in range(20):
            run.log_metric(metric("acc", one), step / 2, step=step, timestamp=1_000 + step)
        for dataset, value in (("train", 0.9), ("test", 0.8)):
            run.log_metric(metric("eval", one, dataset, "d"), value, step=0, timestamp=1_000)
        run.log_metric(metric("acc", other), 9.5, step=19, timestamp=1_019)  # the same as that of the first model
        run.log_param("p", 1)
    asynctrack.shutdown()
    found = client.get_logged_model(one).metrics
    assert sorted((point.key, point.step) for point in found) == [*(("acc", step) for step in range(20)), ("eval", 0)]
    assert [(point.key, point.value) for point in client.get_logged_model(other).metrics] == [("acc", 9.5)]
    stored = support.stored(server, run.run_id)
    assert [point for point in stored.points if point[0] == "eval"] == [("eval", 0, 0.8), ("eval", 0, 0.9)]
    assert (stored.status, len(stored.points), stored.params) == ("FINISHED", 22, {"p": "1"})
    ((refused,),) = (list(read_rejected([spool])) for spool in find_spools())
    assert (refused.key, refused.on) == ("eval", MeasuredOn("eval", one, "test", "d"))
    assert f"only the run has the value: logged model {one!r} can have one value" in caplog.text
