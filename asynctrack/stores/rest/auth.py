"""Who we are to a tracking server: the ``Authorization`` header, from MLflow's variables and file or from code.

What is found first is used:

1. ``asynctrack.configure(token=function)``: called before each request, for tokens that expire;
2. user name and password in the URL, ``https://user:password@host``;
3. ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``, each, where it is not set, from
   ``~/.mlflow/credentials``; without the other one neither is used;
4. ``MLFLOW_TRACKING_TOKEN``.

3 and 4 are MLflow's own order, and read anew before each request: credentials mended in the file, or in the running
process's environment, are used from then on.
"""

from __future__ import annotations

import base64
import configparser
import errno
import inspect
import os
import re
import stat
from collections.abc import Callable
from typing import NoReturn, Protocol
from urllib.parse import quote, unquote, urlsplit

from asynctrack.errors import AuthenticationError, InvalidInputError, UnavailableError

__all__ = ["Credentials", "Secret", "credentials_for", "extra_headers", "split_userinfo"]

USERNAME, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"

#: in a header these could begin another one; in a user name or password RFC 7617 forbids them. Half a surrogate pair
#: is how Python shows an environment variable's byte that is not UTF-8
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Credentials(Protocol):
    """What a client asks for its headers. From any thread; never shows a secret; cannot be pickled."""

    def headers(self) -> dict[str, str]:
        """The headers of the next request; empty where no credentials are given. Call it before each request.

        May block while a token is fetched. Raises `AuthenticationError`, saying what to do, and `UnavailableError`.
        """

    def blocks(self) -> bool:
        """Whether the next `headers` may wait for somebody: then it is not for an event loop."""

    def describe(self) -> str:
        """Where the credentials come from, for the message when a server refuses them. Raises nothing."""

    def refused(self) -> None:
        """The server refused what `headers` gave: what was kept of it is not used again."""


class Secret(str):
    """A string that ``repr`` does not show, nor therefore a traceback with local variables, nor a debugger."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


class Guarded:
    """An object that holds a secret, or a way to one."""

    __slots__ = ()

    def blocks(self) -> bool:
        """They may have to be fetched."""
        return True

    def refused(self) -> None:
        """Nothing is kept: what is looked up is looked up anew for each request."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds credentials: it is not pickled or copied")


def credentials_for(
    url: str,
    *,
    userinfo: tuple[str, str] | None = None,
    token: Callable[[], str] | None = None,
) -> Credentials:
    """The credentials for the server at ``url``, which is without userinfo (`split_userinfo`) and goes into messages.

    ``token`` is `Settings.token`. Nothing is read or called yet.
    """
    if token is not None:
        return TokenCredentials(token, url)
    if userinfo is not None:
        return UserinfoCredentials(userinfo, url)
    return EnvironmentCredentials(url)


class TokenCredentials(Guarded):
    """A bearer token from a function, called each time: whoever wants to cache it knows when it expires."""

    __slots__ = ("_token", "_url")

    def __init__(self, token: Callable[[], str], url: str) -> None:
        self._token = token
        self._url = url

    def headers(self) -> dict[str, str]:
        return bearer_header(self._call(), "what the token function returned", self._url)

    def describe(self) -> str:
        return "the token function given to asynctrack.configure(token=…)"

    def _call(self) -> Secret:
        try:
            result: object = self._token()
        except (AuthenticationError, UnavailableError):
            raise  # the function's author decides what the engine does and what is shown
        except Exception as error:
            # Not its text, nor itself as the cause: a failed request to an identity provider likes to quote its URL.
            problem = f"failed with {type(error).__name__}{_place(error)}"
        else:
            if isinstance(result, str):
                return Secret(result)
            problem = f"returned {type(result).__name__}, not a string"
            if inspect.iscoroutine(result):
                result.close()
                problem = "is a coroutine function; it must be an ordinary one, which may block"
        raise AuthenticationError(
            f"no credentials for {self._url}: the token function {problem}. It is called again before the next "
            f"attempt; raise asynctrack.AuthenticationError in it to have a message of your own shown here"
        )


