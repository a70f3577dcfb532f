"""Who may see the page: a browser on this machine that was given the token, under a host name that is ours."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "from_our_page", "host_of"]

#: what a page may do: nothing but what is served here
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def host_of(header: str) -> str:
    """The name in a ``Host`` header, without the port, in lower case."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].rstrip(".")


def from_our_page(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a browser says that a page of this very server asks, with JSON, which no form sends and no script of
    another page without asking first. From other ports of this machine a strict cookie goes along, too."""
    known: dict[str, list[str]] = {}
    for name, value in headers:
        known.setdefault(name, []).append(value)
    if known.get("content-type", [""])[0].partition(";")[0].strip().lower() != "application/json":
        return False
    sites = known.get("sec-fetch-site")
    if sites is not None:
        return sites == ["same-origin"]
    origins = known.get("origin", [])
    return len(origins) == 1 and urlsplit(origins[0]).netloc.lower() == known.get("host", [""])[0].strip().lower() != ""


class Guard:
    """Lets a request pass that has a host name of ours and the cookie. The token in the address of the page is
    exchanged for the cookie. Every answer forbids the browser all that the page does not need. ``edit``: POST passes,
    too, where the browser says that it is the page who asks; without, nothing can be changed."""

    def __init__(self, app: ASGIApp, token: str, allowed_hosts: Iterable[str] = (), *, edit: bool = False) -> None:
        self._app = app
        self._edit = edit
        self._token = token
        self._hosts = {*_LOCAL, *map(host_of, allowed_hosts)}
        # Cookies do not tell ports apart: each viewer has a name of its own, and a value that does not tell the token.
        self._cookie = "asynctrack-" + hashlib.sha256(f"name {token}".encode()).hexdigest()[:12]
        self._value = hashlib.sha256(f"value {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"this server answers HTTP only, not {scope['type']}")
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == "host"]
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if len(hosts) != 1 or host_of(hosts[0]) not in self._hosts:
            name = host_of(hosts[0]) if hosts else ""
            await _answer(
                send, 403, f"Host {name!r} is not allowed here; start `asynctrack view` with --allowed-host {name}\n"
            )
        elif scope["method"] not in ("GET", "HEAD") and not (self._edit and scope["method"] == "POST"):
            await _answer(send, 405, "This server only shows: GET and nothing else.\n", [(b"allow", b"GET, HEAD")])
        elif scope["method"] == "POST" and not from_our_page(headers):
            await _answer(send, 403, "Only the page itself may change anything.\n")
        elif given and hmac.compare_digest(given[-1].encode(), self._token.encode()):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # Not a redirect: after a click on a link elsewhere, a browser would follow it without a strict cookie.
            address = escape(f"./?{rest}" if rest else "./")
            # With an icon: a browser would ask for one at an address that is not there.
            page = (
                '<!doctype html><title>asynctrack</title><link rel="icon" href="data:,">'
                f'<meta http-equiv="refresh" content="0;url={address}">'
            )
            cookie = f"{self._cookie}={self._value}; HttpOnly; SameSite=Strict"
            await _answer(send, 200, page, [(b"set-cookie", cookie.encode())], kind="html")
        elif not self._is_known([value for name, value in headers if name == "cookie"]):
            await _answer(send, 403, "Open the address that `asynctrack view` has printed: it holds the token.\n")
        else:
            await self._app(scope, receive, _with_headers(send))

    def _is_known(self, cookies: list[str]) -> bool:
        pairs = (pair.strip().partition("=") for text in cookies for pair in text.split(";"))
        return any(
            name == self._cookie and hmac.compare_digest(value.encode(), self._value.encode())
            for name, _, value in pairs
        )


async def _answer(
    send: Send, status: int, text: str, more: Iterable[tuple[bytes, bytes]] = (), kind: str = "plain"
) -> None:
    body = text.encode("utf-8", "backslashreplace")
    headers = [(b"content-type", f"text/{kind}; charset=utf-8".encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *_HEADERS, *more]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return wrapped
