"""Libraries that log to MLflow by themselves leave the same behind asynctrack: runs, metrics, params, tags, models."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from asynctrack.mlflow import points
from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow, of the libraries, and of each about the other


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow finds out what a model needs by loading it in a process of its own: that takes most of the time."""
    monkeypatch.setattr(mlflow.models, "infer_pip_requirements", lambda *_, **__: ["scikit-learn"])


@pytest.fixture(autouse=True)
def _autologging_off() -> Iterator[None]:
    yield
    mlflow.autolog(disable=True)


#: metrics that are another each time
TIMES = ("_time", "_runtime", "_per_second")


def digits() -> tuple[Any, Any]:
    random = np.random.default_rng(7)
    features = random.normal(size=(60, 3))
    return features, (features.sum(axis=1) > 0).astype(int)


def left_by(server: str, program: Callable[[], Any], way: str, merged: str | None = None) -> Any:
    """What a program leaves, with the logged models and their metrics. ``merged``: a metric of which plain MLflow may
    keep one of several equal points, as they may be of one millisecond: how many there are is left out."""

    def run(_: Any, experiment_id: str) -> str:
        mlflow.set_experiment(experiment_id=experiment_id)
        try:
            program()
        finally:
            mlflow.tracking.fluent._active_experiment_id = None
        return experiment_id

    experiment_id, runs = behind.after(server, run, way)
    for each in runs:
        each["tags"].pop("mlflow.log-model.history", None)  # it names runs
        for key in [key for key in each["points"] if key.endswith(TIMES)]:
            each["latest"][key], each["points"][key] = "seconds", Counter({"points": each["points"][key].total()})
        if merged in each["points"]:
            each["points"][merged] = Counter(set(each["points"][merged]))
    with behind.tracking(server) as client:
        return runs, behind.models(client, experiment_id)


def compare(server: str, program: Callable[[], Any], *, least: int, merged: str | None = None) -> None:
    plain = left_by(server, program, behind.PLAIN, merged)
    count = sum(sum(each.values()) for run in plain[0] for each in run["points"].values())
    assert count >= least
    assert left_by(server, program, behind.PREFIX, merged) == plain


def sklearn_program() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mlflow.sklearn.autolog()
    features, classes = digits()
    model = LogisticRegression(max_iter=50).fit(features, classes)
    model.score(features[:20], classes[:20])
    mlflow.sklearn.autolog(log_models=False)
    with mlflow.start_run(run_name="in a run"):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(features, classes)
        mlflow.log_metric("by hand", 1.0)


def test_scikit_learn(server: str) -> None:
    """A model in a run of its own, its score afterwards; a grid search with a run for each candidate."""
    compare(server, sklearn_program, least=12)


def xgboost_program() -> None:
    import xgboost

    mlflow.xgboost.autolog()
    features, classes = digits()
    data = xgboost.DMatrix(features, label=classes)
    parameters = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1, "eval_metric": ["logloss", "error"]}
    xgboost.train(parameters, data, num_boost_round=5, evals=[(data, "train")])
    xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(features, classes)


def test_xgboost(server: str) -> None:
    """Its metrics belong to the model, one point a round."""
    pytest.importorskip("xgboost")
    compare(server, xgboost_program, least=10)


def relogging_program() -> None:
    from mlflow.entities import Metric

    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        for step in range(3):
            client.log_batch(run_id, [Metric("loss", 0.5, time.time_ns() // 1_000_000, step)])
        model_id = mlflow.initialize_logged_model(name="m").model_id
        for point in client.get_metric_history(run_id, "loss")[:2]:
            client.log_batch(run_id, [Metric("loss", 0.5, point.timestamp, point.step, model_id)])
        mlflow.finalize_logged_model(model_id, "READY")


def test_points_that_are_logged_again_about_a_model_are_the_run_s_once(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow does when it logs a model. On a fast machine they were taken for observations of the same moment."""
    monkeypatch.setattr(points, "_A_MOMENT", 600_000)
    compare(server, relogging_program, least=3)


def lightgbm_program() -> None:
    lightgbm: Any = pytest.importorskip("lightgbm")

    mlflow.lightgbm.autolog()
    features, classes = digits()
    data = lightgbm.Dataset(features, label=classes)
    parameters = {"objective": "binary", "num_leaves": 3, "num_threads": 1, "verbose": -1, "metric": "binary_logloss"}
    lightgbm.train(parameters, data, num_boost_round=5, valid_sets=[data], valid_names=["train"])


def test_lightgbm(server: str) -> None:
    compare(server, lightgbm_program, least=5)


def optuna_program() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=7)

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", -1.0, 1.0)
        with mlflow.start_run(nested=True, run_name=f"trial {trial.number}"):
            mlflow.log_params(trial.params)
            for step in range(3):
                mlflow.log_metric("loss", x * x / (step + 1), step=step)
        return float(x * x)

    def log_trial(study: Any, trial: Any) -> None:
        mlflow.log_metric("best", study.best_value, step=trial.number)

    with mlflow.start_run(run_name="study"):
        optuna.create_study(sampler=sampler).optimize(objective, n_trials=5, callbacks=[log_trial])


def test_optuna(server: str) -> None:
    """A run for each trial within the study's."""
    pytest.importorskip("optuna")
    compare(server, optuna_program, least=20)
