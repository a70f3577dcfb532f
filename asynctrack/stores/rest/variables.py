"""MLflow's environment variables about requests: how long to wait, how many connections to keep, how often to ask.

They are read at each request, so a change counts from the next one on.
"""

from __future__ import annotations

import os

from asynctrack.clock import chance
from asynctrack.errors import InvalidInputError
from asynctrack.settings import switch

__all__ = ["kept_connections", "pause_before", "request_timeout", "retries", "transfer_timeout"]

#: seconds for an answer, unless MLFLOW_HTTP_REQUEST_TIMEOUT says otherwise; MLflow's own default
_REQUEST_TIMEOUT = 120.0
#: seconds that are as good as for ever; a socket takes no infinity
_LONGEST = 1e7
#: connections that are kept for later requests
_CONNECTIONS = 32
#: longest pause in seconds between two attempts, as in MLflow's client
_LONGEST_PAUSE = 120.0
_MOST_RETRIES = 10_000


def request_timeout() -> float:
    """Seconds to wait for a connection, for the next piece of an answer, and to send a piece of a request."""
    return _number("MLFLOW_HTTP_REQUEST_TIMEOUT", _REQUEST_TIMEOUT, "seconds greater than 0")


def transfer_timeout() -> float:
    """The same for the content of artifacts."""
    return _number("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", request_timeout(), "seconds greater than 0")


def kept_connections() -> int:
    """How many connections are kept for later requests; there may be more at a time."""
    return int(_number("MLFLOW_HTTP_POOL_MAXSIZE", _CONNECTIONS, "connections greater than 0"))


def retries() -> int:
    """How often a call that waits asks again when the server is away or overloaded; 0 unless the variable is set."""
    return min(int(_number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 0.0, "attempts, at least 0", least=0.0)), _MOST_RETRIES)


def pause_before(attempt: int, retry_after: float | None) -> float:
    """Seconds before the ``attempt``-th attempt after the first."""
    if retry_after is not None and switch("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", default=True):
        return retry_after
    factor = _number("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 2.0, "seconds, at least 0", least=0.0)
    jitter = _number("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", 1.0, "seconds, at least 0", least=0.0)
    return min(factor * 2.0 ** min(attempt - 1, 60) + jitter * chance(), _LONGEST_PAUSE)


def _number(variable: str, default: float, what: str, *, least: float | None = None) -> float:
    text = os.environ.get(variable, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = -1.0
    if not (number > 0 if least is None else number >= least):  # NaN, too
        raise InvalidInputError(f"{variable}={text!r}: it must be a number of {what}")
    return min(number, _LONGEST)
