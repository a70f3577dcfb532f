"""The logged models (MLflow 3) that metrics of this process are about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow.exceptions import MlflowException

from asynctrack.errors import InvalidInputError
from asynctrack.mlflow.points import MetricPoint

__all__ = ["LoggedModels"]


class LoggedModels:
    """Those of one store. Any thread may use it."""

    def __init__(self) -> None:
        #: the models that are known to be there
        self.known: set[str] = set()
        #: by model, the runs that have logged metrics about it here
        self._runs: dict[str, set[str]] = {}

    def know(self, model: Any) -> Any:
        """Remember a model that MLflow's store has answered; the model."""
        self.known.add(model.model_id)
        return model

    def forget(self, model_id: Any) -> None:
        """Have it looked up again."""
        self.known.discard(model_id)

    def check(self, store: Any, run_id: str, points: Iterable[MetricPoint]) -> None:
        """Note that a run logs these points. MLflow's ``store`` is asked for a model when it is met for the first time.
        Raises InvalidInputError if it is not there."""
        for point in points:
            model_id = None if point.on is None else point.on.model_id
            if model_id is None:
                continue
            if model_id not in self.known:
                try:
                    self.know(store.get_logged_model(model_id))
                except MlflowException as error:
                    raise InvalidInputError(f"metric {point.key!r}: logged model {model_id!r}: {error}") from error
            self._runs.setdefault(model_id, set()).add(run_id)

    def runs_of(self, model_id: Any = None) -> set[str]:
        """The runs that have logged metrics about a model; None: about any."""
        if model_id is not None:
            return set(self._runs.get(model_id, ()))
        return {run_id for runs in list(self._runs.values()) for run_id in list(runs)}
