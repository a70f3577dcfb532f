"""Every error asynctrack raises.

::

    AsynctrackError
    ├── InvalidInputError (ValueError)      a key, value, step, name or URI that can never be stored; nothing logged
    ├── NoActiveRunError                    a fluent function found no run to log to
    │   └── AmbiguousRunError               ... or more than one
    ├── RunEndedError                       a log call on a run that has ended
    ├── SpoolError (OSError)                the spool directory cannot be written
    │   └── SpoolFullError                  max_spool_bytes is reached and the policy is "raise"
    ├── DeliveryError                       flush() or terminate(): events were refused by the store
    │   └── FlushTimeoutError (TimeoutError)    ... or are not delivered yet; they stay in the spool
    └── StoreError                          what a store says: carries the decision (retryable, splittable, held)
        ├── UnavailableError                try again later (retryable)
        │   └── ServerFaultError            ... it failed at this very request, maybe for good (retryable, suspicious)
        ├── AuthenticationError             hold, try again slowly, until the credentials are mended (retryable, held)
        ├── WrongServerError                what answers there is no MLflow server for us (retryable, held)
        ├── RefusedError                    this will never be accepted (final; splittable: it may be one item's fault)
        ├── NotFoundError                   no such run or experiment (final)
        └── AlreadyExistsError              that name is taken (final)

Whether an error is retryable, splittable or final is an attribute of its class, decided in the store and read by the
engine; no other place decides it.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExistsError",
    "AmbiguousRunError",
    "AsynctrackError",
    "AuthenticationError",
    "DeliveryError",
    "FlushTimeoutError",
    "InvalidInputError",
    "NoActiveRunError",
    "NotFoundError",
    "RefusedError",
    "RunEndedError",
    "ServerFaultError",
    "SpoolError",
    "SpoolFullError",
    "StoreError",
    "UnavailableError",
    "WrongServerError",
]


class AsynctrackError(Exception):
    """The root of the tree; ``except asynctrack.AsynctrackError`` catches everything asynctrack raises on purpose."""


class InvalidInputError(AsynctrackError, ValueError):
    """Raised in the caller, before anything is written, when an argument can never be stored."""


class NoActiveRunError(AsynctrackError):
    """A fluent function was called where no run is active."""


class AmbiguousRunError(NoActiveRunError):
    """A fluent function was called in a thread of its own while several runs are open."""


class RunEndedError(AsynctrackError):
    """A log call came after the run's end."""


class SpoolError(AsynctrackError, OSError):
    """The spool directory cannot be created, locked or written."""


class SpoolFullError(SpoolError):
    """``max_spool_bytes`` (or the disk) is full and ``spool_full="raise"``; the event was not accepted."""


class DeliveryError(AsynctrackError):
    """Some accepted events are not in the store; the message says how many, why, and where they are kept."""


class FlushTimeoutError(DeliveryError, TimeoutError):
    """The timeout passed before everything was delivered. The events stay in the spool and go on being delivered."""


class StoreError(AsynctrackError):
    """A store could not do what was asked.

    ``retryable``: the same request may succeed later. ``splittable``: a smaller batch may succeed. ``held``: wait for
    the user to mend something (credentials) and say so loudly, once. ``ambiguous``: the request may have been
    carried out although the answer was lost. ``suspicious``: if the store goes on failing at this request while it
    takes others, one event in it is the cause. ``retry_after``: seconds the server asked to wait, or None.
    """

    retryable: bool = False
    splittable: bool = False
    held: bool = False
    ambiguous: bool = False
    suspicious: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(StoreError):
    """The store cannot be reached, is overloaded, or failed in a way that passes."""

    retryable = True


class ServerFaultError(UnavailableError):
    """The server failed at this request. Such failures can be permanent: a metric key that its database or file
    system cannot hold, for example."""

    ambiguous = True
    suspicious = True


class AuthenticationError(StoreError):
    """The store does not accept the credentials."""

    retryable = True
    held = True


class WrongServerError(StoreError):
    """What answers at the tracking URI is no MLflow server, or one that does not serve this host name."""

    retryable = True
    held = True


class RefusedError(StoreError):
    """The store will never accept this."""

    splittable = True


class NotFoundError(StoreError):
    """No such run or experiment."""


class AlreadyExistsError(StoreError):
    """An experiment of that name exists already."""
