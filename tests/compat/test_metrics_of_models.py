"""Metrics that are about logged models, or were measured on datasets, are stored as MLflow 3 stores them."""

from __future__ import annotations

import json
import math
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.survey import find_spools, read_rejected
from asynctrack.recovery.rejected import retry_rejected
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from tests.mlflow_store import open_mlflow

DATASET = ("größe", "d1")
MODEL, OTHER = "m-" + 32 * "1", "m-" + 32 * "2"


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's file store on ``mlruns``."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies, while they are imported
        from mlflow.store.tracking.file_store import FileStore as Theirs
    return Theirs(str(tmp_path / "mlruns"))  # type: ignore[no-untyped-call]


def measured(model_ids: list[str]) -> list[tuple[str, int, float, int, str | None, str | None, str | None]]:
    """Key, timestamp, value, step, model and dataset of some points."""
    one, other = model_ids
    return [
        ("loss", 1, 0.5, 0, one, None, None),
        ("loss", 2, math.nan, 1, one, *DATASET),
        ("loss", 3, -math.inf, 2, None, *DATASET),
        ("loss", 3, 7.0, 3, None, None, None),
        ("loss", 4, 0.25, 3, other, None, None),
        ("a/b", 5, 1.0, -4, other, "name", "d2"),
    ]


def batch_of(points: list[Any]) -> Batch:
    metrics: dict[str, list[Any]] = {}
    for key, timestamp, value, step, model, *dataset in points:
        point = (timestamp, step, value, 7)
        more = (MeasuredOn(key, model, *dataset),) if model or dataset[0] else ()
        metrics.setdefault(key, []).append((*point, *more))
    return Batch(metrics)


def test_our_files_are_those_that_mlflow_writes(theirs: Any, tmp_path: Path) -> None:
    """Byte for byte, the run's and the models'; also where the batch comes twice, as after an answer that was lost."""
    from mlflow.entities import Metric

    ours = FileStore(tmp_path / "mlruns", InlineIO())
    found = []
    for name in ("theirs", "ours"):
        experiment_id = theirs.create_experiment(name)
        models = [theirs.create_logged_model(experiment_id).model_id for _ in range(2)]
        spec = RunSpec(uid=uuid.uuid4().hex, experiment_id=experiment_id)
        run_id = drive(ours.create_run(spec)).run_id
        points = measured(models)
        if name == "theirs":
            theirs.log_batch(run_id, [Metric(key, v, t, s, *more) for key, t, v, s, *more in points], [], [])
        else:
            bookmark = drive(ours.bookmark(run_id, batch_of(points)))
            for mark in (None, None, bookmark):
                assert drive(ours.log_batch(run_id, batch_of(points), mark)) == []
        root = tmp_path / "mlruns" / experiment_id
        folders = {run_id: "run", models[0]: "one", models[1]: "other"}
        texts = {}
        for path in [*root.glob(f"{run_id}/metrics/**/*"), *root.glob("models/*/metrics/**/*")]:
            if path.is_file():
                text = f"{path.relative_to(root)}", path.read_text("utf-8")
                for each, label in folders.items():
                    text = text[0].replace(each, label), text[1].replace(each, label)
                texts[text[0]] = text[1]
        found.append(texts)
        assert {metric.value for metric in theirs.get_logged_model(models[1]).metrics} == {0.25, 1.0}
    assert found[0] == found[1]
    of_models = {"models/one/metrics/loss", "models/other/metrics/loss", "models/other/metrics/a/b"}
    assert found[0].keys() == of_models | {"run/metrics/loss", "run/metrics/a/b"}


