"""Every error asynctrack raises.

::

    MlflowException                         MLflow's names: error_code, get_http_status_code()
    └── RestException
    AsynctrackError (MlflowException)
    ├── InvalidInputError (ValueError)      an argument that can never be stored; nothing was logged
    │   ├── InvalidTypeError (TypeError)        ... an object of a kind that cannot be logged
    │   └── MissingFileError (FileNotFoundError)    ... a file that is not there
    ├── NoActiveRunError                    a function on the active run found no run
    │   └── AmbiguousRunError               ... or more than one
    ├── RunEndedError                       a log call on a run that has ended
    ├── SpoolError (OSError)                the spool folder cannot be written
    │   └── SpoolFullError                  the spool is full, and spool_full="raise"
    ├── DeliveryError                       the store refused events, or they were dropped
    │   └── FlushTimeoutError (TimeoutError)    events are not delivered yet; they stay in the spool
    └── StoreError (RestException)          an error of the store; its attributes say what to do next
        ├── UnavailableError                the store cannot be reached or is overloaded (retryable)
        │   └── ServerFaultError            the server failed at this request (retryable, suspicious)
        ├── AuthenticationError             the credentials are not accepted (retryable, held)
        ├── WrongServerError                not an MLflow server, or not for this host name (retryable, held)
        ├── RefusedError                    the store will never accept this (final, splittable)
        ├── NotFoundError                   no such run, experiment, tag or artifact (final)
        └── AlreadyExistsError              the experiment's name is taken (final)

The class of an error says whether it is retryable, splittable or final. The store chooses the class, and the engine
acts on it. Besides, each class has the ``error_code`` with which MLflow reports the same, so that programs written for
MLflow handle it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

__all__ = [
    "AlreadyExistsError",
    "AmbiguousRunError",
    "AsynctrackError",
    "AuthenticationError",
    "DeliveryError",
    "FlushTimeoutError",
    "InvalidInputError",
    "InvalidTypeError",
    "MissingFileError",
    "MlflowException",
    "NoActiveRunError",
    "NotFoundError",
    "RefusedError",
    "RestException",
    "RunEndedError",
    "ServerFaultError",
    "SpoolError",
    "SpoolFullError",
    "StoreError",
    "UnavailableError",
    "WrongServerError",
]


#: MLflow's error codes: number and HTTP status by name
_CODES = {
    "INTERNAL_ERROR": (1, 500),
    "TEMPORARILY_UNAVAILABLE": (2, 503),
    "BAD_REQUEST": (4, 400),
    "DEADLINE_EXCEEDED": (7, 504),
    "CANCELLED": (8, 499),
    "RESOURCE_EXHAUSTED": (9, 429),
    "ABORTED": (10, 409),
    "NOT_FOUND": (11, 404),
    "ALREADY_EXISTS": (12, 409),
    "UNAUTHENTICATED": (13, 401),
    "INVALID_PARAMETER_VALUE": (1000, 400),
    "ENDPOINT_NOT_FOUND": (1001, 404),
    "INVALID_STATE": (1003, 500),
    "PERMISSION_DENIED": (1004, 403),
    "CUSTOMER_UNAUTHORIZED": (1006, 401),
    "REQUEST_LIMIT_EXCEEDED": (1007, 429),
    "RESOURCE_CONFLICT": (1008, 409),
    "NOT_IMPLEMENTED": (1010, 501),
    "DATA_LOSS": (1011, 500),
    "RESOURCE_ALREADY_EXISTS": (3001, 400),
    "RESOURCE_DOES_NOT_EXIST": (3002, 404),
}


class MlflowException(Exception):
    """An error with MLflow's attributes; every error of asynctrack is one.

    ``error_code``: MLflow's name of the error, like
    "RESOURCE_DOES_NOT_EXIST". ``message``: its text. The class has MLflow's
    name, and is not MLflow's class.
    """

    error_code: str = "INTERNAL_ERROR"
    json_kwargs: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, message: object = "", error_code: str | int | None = None, **kwargs: Any) -> None:
        """``error_code``: MLflow's name or number (default: that of the class). ``kwargs`` are put into
        `serialize_as_json`."""
        super().__init__(str(message))
        if error_code is not None:
            names = {number: name for name, (number, _) in _CODES.items()}
            self.error_code = error_code if isinstance(error_code, str) else names.get(error_code, "INTERNAL_ERROR")
        if kwargs:
            self.json_kwargs = kwargs

    @property
    def message(self) -> str:
        """The error's text."""
        return str(self)

    def get_http_status_code(self) -> int:
        """The HTTP status with which an MLflow server reports this error, 500 if it has no other."""
        return _CODES.get(self.error_code, (1, 500))[1]

    def serialize_as_json(self) -> str:
        """``error_code`` and ``message`` as an MLflow server sends them."""
        import json

        return json.dumps({"error_code": self.error_code, "message": self.message, **self.json_kwargs})

    @classmethod
    def invalid_parameter_value(cls, message: str, **kwargs: Any) -> Self:
        """An error with the code INVALID_PARAMETER_VALUE."""
        error = cls(message, **kwargs)
        error.error_code = "INVALID_PARAMETER_VALUE"
        return error


