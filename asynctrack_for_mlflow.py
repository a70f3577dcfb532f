"""What MLflow loads in the middle of ``import mlflow``, in every program of an environment that has asynctrack.

It is no module of the package, because whoever loads a module of a package loads the package, too, which costs fifty
times as much. It imports nothing that MLflow has not loaded, and never raises.

A tracking URI that begins with ``asynctrack+`` is understood where MLflow takes tracking URIs in (the environment,
`mlflow.set_tracking_uri`, ``MlflowClient(tracking_uri=…)``), and nowhere else: there the prefix is taken off, and from
then on the stores that MLflow builds are wrapped (`asynctrack.mlflow`). So no part of MLflow, and no child process,
sees a scheme that it does not know.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["hook", "is_on", "switch_off", "switch_on", "tracking_store"]

PREFIX = "asynctrack+"
#: asks for the wrapping whatever the URI is, and hands it on to child processes
SWITCH = "ASYNCTRACK_MLFLOW"
_URI = "MLFLOW_TRACKING_URI"
#: for what is never logged through asynctrack, and stands where somebody has given one URI for all
_OTHER_URIS = ("MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE_STORE_URI")
#: MLflow sets it in the processes of a server, which runs the code of clients too (jobs, scorers)
_SERVER = "_MLFLOW_SERVER_FILE_STORE"

#: the builders of MLflow's stores as they were, by scheme; None while nothing is wrapped
_builders: dict[str, Callable[..., Any]] | None = None


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """What the entry point names. MLflow calls it for ``asynctrack:…``, which leads nowhere."""
    raise ValueError(
        f"{store_uri!r} is no tracking URI: write asynctrack+ before one, as in asynctrack+http://127.0.0.1:5000"
    )


# ── the prefix


def without_prefix(uri: Any) -> Any:
    """``asynctrack+http://host`` becomes ``http://host``, and stores are wrapped from now on. Anything else stays."""
    if not isinstance(uri, str) or not uri.startswith(PREFIX):
        return uri
    if not _in_server():
        os.environ[SWITCH] = "1"  # for child processes, which see the plain URI
        switch_on()
    elif os.environ.get(_SERVER, PREFIX).startswith(PREFIX):
        raise ValueError(
            f"{uri!r}: a server cannot store through asynctrack, which is for the programs that log to it. Start it "
            f"with {uri[len(PREFIX) :]!r}, and give its address, after asynctrack+, to the programs"
        )
    return uri[len(PREFIX) :]


def _in_server() -> bool:
    return _SERVER in os.environ or "mlflow.server.handlers" in sys.modules


def hook(utils: Any) -> None:
    """Have MLflow's functions for tracking URIs take the prefix off. ``utils``:
    ``mlflow.tracking._tracking_service.utils``, of which others import them by name as soon as it is loaded."""
    if hasattr(utils.set_tracking_uri, "_asynctrack"):
        return
    setting, getting, resolving = utils.set_tracking_uri, utils.get_tracking_uri, utils._resolve_tracking_uri

    @functools.wraps(setting)
    def set_tracking_uri(uri: Any) -> None:
        setting(without_prefix(uri))

    @functools.wraps(getting)
    def get_tracking_uri() -> Any:
        found = getting()
        if isinstance(found, str) and found.startswith(PREFIX):  # somebody has set the environment variable
            found = os.environ[_URI] = without_prefix(found)
        return found

    @functools.wraps(resolving)
    def _resolve_tracking_uri(tracking_uri: Any = None) -> Any:
        return resolving(without_prefix(tracking_uri))

    set_tracking_uri._asynctrack = True  # type: ignore[attr-defined]  # the mark that is looked for above
    utils.set_tracking_uri, utils.get_tracking_uri = set_tracking_uri, get_tracking_uri
    utils._resolve_tracking_uri = _resolve_tracking_uri


# ── the wrapping


def is_on() -> bool:
    """Whether the stores that MLflow builds are wrapped."""
    return _builders is not None


def switch_on() -> None:
    """Wrap every store that MLflow builds from now on. Clients ask for their store at each call, so existing ones get
    a wrapped one, too."""
    global _builders
    if _builders is not None or _SERVER in os.environ:
        return
    registry = _registry()
    _builders = dict(registry._registry)
    for scheme, builder in _builders.items():
        registry._registry[scheme] = _wrapping(builder)
    registry.register = _register
    registry._get_store_with_resolved_uri.cache_clear()


def switch_off() -> None:
    """Have MLflow build its own stores again."""
    global _builders
    if _builders is None:
        return
    registry = _registry()
    registry._registry.update(_builders)
    _builders = None
    del registry.register
    registry._get_store_with_resolved_uri.cache_clear()
    wrapping = sys.modules.get("asynctrack.mlflow.wrapping")
    if wrapping is not None:
        wrapping.unwrap()


def _registry() -> Any:
    # Found so, and not imported: while entry points are loaded, the module is being imported.
    return sys.modules["mlflow.tracking._tracking_service.utils"]._tracking_store_registry


def _register(scheme: str, builder: Callable[..., Any]) -> None:
    """Instead of the registry's method while stores are wrapped: other packages' stores come later."""
    assert _builders is not None
    _builders[scheme] = builder
    _registry()._registry[scheme] = _wrapping(builder)


def _wrapping(builder: Callable[..., Any]) -> Callable[..., Any]:
    if builder is tracking_store:
        return builder

    @functools.wraps(builder)
    def build(store_uri: str, artifact_uri: str | None = None) -> Any:
        inner = builder(store_uri=store_uri, artifact_uri=artifact_uri)
        from asynctrack.mlflow.wrapping import wrapped  # now, when somebody logs

        return wrapped(inner, store_uri)

    return build


def _while_mlflow_is_imported() -> None:
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if utils is None:
        return  # somebody else imports this module first
    hook(utils)
    for name in (_URI, *_OTHER_URIS):
        given = os.environ.get(name, "")
        if given.startswith(PREFIX):
            os.environ[name] = given[len(PREFIX) :]
            os.environ[SWITCH] = "1"
    if os.environ.get(SWITCH, "").lower() in ("1", "true", "yes", "on"):
        switch_on()


try:
    _while_mlflow_is_imported()
except Exception as error:  # whatever it is, `import mlflow` goes on
    warnings.warn(f"asynctrack: MLflow logs without it: {error!r}", stacklevel=2)
