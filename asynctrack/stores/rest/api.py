"""The JSON API of one MLflow server: paths, bodies, and what an argument must be before it goes out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from asynctrack.errors import InvalidInputError, RefusedError
from asynctrack.stores.rest.bodies import MOST_CHANGED, MOST_FOUND
from asynctrack.stores.rest.client import Params, RestClient
from asynctrack.stores.rest.encoding import dumps

__all__ = ["Api", "text"]

_PREFIX = "/api/2.0/mlflow"


class Api:
    """Calls below ``/api/2.0/mlflow`` of the server that ``client`` talks to."""

    def __init__(self, uri: str, client: RestClient) -> None:
        #: the server's canonical URI, for messages
        self.uri = uri
        self.client = client

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *fields: str,
        again: bool = True,
        removes: bool = False,
        most: int = MOST_CHANGED,
    ) -> dict[str, Any]:
        """The answer to a POST; what may be in it (nothing, for most calls that change something) and the options are
        as for `RestClient.call`."""
        return await self.client.call(
            "POST", _PREFIX + path, body=dumps(body), again=again, removes=removes, most=most, fields=fields
        )

    async def post_bytes(self, path: str, body: bytes, *, again: bool = True) -> None:
        """A POST whose body is JSON already, and whose answer is empty."""
        await self.client.call("POST", _PREFIX + path, body=body, again=again, most=MOST_CHANGED, fields=())

    async def get(self, path: str, *params: tuple[str, str], fields: Collection[str]) -> dict[str, Any]:
        """The answer to a GET."""
        given: Params = params
        return await self.client.call("GET", _PREFIX + path, params=given, fields=fields)

    async def search(self, path: str, body: dict[str, Any], page_token: str | None, found: str) -> dict[str, Any]:
        """One page of a search, with what was found in the field ``found``. Raises `InvalidInputError` for a filter,
        order or page that is none."""
        if body["max_results"] < 1:
            raise InvalidInputError(f"max_results={body['max_results']}: it must be at least 1")
        if page_token:
            body = {**body, "page_token": page_token}
        try:
            return await self.post(path, body, found, "next_page_token", most=MOST_FOUND)
        except RefusedError as error:
            raise InvalidInputError(str(error)) from error


def text(what: str, value: object) -> str:
    """A string argument. Raises `InvalidInputError`; the server would take anything else for absent."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} {value!r} is {type(value).__name__}, not a string")
    return value
