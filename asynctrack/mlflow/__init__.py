"""asynctrack behind unmodified ``mlflow.*``: see docs/behind-mlflow.md.

Nothing here has to be imported where the tracking URI begins with ``asynctrack+``, or ``ASYNCTRACK_MLFLOW=1`` is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["install", "installed", "uninstall"]

#: whether it was `install` that has had stores wrapped
_switched = False


def install() -> None:
    """Log through the journal whatever calls MLflow in this process, to
    whatever tracking URI.

    Child processes do the same. A second call does nothing, and a server stays
    as it is. Raises ImportError without MLflow.
    """
    global _switched
    import mlflow.tracking  # noqa: F401  # first, so that MLflow loads the next one

    import asynctrack_for_mlflow as entry

    if not entry.is_on():
        entry.switch_on()
        if not entry.is_on():
            return  # a server
        os.environ[entry.SWITCH] = "1"
        _switched = True


def uninstall() -> None:
    """Take back what `install` did. Waits until everything logged so far is
    delivered, ``close_timeout`` seconds at most: from then on MLflow itself
    writes to the store, and ends the runs that are open."""
    global _switched
    import asynctrack_for_mlflow as entry
    from asynctrack.mlflow.runs import leave_all

    if _switched:
        _switched = False
        os.environ.pop(entry.SWITCH, None)
        entry.switch_off()
        leave_all()


@contextmanager
def installed() -> Iterator[None]:
    """`install` for the length of a block, then `uninstall`."""
    install()
    try:
        yield
    finally:
        uninstall()
