"""The two lines that MLflow prints when a run on a server has ended: where to look at it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from asynctrack.errors import AsynctrackError
from asynctrack.runs.context import ipython_shell
from asynctrack.settings import switch

if TYPE_CHECKING:
    from asynctrack.entities import RunInfo
    from asynctrack.runs.state import RunState
    from asynctrack.stores.base import AbstractStore

__all__ = ["print_links", "print_links_in"]


def print_links(state: RunState, info: RunInfo | None) -> None:
    """Print them, unless ``MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT`` is set. Raises nothing."""
    if info is not None and state.prints_links and not state.attached:
        print_links_in(state.engine.store, info)


def print_links_in(store: AbstractStore, info: RunInfo) -> None:
    """`print_links`, for a run in a store."""
    if switch("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", default=False):
        return
    if "DATABRICKS_RUNTIME_VERSION" in os.environ and ipython_shell() is not None:
        return  # a notebook of Databricks shows links of its own
    try:
        experiment = store.experiment_page(info.experiment_id)
        if experiment is None:
            return
        page, mark, query = experiment.partition("?")
        run = f"{page}/runs/{info.run_id}{mark}{query}"
        text = f"🏃 View run {info.run_name} at: {run}\n🧪 View experiment at: {experiment}\n"
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    except (AsynctrackError, AttributeError, OSError, ValueError, LookupError):
        pass  # no credentials any more; no standard output, a closed one: the run has ended well all the same
