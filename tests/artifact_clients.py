"""A minimal `ArtifactClient` over httpx, and the three ways in which an artifact repository waits."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import httpx

from asynctrack.errors import UnavailableError
from asynctrack.stores.io import InlineIO, StoreIO, ThreadedIO, drive
from asynctrack.stores.rest.answers import error_of
from asynctrack.stores.rest.client import Params

T = TypeVar("T")

#: blocking without a loop, and on the two kinds of loops
WAYS = ("inline", "asyncio", "trio")


class PlainClient:
    """Talks to ``base`` without credentials; ``transport`` may stand in for the network."""

    def __init__(self, base: str, *, blocking: bool, transport: httpx.MockTransport | None = None) -> None:
        options: dict[str, Any] = {"base_url": base, "timeout": 60, "trust_env": False, "transport": transport}
        self.sync = httpx.Client(**options) if blocking else None
        self.on_loop = None if blocking else httpx.AsyncClient(**options)

    async def send(self, method: str, path: str, *, params: Params = (), **options: Any) -> httpx.Response:
        if params:
            options["params"] = list(params)
        options.pop("again", None)
        if callable(content := options.get("content")):
            async with content() as stream:
                return await self.send(method, path, params=params, **{**options, "content": stream})
        try:
            if self.sync is not None:
                response = self.sync.request(method, path, **options)
            else:
                assert self.on_loop is not None
                response = await self.on_loop.request(method, path, **options)
        except httpx.TransportError as error:
            raise UnavailableError(f"{method} {path}: {error}") from error
        if response.status_code >= 300:
            raise error_of(response, f"{method} {path}")
        return response

    async def download(
        self, method: str, path: str, to: str, *, params: Params = (), headers: Mapping[str, str] | None = None
    ) -> None:
        response = await self.send(method, path, params=params, headers=headers)
        with open(to, "xb") as file:  # noqa: ASYNC230  # a few bytes, in a test
            file.write(response.content)

    async def close(self) -> None:
        if self.sync is not None:
            self.sync.close()
        if self.on_loop is not None:
            await self.on_loop.aclose()


@asynccontextmanager
async def _client(way: str, base: str, transport: httpx.MockTransport | None) -> AsyncIterator[PlainClient]:
    client = PlainClient(base, blocking=way == "inline", transport=transport)
    try:
        yield client
    finally:
        await client.close()


def made_by_mlflow(call: str, *arguments: Any, **options: Any) -> dict[str, bytes]:
    """The artifacts that MLflow's client would store for a call of its method ``call``, and the tags it would set."""
    import mlflow

    made: dict[str, bytes] = {}

    class Client(mlflow.MlflowClient):
        def __init__(self) -> None:
            pass  # no store: what it would send there is caught below

        def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None = None) -> None:
            made[os.path.join(artifact_path or "", os.path.basename(local_path))] = Path(local_path).read_bytes()

        def list_artifacts(self, run_id: str, path: str | None = None) -> list[Any]:
            return []

        def get_run(self, run_id: str) -> Any:
            return SimpleNamespace(data=SimpleNamespace(tags={}))

        def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
            made[f"tag {key}"] = str(value).encode()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow's code is warned about is MLflow's business
        getattr(Client(), call)("run", *arguments, **options)
    return made


def run(way: str, work: Callable[[StoreIO], Awaitable[T]]) -> T:
    """The result of ``work``, done in one of the `WAYS`."""

    async def call(io: StoreIO) -> T:
        return await work(io)

    if way == "inline":
        return drive(call(InlineIO()))
    return anyio.run(call, ThreadedIO(), backend=way)


def run_with_client(
    way: str,
    base: str,
    work: Callable[[StoreIO, PlainClient], Awaitable[T]],
    transport: httpx.MockTransport | None = None,
) -> T:
    """The same for work that talks to a server at ``base``."""

    async def call(io: StoreIO) -> T:
        async with _client(way, base, transport) as client:
            return await work(io, client)

    return run(way, call)
