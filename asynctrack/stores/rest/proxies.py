"""Which proxy leads to a server: what the environment says, as MLflow's HTTP client (requests) and curl understand it.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` name proxies, ``NO_PROXY`` the servers that are reached without one:
names (their subdomains, too), addresses, networks, each perhaps with a port, or ``*``. The lower-case names go first.
Where none is set, macOS and Windows are asked for the user's settings.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from asynctrack.errors import InvalidInputError
from asynctrack.stores.rest.joining import join_writes
from asynctrack.stores.rest.tunnels import Tunnelled, TunnelledAsync

__all__ = ["Route", "Routed", "RoutedAsync", "route_to"]

T = TypeVar("T")

#: kinds of proxies, and what httpx calls them; those before 0.28 do not know socks5h, but both ask the proxy for names
_KINDS = {"http": "http", "https": "https", "socks5": "socks5", "socks5h": "socks5", "socks": "socks5"}
_PORTS = {"http": 80, "https": 443}
#: the environment as a Unix keeps it: to decode all of its names at each request costs as much as the rest here
_environ: Any = getattr(os.environ, "_data", {})


class Route(NamedTuple):
    """The way to a server through a proxy."""

    #: the proxy, credentials and all
    proxy: str
    #: the variable that names it
    variable: str

    @property
    def shown(self) -> str:
        """The proxy and its variable, for messages: without credentials."""
        scheme, mark, rest = self.proxy.rpartition("://")
        return f"the proxy {scheme}{mark}{rest.rpartition('@')[2]} ({self.variable})"

    def made(self, verify: ssl.SSLContext) -> httpx.Proxy:
        """httpx's object for it. Raises InvalidInputError, which names the variable, where there can be none."""
        text = self.proxy if "://" in self.proxy else f"http://{self.proxy}"
        kind = text.partition("://")[0].lower()
        if kind not in _KINDS:
            raise InvalidInputError(
                f"{self.shown}: a proxy can be {', '.join(_KINDS)}; set {self.variable} to one of these, or name the "
                "server in NO_PROXY"
            )
        if _KINDS[kind] == "socks5":
            self._check_socks()
        try:
            url = httpx.URL(_KINDS[kind] + text[len(kind) :])
            if url.host:
                proxy = httpx.Proxy(url, ssl_context=verify if kind == "https" else None)
                if _KINDS[kind] != "socks5" or all(len(part) < 256 for part in proxy.raw_auth or ()):
                    return proxy
        except (httpx.InvalidURL, ValueError):
            pass  # what they say may hold the password
        raise InvalidInputError(
            f"{self.shown} cannot be used: it must be like http://user:password@host:3128, with %40 for an @ in the "
            "password, and the like; for SOCKS, user and password have at most 255 bytes each"
        )

    def _check_socks(self) -> None:
        if tuple(int(part) for part in httpx.__version__.split(".")[:2]) < (0, 27):
            raise InvalidInputError(
                f"{self.shown}: httpx {httpx.__version__} fails at SOCKS proxies on an event loop; upgrade it to "
                "0.27 or later with `pip install -U httpx`"
            )
        try:
            import socksio  # noqa: F401  # httpx does it without being asked
        except ImportError:
            raise InvalidInputError(
                f"{self.shown}: a SOCKS proxy needs the package socksio; install it with `pip install "
                "'asynctrack[socks]'`"
            ) from None


def route_to(url: httpx.URL) -> Route | None:
    """The proxy for a server; None if it is reached directly. Raises nothing."""
    if not _may_have_proxies():
        return None
    proxies = getproxies()
    proxy = (proxies.get(url.scheme, "") or proxies.get("all", "")).strip()
    if not proxy or _is_exempt(url.host.lower(), url.port or _PORTS.get(url.scheme)):
        return None
    names = [name for key in (url.scheme, "all") for name in (f"{key}_proxy", f"{key}_proxy".upper())]
    named = [name for name in names if os.environ.get(name, "").strip() == proxy]
    return Route(proxy, named[0] if named else "the system's settings")


def _may_have_proxies() -> bool:
    """Whether `getproxies`, which takes a tenth of a request's time, may find one."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(name[-6:].lower() == b"_proxy" for name in list(_environ))


def _is_exempt(host: str, port: int | None) -> bool:
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if any(_covers(entry.lower(), host, port) for entry in re.split(r"[\s,]+", listed) if entry):
        return True
    try:
        return bool(proxy_bypass(host))  # macOS and Windows have exceptions of their own
    except (OSError, TypeError, ValueError):
        return False


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of ``NO_PROXY`` covers a host; one that makes no sense covers none."""
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    address = _address(host)
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    # What has a colon and is no network has a port.
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        entry = name if port is not None and int(number) == port else ""
    if address is not None:
        return _address(entry.strip("[]")) == address
    entry = entry.lstrip(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if text else None
    except ValueError:
        return None


class _Ways(Generic[T]):
    """One of httpx's transports for each proxy, and one without. Any thread may use it."""

    def __init__(self, transport: Callable[..., T], verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._transport = transport
        self._verify = verify
        self._limits = limits
        self._lock = threading.Lock()
        self._made: dict[str, T] = {}

    def to(self, url: httpx.URL) -> T:
        """The transport for a server. Raises InvalidInputError for a proxy that cannot be used."""
        route = route_to(url)
        key = route.proxy if route is not None else ""
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(route)
            return self._made[key]

    def _make(self, route: Route | None) -> T:
        options: dict[str, Any] = {"verify": self._verify, "limits": self._limits, "trust_env": False}
        return self._transport(**options, proxy=None if route is None else route.made(self._verify))

    def made(self) -> list[T]:
        """Those that there are."""
        return list(self._made.values())


def _blocking(**options: Any) -> httpx.BaseTransport:
    transport = httpx.HTTPTransport(**options)
    return Tunnelled(transport) if _is_socks(options["proxy"]) else transport


def _on_loop(**options: Any) -> httpx.AsyncBaseTransport:
    transport = join_writes(httpx.AsyncHTTPTransport(**options))
    return TunnelledAsync(transport) if _is_socks(options["proxy"]) else transport


def _is_socks(proxy: httpx.Proxy | None) -> bool:
    return proxy is not None and proxy.url.scheme == "socks5"


class Routed(httpx.BaseTransport):
    """Sends each request through the proxy that the environment names for it, if any."""

    def __init__(self, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._ways = _Ways(_blocking, verify, limits)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._ways.to(request.url).handle_request(request)

    def close(self) -> None:
        for transport in self._ways.made():
            transport.close()


class RoutedAsync(httpx.AsyncBaseTransport):
    """The same on an event loop."""

    def __init__(self, verify: ssl.SSLContext, limits: httpx.Limits) -> None:
        self._ways = _Ways(_on_loop, verify, limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._ways.to(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._ways.made():
            await transport.aclose()
