"""Artifacts behind MLflow's server, which passes them on to wherever it keeps them (``mlflow-artifacts:``)."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from asynctrack.artifacts import files
from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.paths import (
    SERVICE,
    artifact_folder,
    check_artifact_path,
    content_type,
    join,
    listed_path,
    proxy_path,
)
from asynctrack.entities import FileInfo
from asynctrack.errors import NotFoundError, StoreError
from asynctrack.stores.io import StoreIO
from asynctrack.stores.rest.answers import check_done, json_of
from asynctrack.stores.rest.decoding import each, file_info_of
from asynctrack.stores.rest.version import server_version

if TYPE_CHECKING:
    import httpx

__all__ = ["ArtifactClient", "ProxiedArtifacts", "put_file"]

#: what a request carries: bytes, or what opens a stream of them, as `StoreIO.stream` does
Content = bytes | Callable[[], AbstractAsyncContextManager[Iterable[bytes] | AsyncIterable[bytes]]]


class ArtifactClient(Protocol):
    """What artifacts need of the client of a tracking server.

    ``path`` is one on that server, or an absolute URL. One on another server gets none of the client's credentials,
    and no message holds its query, which may be a signature. Errors are `StoreError` classes; what the content's
    iteration raises comes through as it is.
    """

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> httpx.Response:
        """The answer, if it is a 2xx. ``again``: sending it twice does no harm, so it may be sent once more on a new
        connection when the old one has just been closed; what opens its ``content`` is called again then."""

    async def download(
        self,
        method: str,
        path: str,
        to: str,
        *,
        params: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Stream the body of a 2xx answer into the new file ``to``. Raises OSError too."""


class ProxiedArtifacts(ArtifactRepository):
    """The folder ``root`` of the server's artifacts. ``server`` is "" for the tracking server itself, or the address
    of another, up to the API's path; ``root`` is decoded, without slashes at its ends."""

    def __init__(self, uri: str, server: str, root: str, io: StoreIO, client: ArtifactClient) -> None:
        super().__init__(uri, io)
        #: whether it is another server than the tracking server
        self.elsewhere = bool(server)
        self._server = server
        self._service = server + SERVICE
        self._root = root
        self._client = client

    def _url(self, path: str) -> str:
        return f"{self._service}/{proxy_path(join(self._root, check_artifact_path(path)))}"

    async def upload(self, local_file: str, artifact_file: str) -> None:
        headers = {"Content-Type": content_type(artifact_file.rpartition("/")[2])}
        await put_file(self._client, self._io, self._url(artifact_file), local_file, headers)

    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = artifact_folder(path)
        where = join(self._root, folder) if folder else self._root
        proxy_path(where)  # the server reads it as it does the path of an artifact
        response = await self._client.send("GET", self._service, params=[("path", where)], again=True)
        answer = json_of(response, f"listing {where}", ("files", "root_uri", "next_page_token"))
        entries = each(answer, "files", file_info_of)
        found = [replace(entry, path=listed_path(folder, entry.path, self.uri)) for entry in entries]
        return sorted(found, key=lambda info: info.path)

    async def _fetch(self, path: str, destination: str) -> None:
        # As it is stored: an answer compressed on the way would be unpacked, and so would a stored archive.
        await self._client.download("GET", self._url(path), destination, headers={"Accept-Encoding": "identity"})

    async def _by_whom(self) -> str:
        try:
            version = await server_version(self._client, self._server)
        except StoreError:
            return ""
        return f" from MLflow {version}" if version else " from an MLflow that does not tell its version"

    async def delete_artifacts(self, path: str) -> None:
        try:
            check_done(await self._client.send("DELETE", self._url(path), again=True), f"deleting {path}")
        except NotFoundError:
            pass  # it is not there, as was asked


async def put_file(
    client: ArtifactClient, io: StoreIO, url: str, local_file: str, headers: Mapping[str, str], method: str = "PUT"
) -> None:
    """Send a file as the body of one request, streamed from disk, its length told beforehand.

    Raises `RefusedError` where it cannot be read, `UnavailableError` if it is written to meanwhile, and what the
    client raises, or stands for by its answer.
    """
    what = f"{method} {url.partition('?')[0]}"
    before = await files.stat_source(io, local_file)
    headers = {**headers, "Content-Length": str(before.st_size)}
    if before.st_size:
        try:
            content = partial(io.stream, local_file, 0, before.st_size)
            check_done(await client.send(method, url, content=content, headers=headers, again=True), what)
        except OSError as error:
            raise files.disk_error(error, local_file) from error
    else:
        # Some storages refuse an empty stream.
        check_done(await client.send(method, url, content=b"", headers=headers, again=True), what)
    files.check_unchanged(before, await files.stat_source(io, local_file), local_file)
