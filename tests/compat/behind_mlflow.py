"""Programs that call ``mlflow``, and what is in a store after them, for comparing runs through asynctrack with plain
ones."""

from __future__ import annotations

import math
import os
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from asynctrack.constants import UID_TAG
from asynctrack.mlflow import installed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow's own dependencies, while they are imported
    import mlflow as unmodified

    import asynctrack_for_mlflow as entry  # loaded by `import mlflow`, where the package is installed

#: called with what its annotations do not allow, too
mlflow: Any = unmodified

#: what the tables may differ in: how a run is found whose creation was sent and not answered
OURS = {UID_TAG}
#: other from run to run by nature
_BY_NATURE = {"mlflow.parentRunId", "mlflow.runName", "mlflow.source.name"}


@contextmanager
def tracking(uri: str) -> Iterator[Any]:
    """MLflow's client while ``uri`` is set; with the prefix, behind asynctrack."""
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient()
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        entry.switch_off()
        os.environ.pop(entry.SWITCH, None)


def contents(client: Any, experiment_id: str) -> list[Any]:
    """Everything that MLflow says of an experiment's runs, without what is another each time. Read by plain MLflow."""
    assert not entry.is_on()
    found = []
    for run in client.search_runs([experiment_id], run_view_type=3, order_by=["attributes.start_time"]):
        data, inputs = run.data, run.inputs
        found.append(
            {
                "status": run.info.status,
                "stage": run.info.lifecycle_stage,
                "ended": run.info.end_time is not None,
                "user": run.info.user_id,
                "params": data.params,
                "tags": {key: value for key, value in data.tags.items() if key not in OURS | _BY_NATURE},
                "tag keys": sorted(data.tags.keys() - OURS),
                "latest": {key: _comparable(value) for key, value in data.metrics.items()},
                "points": {key: _points(client, run.info.run_id, key) for key in data.metrics},
                "datasets": sorted(each.dataset.name for each in inputs.dataset_inputs),
                "models": len(getattr(inputs, "model_inputs", ())),  # none before MLflow 3
                "files": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            }
        )
    # Runs that began in one millisecond come in any order.
    return sorted(found, key=_order)


def _order(run: Any) -> Any:
    known = run["stage"], run["status"], run["tag keys"], sorted(run["params"].items()), sorted(run["tags"].items())
    return *known, sorted(run["latest"])


def models(client: Any, experiment_id: str) -> list[Any]:
    """Everything that MLflow says of an experiment's logged models, without what is another each time. Read by plain
    MLflow."""
    assert not entry.is_on()
    names = {run.info.run_id: run.info.run_name for run in client.search_runs([experiment_id], run_view_type=3)}
    assert names
    found = [
        {
            "type": model.model_type,
            "status": str(model.status),
            "params": model.params,
            "tags": sorted(model.tags),
            "of a run": model.source_run_id in names,
            "points": sorted(
                (metric.key, metric.step, repr(metric.value), metric.dataset_name or "", metric.run_id in names)
                for metric in model.metrics or ()
            ),
        }
        for model in client.search_logged_models([experiment_id])
    ]
    return sorted(found, key=repr)


def _points(client: Any, run_id: str, key: str) -> Counter[tuple[int, Any]]:
    return Counter((point.step, _comparable(point.value)) for point in client.get_metric_history(run_id, key))


def _comparable(value: float) -> Any:
    return "NaN" if math.isnan(value) else value


#: ways of running a program
PLAIN, PREFIX, INSTALLED = "plain", "asynctrack+", "install()"


def after(uri: str, program: Callable[[Any, str], Any], way: str = PLAIN) -> tuple[Any, list[Any]]:
    """What a program returns that is given a client and a new experiment, and what it has stored."""
    with tracking(uri) as client:
        experiment_id = client.create_experiment(f"behind-{uuid.uuid4().hex}")
    through = installed() if way == INSTALLED else nullcontext()
    with tracking(f"asynctrack+{uri}" if way == PREFIX else uri) as client, through:
        result = program(client, experiment_id)
    with tracking(uri) as client:
        return result, contents(client, experiment_id)
