"""Run by an old MLflow's interpreter, which knows nothing of asynctrack: prints as JSON what that version reads of a
folder, or logs to a server as its own client does.

    old_mlflow.py read FOLDER
    old_mlflow.py log SERVER      (prints the run's id)
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

from mlflow.entities import Metric, Param, RunTag, ViewType  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402


def read(folder: str) -> dict[str, Any]:
    """Every experiment and run, deleted ones too."""
    client = MlflowClient(folder)
    found: dict[str, Any] = {"experiments": {}, "runs": {}}
    for experiment in client.search_experiments(view_type=ViewType.ALL):
        found["experiments"][experiment.experiment_id] = [
            experiment.name, experiment.artifact_location, experiment.lifecycle_stage, experiment.tags,
        ]  # fmt: skip
        for run in client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL):
            info = run.info
            found["runs"][info.run_id] = {
                "info": [
                    info.experiment_id, info.user_id, info.status, info.start_time, info.end_time, info.lifecycle_stage,
                    info.artifact_uri, info.run_name,
                ],
                "params": run.data.params,
                "tags": run.data.tags,
                "points": {
                    key: [[p.timestamp, p.step, repr(p.value)] for p in client.get_metric_history(info.run_id, key)]
                    for key in run.data.metrics
                },
            }  # fmt: skip
    return found


def log(server: str) -> str:
    """What `test_old_mlflow.log_to` logs."""
    client = MlflowClient(server)
    run_id: str = client.create_run("0", start_time=5, run_name="näme", tags={"a b": "c"}).info.run_id
    points = [Metric("loss/train", step / 7, 1000 + step, step) for step in range(900)]
    points += [Metric("odd", value, 1, step) for step, value in enumerate((float("nan"), float("inf"), -0.0))]
    client.log_batch(run_id, points, [Param("lr", "0.1"), Param("é/x", "")], [RunTag("t", "ü")])
    client.set_terminated(run_id, "FAILED", 9)
    return run_id


if __name__ == "__main__":
    json.dump({"read": read, "log": log}[sys.argv[1]](sys.argv[2]), sys.stdout)
