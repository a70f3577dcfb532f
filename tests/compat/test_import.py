"""What `import_runs` makes of a folder that MLflow has written is what MLflow's own migration makes of it."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from tests.imports import Made, make_source

#: by table: the columns that are compared. Not where artifacts are, which MLflow leaves in the old folder; nor times of
#: deletion and the type of the source, which no verb sets
COMPARED = {
    "runs": (
        "run_uuid name source_name entry_point_name user_id status start_time end_time source_version lifecycle_stage"
    ),
    "metrics": "run_uuid key timestamp step value is_nan",
    "latest_metrics": "run_uuid key timestamp step value is_nan",
    "params": "run_uuid key value",
    "tags": "run_uuid key value",
}
_USES = """
SELECT datasets.name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile, destination_id,
inputs.step, input_tags.name, value FROM inputs JOIN input_tags USING (input_uuid) JOIN datasets
ON dataset_uuid = source_id WHERE source_type = 'DATASET' AND destination_type = 'RUN'
"""
_MODELS = (
    "SELECT source_type, source_id, destination_type, destination_id, step FROM inputs WHERE source_type != 'DATASET'"
)


def rows(path: Path) -> dict[str, list[Any]]:
    connection = sqlite3.connect(path)
    try:
        found = {
            table: sorted(connection.execute(f"SELECT {', '.join(columns.split())} FROM {table}").fetchall())
            for table, columns in COMPARED.items()
        }
        found["experiments"] = sorted(connection.execute("SELECT name, lifecycle_stage FROM experiments"))
        found["input_tags"] = sorted(connection.execute(_USES))
        found["inputs"] = sorted(connection.execute(_MODELS))
        for table, columns in (("experiment_tags", "key, value"), ("runs", "run_uuid")):
            found[f"{table} of experiments"] = sorted(
                connection.execute(
                    f"SELECT experiments.name, {columns} FROM experiments JOIN {table} USING (experiment_id)"
                )
            )
        return found
    finally:
        connection.close()


def log_inputs(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have MLflow note datasets and models of two runs."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
        from mlflow.store.tracking.file_store import FileStore

        theirs = FileStore(str(made.root))  # type: ignore[no-untyped-call]
        for run_id, context in ((made.parent, "train"), (made.child, "eval")):
            sets = [
                DatasetInput(Dataset(name, "d", "local", "{}", "schema"), [InputTag("mlflow.data.context", context)])
                for name in ("a", context)
            ]
            theirs.log_inputs(run_id, sets, [LoggedModelInput("m-" + 32 * "1")])
        theirs.log_outputs(made.parent, [LoggedModelOutput("m-" + 32 * "2", 3)])


def test_the_rows_are_those_of_mlflows_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_source(tmp_path / "mlruns")
    log_inputs(made, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own dependencies
        from mlflow.store.fs2db import migrate

        migrate(made.root, f"sqlite:///{tmp_path}/theirs.db", progress=False)
    assert asynctrack.import_runs(made.root, to=f"sqlite:///{tmp_path}/ours.db").problems == ()
    ours = rows(tmp_path / "ours.db")
    # MLflow's migration makes "\n" of "\r\n"; we keep it.
    assert sum("\r" in value for _, _, value in ours["params"]) == 5
    ours["params"] = [(run, key, value.replace("\r", "")) for run, key, value in ours["params"]]
    assert ours == rows(tmp_path / "theirs.db")
    assert (len(ours["metrics"]), len(ours["input_tags"]), len(ours["inputs"])) == (5 * 711, 4, 3)
