"""Which datasets and models a run uses and has made goes through the journal to a server, and is there as MLflow puts
it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.delivery.inputs import send_batch
from asynctrack.journal.inputs import dataset_entry, input_of, model_entry, output_entry
from asynctrack.journal.writer import Journal
from asynctrack.recovery.sync import sync
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.io import drive
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

pytestmark = pytest.mark.skipif(mlflow.__version__ < "3", reason="MLflow 2 has no logged models")

DATASET: dict[str, str | None] = {
    "name": "d",
    "digest": "1",
    "source_type": "t",
    "source": "s",
    "schema": "c",
    "profile": None,
}
DIES = """
import mlflow, os, signal, sys
from mlflow.entities import Dataset, DatasetInput, InputTag
run = mlflow.start_run()
mlflow.log_metric("m", 1.0)
client = mlflow.MlflowClient()
client.log_inputs(run.info.run_id, [DatasetInput(Dataset("before", "1", "t", "s"), [InputTag("k", "v")])])
print(run.info.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


def used(name: str, digest: str = "1", **tags: str) -> Any:
    entities = mlflow.entities
    about = entities.Dataset(name, digest, "local", '{"uri": "x"}', schema='{"a": 1}', profile=None)
    return entities.DatasetInput(about, [entities.InputTag(key, value) for key, value in tags.items()])


def says(run: Any, names: dict[str, str]) -> Any:
    """What MLflow says that a run uses and has made."""
    datasets = [
        (*vars(each.dataset).values(), sorted((tag.key, tag.value) for tag in each.tags))
        for each in run.inputs.dataset_inputs
    ]
    models = [names[each.model_id] for each in run.inputs.model_inputs]
    outputs = [(names[each.model_id], each.step) for each in run.outputs.model_outputs]
    return sorted(datasets, key=repr), sorted(models), sorted(outputs)


def program(client: Any, experiment_id: str) -> Any:
    """Says it in every way, some of it again, and what comes of it while it runs and afterwards."""
    entities = mlflow.entities
    seen = []
    with mlflow.start_run(experiment_id=experiment_id) as run:
        run_id = run.info.run_id
        names = {client.create_logged_model(experiment_id).model_id: name for name in ("one", "two", "three")}
        one, two, three = names
        client.log_inputs(run_id, [used("train", context="training"), used("test")])
        client.log_inputs(run_id, [used("train", other="tag")], [entities.LoggedModelInput(one)])
        client.log_inputs(run_id, models=[entities.LoggedModelInput(one)])
        mlflow.log_metric("m", 1.0, model_id=two)
        mlflow.log_outputs([entities.LoggedModelOutput(three, 7)])
        seen.append(says(client.get_run(run_id), names))
        for verb, *call in (
            ("log_outputs", run_id, [entities.LoggedModelOutput(three, 8)]),
            ("log_inputs", run_id, [used("d" * 501)]),
            ("log_inputs", "f" * 32, [used("train")]),
        ):
            with pytest.raises(mlflow.MlflowException) as error:
                getattr(client, verb)(*call)
            seen.append((type(error.value), error.value.error_code))
        client.log_inputs(run_id, [used("late")])
    client.log_inputs(run_id, [used("after the end")])
    (found,) = client.search_runs([experiment_id])
    return [*seen, says(found, names)]


def test_it_is_as_mlflow_says_it(server: str) -> None:
    plain = behind.after(server, program)
    assert behind.after(server, program, behind.PREFIX) == plain


@pytest.mark.filterwarnings("ignore")  # of MLflow's dependencies, while they are imported
@pytest.mark.parametrize("place", ["server", "database"])
def test_datasets_come_in_the_order_in_which_they_were_logged(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Programs take the first of them."""
    pytest.importorskip("sqlalchemy")
    uri = request.getfixturevalue("server") if place == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    names = ["train", "test", "eval", "another", "late"]

    def program(client: Any, experiment_id: str) -> Any:
        with mlflow.start_run(experiment_id=experiment_id) as run:
            client.log_inputs(run.info.run_id, [used(name, z="1", context="2", a="3") for name in names[:4]])
            client.log_inputs(run.info.run_id, [used("test"), used("late")])
        return [each.dataset.name for each in client.get_run(run.info.run_id).inputs.dataset_inputs]

    assert behind.after(uri, program)[0] == names
    assert behind.after(uri, program, behind.PREFIX)[0] == names


def test_it_costs_no_request(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: Any, **__: Any) -> Any:
        raise AssertionError("MLflow sends a request")

    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        model_id = client.create_logged_model(run.info.experiment_id).model_id
        store = mlflow.tracking._tracking_service.utils._get_store()
        with monkeypatch.context() as patched:
            patched.setattr(store._asynctrack_inner, "_call_endpoint", request)
            client.log_inputs(run.info.run_id, [used("train")])
            mlflow.log_outputs([mlflow.entities.LoggedModelOutput(model_id, 0)])
            for step in range(3):
                mlflow.log_metric("m", 1.0, step=step, model_id=model_id, run_id=run.info.run_id)
        found = client.get_run(run.info.run_id)
    assert says(found, {model_id: "it"})[2] == [("it", 0)]
    assert [each.dataset.name for each in found.inputs.dataset_inputs] == ["train"]


def test_what_was_dropped_for_want_of_room_was_not_said(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it can be said again, in the same way."""
    with behind.tracking(f"asynctrack+{server}") as client, mlflow.start_run() as run:
        model_id = client.create_logged_model(run.info.experiment_id).model_id
        store = mlflow.tracking._tracking_service.utils._get_store()

        def request(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(args)

        with monkeypatch.context() as patched:
            patched.setattr(store._asynctrack_inner, "_call_endpoint", request)
            with monkeypatch.context() as full:
                full.setattr(Journal, "write_frame", lambda journal, entry, **how: False)
                client.log_inputs(run.info.run_id, [used("train")])
                mlflow.log_outputs([mlflow.entities.LoggedModelOutput(model_id, 0)])
            mlflow.log_outputs([mlflow.entities.LoggedModelOutput(model_id, 7)])
        found = client.get_run(run.info.run_id)
    assert says(found, {model_id: "it"}) == ([], [], [("it", 7)])


def test_what_is_said_while_the_server_is_away_is_there_when_it_is_back(sqlite_server: servers.MlflowServer) -> None:
    """Of a run that began before, of one that another program began, and of one that begins meanwhile."""
    asynctrack.configure(connect_timeout=0.5)
    theirs = drive(store_for(sqlite_server.url).create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    with behind.tracking(f"asynctrack+{sqlite_server.url}") as client:
        model_id = client.create_logged_model("0").model_id
        made = [mlflow.entities.LoggedModelOutput(model_id, 7)]
        before = client.create_run("0").info.run_id
        sqlite_server.stop()
        try:
            meanwhile = client.create_run("0").info.run_id
            for run_id in (before, theirs, meanwhile):
                client.log_inputs(run_id, [used("train", context="training"), used("test")])
                client.log_inputs(run_id, [used("train", other="tag")])
            client.log_outputs(before, made)
            client.log_outputs(meanwhile, made)
        finally:
            sqlite_server.start()
        found = [says(client.get_run(run_id), {model_id: "it"}) for run_id in (before, meanwhile, theirs)]
        there = client.create_run("0").info.run_id  # with the server there
        client.log_inputs(there, [used("train", context="training"), used("test")])
        client.log_inputs(there, [used("train", other="tag")])
        client.log_outputs(there, made)
        expected = says(client.get_run(there), {model_id: "it"})
    assert found == [expected, expected, (*expected[:2], [])]


def test_a_killed_program_loses_none(server: str, tmp_path: Path) -> None:
    died = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import os; os.environ['MLFLOW_TRACKING_URI'] = {server!r}\n{DIES}"],
        cwd=tmp_path,
        env={**os.environ, "ASYNCTRACK_MLFLOW": "1", "ASYNCTRACK_FLUSH_INTERVAL": "60"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert died.returncode == -9, died.stderr
    [shipment] = sync()
    assert shipment.problem is None
    with behind.tracking(server) as client:
        run = client.get_run(died.stdout.split()[0])
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, [tag.value for tag in dataset.tags], run.info.status) == ("before", ["v"], "KILLED")


def test_what_comes_again_changes_nothing_and_what_is_no_input_is_refused(server: str) -> None:
    """As after an answer that was lost."""
    with behind.tracking(server) as client:
        model_id = client.create_logged_model("0").model_id
    store = store_for(server)
    run_id = drive(store.create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    inputs = [dataset_entry(DATASET, {"k": "v"}), model_entry(model_id), output_entry(model_id, 2)]
    batch = Batch(inputs=[*inputs, ("model:x", "{}")], tags=[("t", "1")])
    for _ in range(2):
        (refused,) = drive(send_batch(store, run_id, batch, None))
        assert (refused.kind, refused.key) == ("input", "model:x")
    with behind.tracking(server) as client:
        run = client.get_run(run_id)
    assert says(run, {model_id: "it"})[1:] == (["it"], [("it", 2)])
    assert len(run.inputs.dataset_inputs) == 1
    assert run.data.tags["t"] == "1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model:m", "[]"),
        ("model:m", "{"),
        ("model:m", '{"model_id": 5}'),
        ("output:m", '{"model_id": "m", "step": true}'),
        ("dataset:x", '{"name": "n", "digest": "d", "source_type": "t", "source": "s", "schema": 1}'),
        ("dataset:x", '{"name": "n", "digest": "d", "source_type": "t", "source": "s", "tags": {"k": 1}}'),
        ("elsewhere:x", "{}"),
    ],
)
def test_what_stands_in_a_journal_is_not_trusted(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"input|lacks|text|step|Expecting"):
        input_of(name, text)


def test_a_store_that_keeps_none_refuses_them_and_takes_the_rest(tmp_path: Path) -> None:
    """Where somebody has what was logged for a server sent elsewhere."""
    store = store_for(str(tmp_path / "mlruns"))
    assert not drive(store.takes_inputs())
    run_id = drive(store.create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    (refused,) = drive(send_batch(store, run_id, Batch(params=[("p", "1")], inputs=[model_entry("m")]), None))
    assert (refused.kind, refused.key) == ("input", "model:m")
    assert drive(store.get_run(run_id)).data.params == {"p": "1"}
