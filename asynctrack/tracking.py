"""Which store is meant: the tracking URI of this process."""

from __future__ import annotations

import os

from asynctrack.stores.uri import resolve_store_uri

__all__ = ["get_tracking_uri", "is_tracking_uri_set", "set_tracking_uri"]

_VARIABLE = "MLFLOW_TRACKING_URI"
_set_here: str | None = None


def set_tracking_uri(uri: str | os.PathLike[str]) -> None:
    """Set the store for runs and calls from now on; runs that are open keep theirs.

    ``""`` or a path or ``file:`` URI: MLflow's file layout there (``./mlruns`` if empty). Also sets
    ``MLFLOW_TRACKING_URI``, as MLflow does, for child processes. Raises InvalidInputError for any other kind.
    """
    global _set_here
    _set_here = resolve_store_uri(uri)
    os.environ[_VARIABLE] = _set_here


def get_tracking_uri() -> str:
    """The store for the next run: as set here, else ``MLFLOW_TRACKING_URI``, else ``./mlruns``. A canonical URI."""
    return resolve_store_uri(_set_here or os.environ.get(_VARIABLE))


def is_tracking_uri_set() -> bool:
    """Whether a store was chosen, here or by the environment."""
    return bool(_set_here or os.environ.get(_VARIABLE))
