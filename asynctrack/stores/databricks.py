"""Databricks workspaces: which host, and who we are there.

With databricks-sdk (``pip install 'asynctrack[databricks]'``) every way to authenticate that it knows. Without it, what
can be done by reading the environment and ``.databrickscfg``: a personal access token, or a user name and password.
Both look in the same places in the same order: environment variables first, value by value, then the profile.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.clock import monotonic
from asynctrack.constants import VERSION
from asynctrack.errors import AuthenticationError, InvalidInputError, StoreError, UnavailableError
from asynctrack.stores.databricks_config import (
    ADVICE,
    SECRETS,
    Answer,
    Found,
    find,
    organisation,
    plain_answer,
    workspace_host,
    workspace_url,
)
from asynctrack.stores.rest.auth import Guarded, Secret, TokenCredentials

if TYPE_CHECKING:
    from databricks.sdk.config import Config

__all__ = ["DatabricksCredentials", "databricks_profile", "databricks_uri"]

#: seconds until a host that did not say what it is, is asked again
_ASK_AGAIN = 60.0


def databricks_profile(uri: str) -> str | None:
    """The profile in ``databricks`` or ``databricks://profile``. Raises `InvalidInputError`."""
    if uri.lower() == "databricks":
        return None
    found = re.fullmatch(r"(?i:databricks)://([^/?#\x00-\x1f]+)/?", uri)
    if found is None:
        raise InvalidInputError("a databricks tracking URI is either databricks or databricks://profile")
    profile = found[1]
    if "@" in profile:
        raise InvalidInputError(
            "tracking URI databricks://…@…: credentials do not belong in it; write them into a profile of "
            "~/.databrickscfg, and databricks://profile"
        )
    if ":" in profile:
        raise InvalidInputError(
            f"tracking URI databricks://{profile.partition(':')[0]}:…: host and token from a secret scope are not "
            f"supported; read them in the notebook and set DATABRICKS_HOST and DATABRICKS_TOKEN, or write a profile"
        )
    return profile


def databricks_uri(profile: str | None) -> str:
    """The one spelling of a workspace's tracking URI."""
    return f"databricks://{profile}" if profile else "databricks"


class _Session(NamedTuple):
    """databricks-sdk's state, what it was made from, and until when it is good (by `monotonic`)."""

    found: Found
    config: Config
    until: float


