"""Says at the end that the real MLflow has logged what was meant for asynctrack.

``import asynctrack as mlflow`` followed by ``import mlflow.sklearn`` makes ``mlflow`` the real MLflow again. Python
gives no way to prevent that, and nothing fails: nothing of asynctrack is used from there on.
"""

from __future__ import annotations

import logging
import re
import sys
from types import ModuleType

from asynctrack.engine.shutdown import Phase, Shutdown, at_shutdown

__all__ = ["mistaken_module"]

logger = logging.getLogger("asynctrack")

_IMPORT = re.compile(r"^[ \t]*import asynctrack as mlflow\b", re.MULTILINE)
_told = False


def mistaken_module() -> str | None:
    """The file of a module that has imported asynctrack under the name ``mlflow``, and in which that is the real MLflow
    now; None unless that has begun a run. Raises nothing."""
    theirs, fluent = sys.modules.get("mlflow"), sys.modules.get("mlflow.tracking.fluent")
    if theirs is None or fluent is None or not _last_run(fluent) or _is_behind():
        return None
    for name, module in list(sys.modules.items()):
        # Not by getattr: a module that loads its parts when they are asked for (optuna.integration) may have none.
        names = module.__dict__ if isinstance(module, ModuleType) else {}
        path = names.get("__file__")
        if name == "__main__":
            path = path or (sys.argv or [""])[0]  # Python takes it away when the script is through
        if name.partition(".")[0] == "mlflow" or not path or names.get("mlflow") is not theirs:
            continue
        try:
            with open(path, encoding="utf-8") as file:
                if _IMPORT.search(file.read()):
                    return str(path)
        except (OSError, ValueError):
            continue  # it has no source
    return None


def _is_behind() -> bool:
    """Whether asynctrack is behind mlflow, so that what that logs goes through the journal."""
    behind = sys.modules.get("asynctrack_for_mlflow")
    return behind is not None and bool(behind.is_on())


def _last_run(fluent: ModuleType) -> object:
    found = getattr(fluent, "_last_active_run_id", None)
    get = getattr(found, "get", None)
    return found if get is None else get()  # before MLflow 2.14 it is the id itself


def _tell(_: Shutdown) -> None:
    global _told
    path = None if _told else mistaken_module()
    if path is not None:
        _told = True
        logger.warning(
            "asynctrack: %s imports asynctrack as mlflow, but the real MLflow has logged its run: an import like "
            "`import mlflow.sklearn` behind it gives the name back to MLflow. Import both under names of their own, or "
            "put asynctrack behind mlflow (docs/behind-mlflow.md)",
            path,
        )


at_shutdown(Phase.LEAVING, _tell)
