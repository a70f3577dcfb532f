"""Keeps the log records of our own requests from a program's handlers.

httpx logs each request at INFO, and httpcore some thirty records of it at DEBUG. A program that shows these would get
lines for each of our batches; one whose handler logs a metric for each record would feed itself for ever. Whether a
request is ours stands in a context variable, so the program's own requests are logged as ever, in whatever thread or
task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["ours"]

#: all that log while one of our requests is under way; the last two, from databricks-sdk, while it fetches a token
_LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "urllib3.connectionpool",
    "databricks.sdk",
)
_ours: ContextVar[bool] = ContextVar("asynctrack_request", default=False)


def _not_ours(record: logging.LogRecord) -> bool:
    return not _ours.get()


# A filter holds for the logger that it is given to, and not for those below it: so each is named.
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_not_ours)


@contextmanager
def ours() -> Iterator[None]:
    """While it is entered, what this thread or task does with httpx is a request of ours. Not for the user's code."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
