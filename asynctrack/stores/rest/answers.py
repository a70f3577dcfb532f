"""What a server's answer means: the JSON it holds, or the `StoreError` whose class says what to do. Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from asynctrack.errors import (
    AlreadyExistsError,
    AuthenticationError,
    NotFoundError,
    RefusedError,
    ServerFaultError,
    StoreError,
    UnavailableError,
    WrongServerError,
)

if TYPE_CHECKING:
    import httpx

__all__ = ["CREDENTIALS_OF_A_PROXY", "RETRYABLE_STATUSES", "RaceError", "check_done", "error_of", "json_of"]

#: "try again later", whoever on the way says it
RETRYABLE_STATUSES = frozenset({408, 425, 429, 502, 503, 504})
#: two clients were the first to write the same param, tag or experiment; the second attempt finds it there
_RACE = re.compile(r"unique constraint|UniqueViolation|IntegrityError|Duplicate entry", re.IGNORECASE)
#: what could not be written, in what SQLAlchemy tells of it
_TABLE = re.compile(r"\[SQL: (?:INSERT INTO|UPDATE) \W?(\w+)")
#: so many requests at once that all of the server's database connections are in use; SQLAlchemy has waited 30 s for one
_BUSY = re.compile(r"QueuePool limit of size")
#: an exception of the server's database, of whatever class; MLflow says BAD_REQUEST for each that is not operational
_DATABASE = re.compile(
    r"\((?:\w+\.)+(?P<kind>[A-Z]\w*)\)|sqlalche\.me/|expected to (?:update|delete) \d+ row|Connection is closed"
)
#: classes of those which are about what was to be stored
_OF_THE_DATA = re.compile(
    r"DataError|\w*Violation|StringDataRightTruncation|NumericValueOutOfRange|UntranslatableCharacter"
    r"|CharacterNotInRepertoire|InvalidTextRepresentation"
)
#: what says that it is about the moment: another takes over as the primary, connections are lost, transactions clash
_OF_THE_MOMENT = re.compile(
    r"read.?only|deadlock|serializ|connection|transaction|gone away|standby|recovery|shut|terminat|timed? ?out|timeout"
    r"|\block|closed",
    re.IGNORECASE,
)
#: sent with status 500 or 501, and no better the next time: an experiment is deleted, say
_FINAL = ("INVALID_STATE", "NOT_IMPLEMENTED")
_SHOWN = 300
#: for status 407
CREDENTIALS_OF_A_PROXY = "a proxy wants to know who asks; name it as http://user:password@host:port"
#: statuses that say by themselves that it is stored, and what MLflow's servers and storages answer with others
_STORED, _DONE = (201, 202, 204), (b"", b"{}", b"null")
#: where MLflow's newer servers word their errors in another way
_ARTIFACTS = "/mlflow-artifacts/"
#: bytes of a page that is not JSON, in which a text of that length is looked for
_LOOKED_AT = 16_384


class RaceError(UnavailableError):
    """What was to be stored is there already: another client was faster, or the server does not know it again.

    It may never be stored, as two values of one metric of a logged model at one time and step. ``table``: where there
    was no room for it; empty if the server does not say.
    """

    suspicious = True
    table = ""


def json_of(response: httpx.Response, what: str, fields: Collection[str] | None = None) -> dict[str, Any]:
    """The object in a 2xx answer. Raises `UnavailableError` for anything else: who knows what has answered.

    ``fields``: what MLflow's servers may say here (None: anything). They leave out what is empty, so an answer without
    any field is one of theirs. With fields of which none is among these, it comes from something in their place.
    """
    try:
        # MLflow's bulk history holds bare NaN and Infinity, which Python reads.
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _not_mlflows(response, what, f"something that is not JSON{_excerpt(response)}")
    if fields is not None and answer and not any(name in answer for name in fields):
        # Not what is in them: there are programs that answer with the request, its credentials included.
        raise _not_mlflows(response, what, f"fields that no MLflow server gives here: {_cut(', '.join(answer))}")
    return answer


def check_done(response: httpx.Response, what: str) -> None:
    """Whether a file is stored, or deleted, to whose PUT or DELETE this is the 2xx answer. Raises as `json_of`."""
    if response.status_code not in _STORED and b"".join(response.content.split()) not in _DONE:
        raise _not_mlflows(response, what, f"what none says that has done it{_excerpt(response)}")


def _not_mlflows(response: httpx.Response, what: str, that: str) -> StoreError:
    if "html" in response.headers.get("content-type", ""):
        # A login page, most often: a proxy in front of the server wants to know who we are.
        return WrongServerError(f"{what} was answered with a web page, not by an MLflow server{_excerpt(response)}")
    failure = UnavailableError(f"{what} was answered with {that}")
    failure.ambiguous = True
    return failure


def error_of(response: httpx.Response, what: str) -> StoreError:
    """The error that an answer of status 300 or more stands for.

    ``what`` names the request, for the message. MLflow's servers answer in JSON with an ``error_code``; whatever does
    not comes from something on the way, or from a server that crashed. Their code becomes the error's.
    """
    code, message = _mlflow_error(response)
    failure = _error_of(response, what, code, message)
    if code:
        failure.error_code = code
    elif response.status_code == 403 and isinstance(failure, AuthenticationError):
        failure.error_code = "PERMISSION_DENIED"
    return failure


def _error_of(response: httpx.Response, what: str, code: str, message: str) -> StoreError:
    status = response.status_code
    said = f"{code}: {_cut(message)}" if code else f"HTTP {status}{_excerpt(response)}"
    text = f"{what}: {said}"
    if status in RETRYABLE_STATUSES or code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
        failure = UnavailableError(text, retry_after=_retry_after(response))
        failure.ambiguous = status in (408, 502, 504)
        return failure
    if 300 <= status < 400:
        return _redirected(response, what)
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return AuthenticationError(f"{text}. The server does not know these credentials")
    if status == 407:
        return WrongServerError(f"{text}: {CREDENTIALS_OF_A_PROXY}")
    if status == 403:
        return _forbidden(text)
    if status == 413:
        return RefusedError(f"{text}. Something on the way does not let a request of this size pass")
    if code in _FINAL:
        return RefusedError(text)
    if code == "FEATURE_DISABLED":  # at every call that names a workspace to a server that has none
        return WrongServerError(f"{text}. Unset MLFLOW_WORKSPACE, unless the server is to be started with workspaces")
    if status >= 500:
        return ServerFaultError(text, retry_after=_retry_after(response))
    if code:
        return _from_code(code, message, text)
    if status in (404, 405):
        return WrongServerError(
            f"{text}. There is no MLflow server at this address; check host, port and path of the tracking URI"
        )
    return ServerFaultError(text)


def _from_code(code: str, message: str, text: str) -> StoreError:
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        return NotFoundError(text)
    if code in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
        return AlreadyExistsError(text)
    if code in ("ABORTED", "RESOURCE_CONFLICT", "CANCELLED", "DEADLINE_EXCEEDED"):
        return UnavailableError(text)
    if code == "BAD_REQUEST":
        return _from_database(message, text)
    if code == "ENDPOINT_NOT_FOUND":
        return WrongServerError(text)
    return RefusedError(text)


def _from_database(message: str, text: str) -> StoreError:
    """For BAD_REQUEST. The whole ``message`` counts: what is shown of it may lack the exception's class."""
    if _RACE.search(message):
        race = RaceError(text)
        race.table = found[1] if (found := _TABLE.search(message)) else ""
        return race
    if _BUSY.search(message):
        return UnavailableError(text)
    said = message.partition("[SQL:")[0]  # behind it are the values, which may hold any word
    exception = _DATABASE.search(said)
    if exception is None or _OF_THE_DATA.fullmatch(exception["kind"] or ""):
        return RefusedError(text)
    return UnavailableError(text) if _OF_THE_MOMENT.search(said) else ServerFaultError(text)