def test_a_torn_line_of_a_model_s_metric_is_cut_off_and_its_point_comes_again(theirs: Any, tmp_path: Path) -> None:
    ours = FileStore(tmp_path / "mlruns", InlineIO())
    model_id = theirs.create_logged_model("0").model_id
    run_id = drive(ours.create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    batch = batch_of([("m", at, at / 2, at, model_id, None, None) for at in range(3)])
    assert drive(ours.log_batch(run_id, batch)) == []
    path = tmp_path / "mlruns/0/models" / model_id / "metrics/m"
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert drive(ours.log_batch(run_id, batch)) == []
    assert path.read_text() == whole


@pytest.mark.parametrize("model_id", ["m-" + 32 * "0", "../../../outside", "", "."])
def test_a_model_that_is_not_there_gets_no_file_and_the_run_has_the_value(
    theirs: Any, tmp_path: Path, model_id: str
) -> None:
    """Nothing is written outside the models' folders, whatever the id."""
    ours = FileStore(tmp_path / "mlruns", InlineIO())
    run_id = drive(ours.create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    before = {path for path in tmp_path.rglob("*") if run_id not in str(path)}
    (refusal,) = drive(ours.log_batch(run_id, Batch({"m": [(1, 2, 0.5, 7, MeasuredOn("m", model_id))]})))
    assert "no logged model" in refusal.reason
    assert [point.value for point in drive(ours.get_metric_history(run_id, "m"))] == [0.5]
    assert {path for path in tmp_path.rglob("*") if run_id not in str(path)} == before


def test_a_dataset_whose_name_has_a_space_does_not_make_the_run_unreadable(theirs: Any, tmp_path: Path) -> None:
    """MLflow takes the line apart at its spaces: with its own line it cannot read any run of the experiment."""
    ours = FileStore(tmp_path / "mlruns", InlineIO())
    run_id = drive(ours.create_run(RunSpec(uid=uuid.uuid4().hex))).run_id
    drive(ours.log_batch(run_id, Batch({"m": [(1, 2, 0.5, 7, MeasuredOn("m", None, "two words", "d"))]})))
    assert theirs.get_run(run_id).data.metrics == {"m": 0.5}


# ── through the journal


def test_what_is_logged_for_a_model_survives_in_the_journal_and_reaches_the_model(tmp_path: Path) -> None:
    """In a database; together with points of the same metric that are about no model."""
    theirs = open_mlflow(tmp_path / "mlflow.db")
    try:
        model_id = theirs.create_logged_model("0").model_id
        metric: Any = MeasuredOn("acc", model_id, *DATASET)
        with asynctrack.start_run(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db") as run:
            run.log_metric("acc", 0.1, step=0)
            run.log_metric(metric, 0.2, step=1)
            run.log_metric("acc", 0.3, step=2)
        assert [point.value for point in theirs.get_metric_history(run.run_id, "acc")] == [0.1, 0.2, 0.3]
        (found,) = theirs.get_logged_model(model_id).metrics
        assert (found.value, found.step, found.run_id) == (0.2, 1, run.run_id)
        assert (found.dataset_name, found.dataset_digest) == DATASET
    finally:
        theirs._dispose_engine()


def test_a_refused_point_of_a_model_is_kept_with_it_and_tried_again(tmp_path: Path) -> None:
    """The model is there only when the refused events are retried."""
    theirs = open_mlflow(tmp_path / "mlflow.db")
    try:
        made = theirs.create_logged_model("0").model_id
        metric: Any = MeasuredOn("acc", MODEL, *DATASET)
        with asynctrack.start_run(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db") as run:
            run.log_metric(metric, 0.2, step=1, timestamp=5)
        asynctrack.shutdown()
        (spool,) = find_spools()
        (event,) = read_rejected([spool])
        assert (event.key, event.on) == ("acc", metric)
        line = json.loads(Path(spool, "rejected.jsonl").read_text("utf-8"))
        assert (line["model_id"], line["dataset_name"], line["dataset_digest"]) == (MODEL, *DATASET)
        with theirs.ManagedSessionMaker(read_only=False) as session:
            theirs._get_logged_model_record(session, made).model_id = MODEL
        assert retry_rejected(spool).accepted == 1
        assert [point.value for point in theirs.get_logged_model(MODEL).metrics] == [0.2]
        assert len(theirs.get_metric_history(run.run_id, "acc")) == 1
    finally:
        theirs._dispose_engine()
