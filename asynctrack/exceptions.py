"""MLflow's ``mlflow.exceptions``: ``from asynctrack.exceptions import MlflowException``.

Every error of asynctrack is a `MlflowException` with MLflow's ``error_code``, and every error that a store reports is a
`RestException`, so ``except`` clauses that were written for MLflow work. They are classes of asynctrack: the real
MLflow's ``except mlflow.exceptions.MlflowException`` does not catch them.
"""

from asynctrack.errors import MlflowException, RestException

__all__ = ["MlflowException", "RestException"]