def _forbidden(text: str) -> StoreError:
    if "Host header" in text:
        return WrongServerError(
            f"{text}. The MLflow server does not know itself under this name: start it with `--allowed-hosts NAME` "
            "(or MLFLOW_SERVER_ALLOWED_HOSTS), or use localhost or its private address"
        )
    if "Cross-origin" in text or "CORS" in text:
        return WrongServerError(f"{text}. Start the server with `--cors-allowed-origins`")
    return AuthenticationError(f"{text}. These credentials may not do this")


def _redirected(response: httpx.Response, what: str) -> StoreError:
    import httpx

    target = response.headers.get("location", "")
    try:
        url = response.request.url.join(target)
        shown = f"{url.scheme}://{url.netloc.decode()}{url.path}".replace(url.userinfo.decode() + "@", "")
    except (httpx.InvalidURL, ValueError, RuntimeError):
        shown = "somewhere unreadable"
    return WrongServerError(
        f"{what} was redirected to {shown}, which asynctrack does not follow: it would take the credentials there. "
        "If that is the MLflow server, make it the tracking URI; if it is a login page, give credentials"
    )


def _mlflow_error(response: httpx.Response) -> tuple[str, str]:
    """``error_code`` and ``message``; the first is empty where the answer is not MLflow's."""
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    if isinstance(answer.get("error_code"), str):
        return answer["error_code"], str(answer.get("message", ""))
    if "detail" in answer and response.status_code == 400 and _ARTIFACTS in response.request.url.path:
        return "INVALID_PARAMETER_VALUE", str(answer["detail"])
    return "", ""  # with "detail" too: whatever FastAPI serves answers so to what it does not know


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, at most an hour, from either form of the header."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 3600.0)


def _excerpt(response: httpx.Response) -> str:
    shown = response.content[:_LOOKED_AT].decode("utf-8", "replace")
    # There are programs that answer with the request.
    for sent in response.request.headers.get("authorization", "").split():
        shown = shown.replace(sent, "…") if len(sent) > len("Negotiate") else shown
    text = " ".join(re.sub(r"<(style|script|title).*?</\1>|<[^>]*>", " ", shown, flags=re.S | re.I).split())
    return f" ({_cut(text)})" if text else " (empty)"


def _cut(text: str) -> str:
    """``text`` without its middle, which may be a value of any length: a server's reason stands before or behind it."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}"
