"""The module that `import mlflow` loads in every environment with asynctrack: it costs nothing and breaks nothing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack_for_mlflow as entry

UTILS = "mlflow.tracking._tracking_service.utils"


class Registry:
    """As much of MLflow's registry of stores as is used."""

    def __init__(self) -> None:
        self._registry: dict[str, Callable[..., Any]] = {"http": dict}
        self.cleared = 0

    def register(self, scheme: str, builder: Callable[..., Any]) -> None:
        self._registry[scheme] = builder

    @property
    def _get_store_with_resolved_uri(self) -> Any:
        return types.SimpleNamespace(cache_clear=lambda: None)


def made_utils() -> Any:
    """MLflow's module as the entry point finds it: with the functions, and a registry."""
    utils: Any = types.ModuleType(UTILS)
    utils.given = None

    def set_tracking_uri(uri: Any) -> None:
        utils.given = uri

    utils.set_tracking_uri = set_tracking_uri
    utils.get_tracking_uri = lambda: utils.given or os.environ.get("MLFLOW_TRACKING_URI")
    utils._resolve_tracking_uri = lambda uri=None: uri or utils.get_tracking_uri()
    utils._tracking_store_registry = Registry()
    return utils


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    found = made_utils()
    monkeypatch.setitem(sys.modules, UTILS, found)
    monkeypatch.delitem(sys.modules, "mlflow.server.handlers", raising=False)
    yield found
    entry.switch_off()
    os.environ.pop(entry.SWITCH, None)


def wraps(utils: Any) -> bool:
    return all(hasattr(builder, "__wrapped__") for builder in utils._tracking_store_registry._registry.values())


def load() -> None:
    importlib.reload(entry)


def test_nothing_happens_where_nobody_asks(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    load()
    assert not entry.is_on()
    assert not wraps(utils)
    assert utils._resolve_tracking_uri() == "http://host"
    assert entry.SWITCH not in os.environ


def test_a_prefix_in_the_environment_is_taken_off_for_child_processes_too(
    utils: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "asynctrack+http://host")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "asynctrack+http://registry")
    load()
    assert wraps(utils)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://host"
    assert os.environ["MLFLOW_REGISTRY_URI"] == "http://registry"
    assert os.environ[entry.SWITCH] == "1"


def test_a_prefix_is_taken_off_wherever_mlflow_takes_a_uri(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    assert utils._resolve_tracking_uri("asynctrack+databricks://profile") == "databricks://profile"
    assert wraps(utils)
    utils.set_tracking_uri("asynctrack+./mlruns")
    assert utils.given == "./mlruns"
    utils.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "asynctrack+http://later")
    assert utils.get_tracking_uri() == "http://later"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://later"


def test_the_switch_wraps_stores_of_other_packages_too(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACK_MLFLOW", "1")
    load()
    registry = utils._tracking_store_registry
    registry.register("other", list)
    assert wraps(utils)
    entry.switch_off()
    registry.register("third", tuple)
    assert registry._registry == {"http": dict, "other": list, "third": tuple}


def test_a_server_is_never_wrapped_and_says_so(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "sqlite:///mlflow.db")
    monkeypatch.setenv("ASYNCTRACK_MLFLOW", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "asynctrack+http://host")
    load()
    assert not wraps(utils)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://host"
    assert utils._resolve_tracking_uri("asynctrack+http://other") == "http://other"
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", "asynctrack+sqlite:///mlflow.db")
    with pytest.raises(ValueError, match="a server cannot store through asynctrack"):
        utils._resolve_tracking_uri("asynctrack+sqlite:///mlflow.db")


def test_a_scheme_without_a_uri_says_how_it_is_written() -> None:
    with pytest.raises(ValueError, match=r"asynctrack\+http://127\.0\.0\.1:5000"):
        entry.tracking_store("asynctrack://host")


def test_another_mlflow_than_expected_is_left_alone_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, UTILS, types.ModuleType(UTILS))
    with pytest.warns(UserWarning, match="MLflow logs without it"):
        load()


def test_loading_it_takes_less_than_a_millisecond_and_loads_nothing_of_the_package(tmp_path: Path) -> None:
    code = (
        "import collections.abc, functools, json, os, sys, time, types, typing, warnings\n"
        "utils = dict(set_tracking_uri=print, get_tracking_uri=print, _resolve_tracking_uri=print)\n"
        "took = []\n"
        "for _ in range(10):\n"
        "    sys.modules.pop('asynctrack_for_mlflow', None)\n"
        f"    sys.modules[{UTILS!r}] = types.SimpleNamespace(**utils)\n"
        "    before = set(sys.modules)\n"
        "    begun = time.process_time()\n"
        "    import asynctrack_for_mlflow\n"
        "    took.append(time.process_time() - begun)\n"
        "print(json.dumps([min(took) * 1e3, sorted(set(sys.modules) - before)]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    root = Path(entry.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    took, loaded = json.loads(done.stdout)
    assert loaded == ["asynctrack_for_mlflow"]
    assert took <= 1.0, f"it took {took:.2f} ms"
