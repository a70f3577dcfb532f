"""Where artifacts go; and, for users, MLflow's functions of `mlflow.artifacts`: ``download_artifacts``,
``list_artifacts``, ``load_text``, ``load_dict`` and ``load_image`` (see `asynctrack.downloads`)."""

from typing import Any

_FOR_USERS = ("download_artifacts", "list_artifacts", "load_dict", "load_image", "load_text")


def __getattr__(name: str) -> Any:
    # They wait for what the process has logged, and so stand far above this folder, which knows nothing of them.
    if name in _FOR_USERS:
        from importlib import import_module

        return getattr(import_module("asynctrack.downloads"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
