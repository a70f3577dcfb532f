"""The honest status of a run that something else than its own end has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator

__all__ = ["exit_status", "status_of"]

_errors_before: BaseException | None = getattr(sys, "last_value", None)


def exit_status() -> str:
    """The `RunStatus` of a run that is still open when the interpreter ends.

    ``sys.last_value`` is the exception that ended the program, set by the interpreter itself just before it calls
    ``sys.excepthook``; so no hook needs to be replaced. In an interactive session it is merely the last mistake typed.
    """
    error = getattr(sys, "last_value", None)
    if error is None or error is _errors_before or hasattr(sys, "ps1"):
        return "FINISHED"
    return status_of(error)


def status_of(error: BaseException | None) -> str:
    """The `RunStatus` of a run that ``error`` ends; where there are several, the worst."""
    if error is None or isinstance(error, GeneratorExit):
        return "FINISHED"
    if isinstance(error, BaseExceptionGroup):  # as trio's nurseries raise it, with a single error too
        found = {status_of(one) for one in error.exceptions}
        return next(status for status in ("FAILED", "KILLED", "FINISHED") if status in found)
    if isinstance(error, SystemExit):
        return "FINISHED" if error.code in (None, 0) else "FAILED"
    return "KILLED" if isinstance(error, (KeyboardInterrupt, *_cancellations())) else "FAILED"


def _cancellations() -> Iterator[type[BaseException]]:
    """What a cancelled task raises, in the libraries that are loaded: wholly, for another thread may be importing."""
    for library, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        found = getattr(sys.modules.get(library), name, None)
        if found is not None:
            yield found
