"""What the shell offers behind Tab: runs, and the keys of their metrics."""

from __future__ import annotations

from asynctrack.cli.asking import ask, open_store
from asynctrack.cli.terminal import clean
from asynctrack.reading.runs import FoundRun, find_runs

__all__ = ["complete_keys", "complete_runs"]

_MOST = 100


def complete_runs(store: object, incomplete: str) -> list[tuple[str, str]]:
    """Names and ids of the latest runs that begin so, each with what it is; none where the store does not answer."""
    offered = []
    for each in _latest(store):
        info = each.run.info
        name = info.run_name or ""
        # A name that a shell would take apart is offered by its id.
        if incomplete and info.run_id.startswith(incomplete):
            offered.append((info.run_id, f"{clean(name)} {info.status}".strip()))
        elif name.startswith(incomplete) and name == clean(name) and not set(name) & set(" \"'\\$`()<>|&;*?[]#~!"):
            offered.append((name or info.run_id, info.status))
    return offered


def complete_keys(store: object, incomplete: str) -> list[str]:
    """Metric keys of the latest runs that begin so."""
    return sorted({key for each in _latest(store) for key in each.run.data.metrics if key.startswith(incomplete)})


def _latest(store: object) -> list[FoundRun]:
    from asynctrack.errors import AsynctrackError

    try:
        return list(ask(find_runs(open_store(store if isinstance(store, str) else None), limit=_MOST)))
    except AsynctrackError:
        return []  # a shell that waits for Tab has no use for an error