class DatabricksCredentials(Guarded):
    """Host and headers of a workspace (see `asynctrack.stores.rest.auth.Credentials`). From any thread.

    Nothing is read or sent before the first call. Environment and file are read anew at each call, so that mended
    credentials are used from then on. ``token`` is `Settings.token`; ``timeout`` is the seconds that a call waits
    while databricks-sdk asks the workspace or an identity provider.
    """

    __slots__ = ("_lock", "_pending", "_pid", "_profile", "_sdk", "_timeout", "_token", "uri")

    def __init__(
        self, profile: str | None = None, *, token: Callable[[], str] | None = None, timeout: float = 20.0
    ) -> None:
        self.uri = databricks_uri(profile)
        self._profile = profile
        self._token = token
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._sdk: _Session | None = None
        self._pending: Future[Answer] | None = None
        self._pid = os.getpid()

    def host(self) -> str:
        """The workspace's URL, like ``https://dbc-1.cloud.databricks.com``. Raises as `headers` does."""
        return self._answer().host

    def headers(self) -> dict[str, str]:
        """``Authorization`` and what else Databricks wants. Raises `AuthenticationError` and `UnavailableError`."""
        return self._answer().headers

    def describe(self) -> str:
        """Where the credentials come from."""
        try:
            return find(self._profile).where
        except AuthenticationError as error:
            return str(error)

    def refused(self) -> None:
        """Call it when the workspace answered 401: the next call asks for a new token, if there is a way to."""
        with self._lock:
            self._sdk = None

    def _answer(self) -> Answer:
        if self._pid != os.getpid():
            self._begin()  # forked: the lock may have been held, the thread that asks is the parent's
        found = find(self._profile)
        if self._token is not None:
            host = workspace_host(found)
            return Answer(
                host, TokenCredentials(self._token, host).headers() | organisation(found.values.get("workspace_id"))
            )
        config_class = _sdk_config()
        if config_class is None:
            return plain_answer(found)
        config = self._configured(found)
        if config is not None and config.auth_type in ("pat", "basic"):
            return _ask(config, found)  # never asks anybody
        return self._wait_for(found, config_class)

    def _wait_for(self, found: Found, config_class: type[Config]) -> Answer:
        """Ask in a thread of its own, because databricks-sdk fetches tokens without any time limit."""
        with self._lock:
            future = self._pending
            if future is None or future.done():
                future = self._pending = Future()
                thread = threading.Thread(
                    target=self._settle, args=(future, found, config_class), name="asynctrack-databricks", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # interpreter exit: from Python 3.12 on no more threads then
                    self._settle_at_exit(future, found, config_class)
        try:
            return future.result(self._timeout)
        except TimeoutError:
            raise UnavailableError(
                f"{self.uri}: no token from the workspace or identity provider within {self._timeout:g} s "
                f"({found.where}); still waiting for it"
            ) from None

    def _settle(self, future: Future[Answer], found: Found, config_class: type[Config]) -> None:
        try:
            config = self._configured(found) or self._configure(config_class, found)
            answer = _ask(config, found)
        except BaseException as error:
            future.set_exception(_explained(error, self.uri, found))
        else:
            future.set_result(answer)

    def _settle_at_exit(self, future: Future[Answer], found: Found, config_class: type[Config]) -> None:
        """With the token there is. To fetch the first one could keep the process from ending."""
        if self._configured(found) is not None:
            self._settle(future, found, config_class)
        else:
            future.set_exception(UnavailableError(f"{self.uri}: no token yet, and the interpreter is exiting"))

    def _configured(self, found: Found) -> Config | None:
        """The one `Config`, unless what it was made from has changed."""
        session = self._sdk
        return session.config if session and session.found == found and monotonic() < session.until else None

    def _configure(self, config_class: type[Config], found: Found) -> Config:
        # Asks the host what it is, for its workspace id and where to get tokens; goes on without an answer. No threads
        # that refresh tokens early: they would not survive a fork, and cannot be started at interpreter exit.
        config = config_class(
            profile=self._profile,
            product="asynctrack",
            product_version=VERSION,
            http_timeout_seconds=self._timeout / 2,
            retry_timeout_seconds=math.ceil(self._timeout / 2),
            disable_async_token_refresh=True,
        )
        # A host that was down just then is asked again: without the id a shared host may choose another workspace.
        answered = config.workspace_id or config.discovery_url
        self._sdk = _Session(found, config, math.inf if answered else monotonic() + _ASK_AGAIN)
        return config


def _sdk_config() -> type[Config] | None:
    try:
        from databricks.sdk.config import Config
    except ImportError:
        return None
    return Config


def _ask(config: Config, found: Found) -> Answer:
    """Headers for one request; fetches a token where the last one has expired."""
    headers: dict[str, str] = {name: Secret(value) for name, value in config.authenticate().items()}
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise AuthenticationError(
            f"Databricks: the token contains a line break or a character outside ASCII ({found.where}): remove it"
        )
    headers |= organisation(config.workspace_id) | {"User-Agent": config.user_agent}
    return Answer(workspace_url(config.host or "", found), headers)


def _explained(error: BaseException, uri: str, found: Found) -> StoreError:
    """What databricks-sdk raised, as ours, and without a secret that somebody on the way may have quoted."""
    if isinstance(error, StoreError):
        return error
    text = f"{type(error).__name__}: {error}"
    for name in SECRETS:
        if found.values.get(name):
            text = text.replace(found.values[name], "***")
    advice = "" if found.values.get("host") else f"; {ADVICE}"
    message = f"{uri}: {text[:1000]} ({found.where}){advice}"
    return UnavailableError(message) if _passes(error) else AuthenticationError(message)


def _passes(error: BaseException) -> bool:
    """Whether it was the network or the other side; databricks-sdk wraps that in a ValueError, like all else."""
    import requests  # it comes with databricks-sdk
    from databricks.sdk import errors

    passing = (
        *(TimeoutError, requests.ConnectionError, requests.Timeout),
        *(errors.TooManyRequests, errors.InternalError, errors.TemporarilyUnavailable, errors.DeadlineExceeded),
        requests.exceptions.MissingSchema,  # "Invalid URL 'None'": the host did not say where it gives tokens
    )
    link: BaseException | None = error
    while link is not None and not isinstance(link, passing):
        link = link.__cause__
    return link is not None