class UserinfoCredentials(Guarded):
    """User name and password from the tracking URI."""

    __slots__ = ("_headers",)

    def __init__(self, userinfo: tuple[str, str], url: str) -> None:
        username, password = map(Secret, userinfo)
        self._headers = basic_header(username, password, "the tracking URI", url)

    def blocks(self) -> bool:
        return False

    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    def describe(self) -> str:
        return "user name and password in the tracking URI"


class EnvironmentCredentials(Guarded):
    """MLflow's environment variables and credentials file. Holds nothing: every call reads them."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def blocks(self) -> bool:
        """Where there is a file to be read."""
        return not (os.environ.get(USERNAME) and os.environ.get(PASSWORD)) and os.path.lexists(_credentials_file())

    def headers(self) -> dict[str, str]:
        _refuse_unsupported(self._url)
        username, password, source = _username_and_password(self._url)
        if username and password:
            return basic_header(username, password, source, self._url)
        token = Secret(os.environ.get(TOKEN, ""))
        return bearer_header(token, TOKEN, self._url) if token else {}

    def describe(self) -> str:
        try:
            username, password, source = _username_and_password(self._url)
        except AuthenticationError as error:
            return str(error)
        if username and password:
            return f"user name and password from {source}"
        if os.environ.get(TOKEN):
            return TOKEN
        half = f" (of {USERNAME} and {PASSWORD} only one is set)" if username or password else ""
        return f"none found{half}: set {USERNAME} and {PASSWORD}, or {TOKEN}, or write ~/.mlflow/credentials"


def basic_header(username: Secret, password: Secret, source: str, url: str) -> dict[str, str]:
    """``Authorization: Basic``, in UTF-8 as MLflow's server reads it. Raises `AuthenticationError`."""
    if _NEVER.search(username) or _NEVER.search(password):
        raise AuthenticationError(
            f"no credentials for {url}: user name or password from {source} contains a line break or another control "
            f"character (left over from a file it was read from?): remove it"
        )
    return {"Authorization": Secret("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())}


def bearer_header(token: Secret, source: str, url: str) -> dict[str, str]:
    """``Authorization: Bearer``. Raises `AuthenticationError` for what is no token, without showing it."""
    if token and token.isascii() and token.isprintable() and " " not in token:
        return {"Authorization": Secret(f"Bearer {token}")}
    problem = "contains a space, a line break or a character outside ASCII (left over from a file?): remove it"
    raise AuthenticationError(f"no credentials for {url}: {source} {problem if token else 'is empty'}")


def extra_headers() -> dict[str, str]:
    """What ``MLFLOW_WORKSPACE`` adds. Only for servers with workspaces: others fail at every call that carries it.

    Raises `InvalidInputError` for what is no workspace's name.
    """
    name = os.environ.get("MLFLOW_WORKSPACE", "")
    if not name:
        return {}
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        raise InvalidInputError(
            f"MLFLOW_WORKSPACE={name!r}: a workspace's name has lower-case letters, digits and, inside, hyphens"
        )
    return {WORKSPACE_HEADER: name}


def split_userinfo(url: str) -> tuple[str, tuple[str, str] | None]:
    """The one spelling of a server's URL, without credentials, and the user name and password that were in it.

    Scheme and host in lower case, no default port, no slash at the end; a path stays. Raises `InvalidInputError`,
    which shows nothing of the URL that could be a password.
    """
    if _NEVER.search(url) or any(map(str.isspace, url)):
        raise _unusable(url, "contains a space, a line break or another control character")
    scheme = host = port = None
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        pass  # its text may quote a password
    if not host or scheme not in _DEFAULT_PORTS:
        raise _unusable(url, "must be like https://host:5000/path; write /, ?, # and @ in a user name or password as %")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise _unusable(url, "has a query (?) or fragment (#), which no tracking server has")
    address = f"[{host}]" if ":" in host else host
    if port not in (None, _DEFAULT_PORTS[scheme]):
        address += f":{port}"
    path = quote(parts.path, safe="/%!$&'()*+,;=:@~").rstrip("/")
    if not (parts.username or parts.password):
        return f"{scheme}://{address}{path}", None
    # Bytes that are not UTF-8 become half surrogates, which are refused next.
    username, password = (
        Secret(unquote(part or "", errors="surrogateescape")) for part in (parts.username, parts.password)
    )
    if _NEVER.search(username) or _NEVER.search(password):
        raise _unusable(url, "has a line break, a control character or bytes that are not UTF-8 in its credentials")
    return f"{scheme}://{address}{path}", (username, password)


def read_ini(path: str, parser: configparser.ConfigParser) -> None:
    """Read a file of credentials; nothing where there is none. Raises `AuthenticationError`, which quotes no line."""
    path = os.path.expanduser(path)
    if not os.path.exists(path) or os.path.realpath(path) == os.devnull:
        return
    try:
        with open(path, encoding="utf-8", opener=_open_regular) as file:
            parser.read_file(file)
        return
    except OSError as error:
        problem = str(error.strerror)
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except configparser.Error as error:  # whose text quotes the line that it did not understand
        line = getattr(error, "lineno", None) or next((line for line, _ in getattr(error, "errors", ())), "?")
        problem = f"line {line} is neither [section] nor key = value below one"
    raise AuthenticationError(f"cannot read the credentials in {path}: {problem}")


def _open_regular(path: str, flags: int) -> int:
    """Without waiting for whoever would write into a pipe of that name. Raises OSError."""
    fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        folder = stat.S_ISDIR(mode)
        raise (
            OSError(errno.EISDIR, os.strerror(errno.EISDIR)) if folder else OSError(errno.EINVAL, "not a regular file")
        )
    return fd


def _username_and_password(url: str) -> tuple[Secret, Secret, str]:
    """Each empty where it is not given, and where they are from."""
    username, password = Secret(os.environ.get(USERNAME, "")), Secret(os.environ.get(PASSWORD, ""))
    given = " and ".join(name for name in (USERNAME, PASSWORD) if os.environ.get(name))
    if username and password:
        return username, password, given
    path = _credentials_file()
    if not os.path.lexists(path):
        return username, password, given
    parser = configparser.ConfigParser(strict=False)
    read_ini(path, parser)
    if not parser.has_section("mlflow"):
        return username, password, given
    try:
        username = username or Secret(parser.get("mlflow", USERNAME.lower(), fallback=""))
        password = password or Secret(parser.get("mlflow", PASSWORD.lower(), fallback=""))
    except configparser.InterpolationError:
        pass  # its text quotes the password
    else:
        return username, password, f"{given} and {path}" if given else path
    raise AuthenticationError(f"no credentials for {url}: write % as %% in {path}, as MLflow wants it")


def _credentials_file() -> str:
    return os.path.expanduser("~/.mlflow/credentials")


def _refuse_unsupported(url: str) -> None:
    """Asked to sign requests in a way that we cannot, sending them unsigned would only earn a puzzling refusal."""
    plugin = os.environ.get("MLFLOW_TRACKING_AUTH", "")
    if plugin:
        wanted = f"MLFLOW_TRACKING_AUTH={plugin!r} (an authentication plugin of MLflow)"
    elif os.environ.get("MLFLOW_TRACKING_AWS_SIGV4", "").lower() not in ("", "0", "false"):
        wanted = "MLFLOW_TRACKING_AWS_SIGV4 (signing for AWS)"
    else:
        return
    raise AuthenticationError(
        f"no credentials for {url}: {wanted} is not supported by asynctrack. Unset it and give a user name and "
        f"password or a token, or a function that returns a token: asynctrack.configure(token=function)"
    )


def _place(error: Exception) -> str:
    """Where in the token function it failed."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""


def _unusable(url: str, problem: str) -> InvalidInputError:
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)", url)
    return InvalidInputError(f"tracking URI {scheme[0] if scheme else ''}://…: it {problem}")