class RestException(MlflowException):
    """An error that a server has reported, under MLflow's name; every
    `StoreError` is one."""

    def __init__(self, json: Mapping[str, Any] | str) -> None:
        """``json``: the server's answer, with ``error_code`` and ``message``, or the error's text."""
        if isinstance(json, str):  # a copy, as pickle makes it
            super().__init__(json)
            return
        code = str(json.get("error_code") or "INTERNAL_ERROR")
        super().__init__(f"{code}: {json.get('message', f'Response: {json}')}", code)

    @property
    def json(self) -> dict[str, str]:
        """``error_code`` and ``message``."""
        return {"error_code": self.error_code, "message": self.message}


class AsynctrackError(MlflowException):
    """The base class of every error that asynctrack raises on purpose."""


class InvalidInputError(AsynctrackError, ValueError):
    """An argument can never be stored. Raised in the calling thread; nothing
    was written."""

    error_code = "INVALID_PARAMETER_VALUE"


class InvalidTypeError(InvalidInputError, TypeError):
    """An object is of a kind that can never be stored: an image that is none,
    a text that is a number."""


class MissingFileError(InvalidInputError, FileNotFoundError):
    """A file or folder that was to be logged is not there."""


class NoActiveRunError(AsynctrackError):
    """A function on the active run (`asynctrack.log_metric`) was called in a
    task that has no active run."""

    error_code = "INVALID_STATE"


class AmbiguousRunError(NoActiveRunError):
    """A function on the active run was called in a thread without one, while
    several runs are open in the process."""


class RunEndedError(AsynctrackError):
    """A log call came after the run's end."""

    error_code = "INVALID_STATE"


class SpoolError(AsynctrackError, OSError):
    """The spool folder cannot be created, locked or written."""

    #: an errno may be the first argument, as for every OSError
    __init__ = OSError.__init__


class SpoolFullError(SpoolError):
    """The spool has reached ``max_spool_bytes`` or its disk is full, and
    ``spool_full="raise"``. The event was not accepted."""

    error_code = "RESOURCE_EXHAUSTED"


class DeliveryError(AsynctrackError):
    """Events are not in the store, because it refused them or because they
    were dropped. The message says how many, why, and where refused events are
    kept."""


class FlushTimeoutError(DeliveryError, TimeoutError):
    """Events were not delivered before the timeout. They stay in the spool,
    and delivery goes on."""

    error_code = "DEADLINE_EXCEEDED"


class StoreError(AsynctrackError, RestException):
    """A request to the store failed. The attributes say what the engine does
    next.

    ``retryable``: the same request may succeed later.

    ``splittable``: a smaller batch may succeed.

    ``held``: only the user can mend it (the credentials, for example). It is
    logged once, and retried slowly.

    ``ambiguous``: the answer is lost, so the request may have been carried
    out.

    ``suspicious``: if this request keeps failing while others succeed, one of
    its events is the cause.

    ``incomplete``: only a part of the run exists. Creating the run again
    completes it.

    ``retry_after``: seconds that the server asked to wait, or None.
    """

    retryable: bool = False
    splittable: bool = False
    held: bool = False
    ambiguous: bool = False
    suspicious: bool = False
    incomplete: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        MlflowException.__init__(self, message)
        self.retry_after = retry_after


class UnavailableError(StoreError):
    """The store cannot be reached, is overloaded, or failed for a while. The
    engine tries again."""

    error_code = "TEMPORARILY_UNAVAILABLE"
    retryable = True


class ServerFaultError(UnavailableError):
    """The server failed at this request. The failure can be permanent, for
    example for a metric key that its database cannot hold."""

    error_code = "INTERNAL_ERROR"
    ambiguous = True
    suspicious = True


class AuthenticationError(StoreError):
    """The store does not accept the credentials."""

    error_code = "UNAUTHENTICATED"
    retryable = True
    held = True


class WrongServerError(StoreError):
    """The server at the tracking URI is not an MLflow server, or it does not
    serve this host name."""

    error_code = "ENDPOINT_NOT_FOUND"
    retryable = True
    held = True


class RefusedError(StoreError):
    """The store will never accept this request: one of its events, a deleted
    run, a deleted experiment."""

    error_code = "INVALID_PARAMETER_VALUE"
    splittable = True


class NotFoundError(StoreError):
    """No such run, experiment, tag or artifact."""

    error_code = "RESOURCE_DOES_NOT_EXIST"


class AlreadyExistsError(StoreError):
    """An experiment of that name exists already; it may be deleted."""

    error_code = "RESOURCE_ALREADY_EXISTS"
