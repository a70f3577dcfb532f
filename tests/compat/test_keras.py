"""Keras leaves the same behind asynctrack: by MLflow's autologging and callback. It takes too long to install for every
run of the tests: `pip install keras jax` (or torch), and these run, too."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tests import servers
from tests.compat.behind_mlflow import mlflow
from tests.compat.test_autologging import _autologging_off, compare

__all__ = ["_autologging_off"]  # a fixture, here too

BACKEND = next((name for name in ("jax", "torch") if find_spec(name)), None)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of MLflow, of the libraries, and of each about the other
    pytest.mark.skipif(not find_spec("keras") or not BACKEND, reason="Keras is not installed, or no backend"),
]


@pytest.fixture
def server(sqlite_server: servers.MlflowServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KERAS_BACKEND", str(BACKEND))
    monkeypatch.setattr(mlflow.models, "infer_pip_requirements", lambda *_, **__: ["keras"])
    return sqlite_server.url


def fit(epochs: int, **settings: Any) -> None:
    keras: Any = import_module("keras")
    keras.utils.clear_session()  # or else it counts the optimizers
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", metrics=["mae"])
    features = np.random.default_rng(7).normal(size=(32, 3)).astype("float32")
    model.fit(features, features.sum(axis=1), epochs=epochs, batch_size=8, verbose=0, **settings)


def by_autologging() -> None:
    mlflow.keras.autolog()
    fit(3, validation_split=0.25)


def by_callback() -> None:
    """Each step; and each epoch, with the run given."""
    with mlflow.start_run():
        fit(2, callbacks=[mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)])
    with mlflow.start_run() as run:
        fit(3, callbacks=[mlflow.keras.MlflowCallback(run)])


@pytest.mark.parametrize(("program", "least"), [(by_autologging, 12), (by_callback, 20)])
def test_keras(server: str, program: Callable[[], None], least: int) -> None:
    compare(server, program, least=least)
