"""Which MLflow a server runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from asynctrack.errors import AuthenticationError, NotFoundError, RefusedError, WrongServerError

if TYPE_CHECKING:
    import httpx

__all__ = ["HEALTH_PATH", "VERSION_PATH", "server_version", "version_numbers"]

#: answered by every MLflow server, and from 2.1 on
HEALTH_PATH, VERSION_PATH = "/health", "/version"
_VERSION = re.compile(r"(\d+)\.(\d+)[\w.+\-]{0,40}")


class _Sends(Protocol):
    def send(self, method: str, path: str, *, again: bool = False) -> Awaitable[httpx.Response]:
        """The answer, if it is a 2xx."""


async def server_version(client: _Sends, server: str = "") -> str:
    """The version of MLflow on the client's server, or on the one at the address ``server``: "2.14.3".

    "" where it does not say: MLflow before 2.1, something that is none, a proxy that lets only the API through. Raises
    `UnavailableError`.
    """
    try:
        response = await client.send("GET", server + VERSION_PATH, again=True)
    except (AuthenticationError, NotFoundError, RefusedError, WrongServerError):
        return ""
    text = response.content[:100].decode("ascii", "replace").strip()
    return text if _VERSION.fullmatch(text) else ""


def version_numbers(version: str) -> tuple[int, int] | None:
    """Major and minor number; None where the version is not known."""
    found = _VERSION.fullmatch(version)
    return (int(found[1]), int(found[2])) if found else None
