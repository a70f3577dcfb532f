"""MLflow asks at each start and end of a run whether this is a notebook of Databricks'. Behind it, nothing is searched
for that nobody has imported; where somebody has, the answer is MLflow's."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests import servers
from tests.compat import behind_mlflow as behind
from tests.compat.behind_mlflow import mlflow

NAMES = {"dbruntime", "pyspark", "IPython"}


class Searches:
    """Stands at the head of ``sys.meta_path``, finds nothing, and remembers what was searched for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, *_: Any) -> None:
        self.names.append(name.partition(".")[0])


def databricks() -> Any:
    import mlflow.utils.databricks_utils as found

    return found


@pytest.fixture
def server(sqlite_server: servers.MlflowServer) -> str:
    return sqlite_server.url


@pytest.fixture(autouse=True)
def _without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests before this one may have loaded them."""
    for name in list(sys.modules):
        if name.partition(".")[0] in NAMES:
            monkeypatch.delitem(sys.modules, name)


def test_a_run_searches_for_no_module_that_nobody_has_imported(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind.tracking(f"asynctrack+{server}"):
        with mlflow.start_run():
            mlflow.log_metric("m", 1.0)
        searches = Searches()
        monkeypatch.setattr(sys, "meta_path", [searches, *sys.meta_path])
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1.0)
        assert not NAMES.intersection(searches.names)
        assert "mlflow.databricks.notebookID" not in mlflow.get_run(run.info.run_id).data.tags


def test_where_a_notebook_is_its_answer_counts(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind.tracking(f"asynctrack+{server}"):
        assert databricks().is_in_databricks_notebook() is False
        assert databricks().is_in_cluster() is False
        context = SimpleNamespace(isInNotebook=True, isInCluster=True)
        module: Any = ModuleType("dbruntime.databricks_repl_context")
        module.get_context = lambda: context
        monkeypatch.setitem(sys.modules, "dbruntime", ModuleType("dbruntime"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        assert databricks().is_in_databricks_notebook() is True
        assert databricks().is_in_cluster() is True
        context.isInNotebook = False
        assert databricks().is_in_databricks_notebook() is False


def test_where_a_shell_or_a_spark_session_is_it_is_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with behind.tracking(f"asynctrack+{server}"):
        with pytest.raises(databricks()._NoDbutilsError):
            databricks()._get_dbutils()
        assert databricks()._get_property_from_spark_context("key") is None
        shell: Any = ModuleType("IPython")
        shell.get_ipython = lambda: SimpleNamespace(ns_table={"user_global": {"dbutils": "found"}})
        monkeypatch.setitem(sys.modules, "IPython", shell)
        assert databricks()._get_dbutils() == "found"
        spark: Any = ModuleType("pyspark")
        task = SimpleNamespace(getLocalProperty=lambda key: f"local {key}")
        spark.TaskContext = SimpleNamespace(get=lambda: task)
        monkeypatch.setitem(sys.modules, "pyspark", spark)
        assert databricks()._get_property_from_spark_context("key") == "local key"
