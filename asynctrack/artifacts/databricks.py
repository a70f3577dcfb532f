"""Artifacts of runs on Databricks: the workspace hands out signed addresses, the storage takes the bytes."""

from __future__ import annotations

import json
from dataclasses import replace

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.paths import artifact_folder, check_artifact_path, join, listed_path
from asynctrack.artifacts.proxied import ArtifactClient
from asynctrack.artifacts.signed import SignedAddress, fetch_signed, signed_address, upload_signed
from asynctrack.entities import FileInfo
from asynctrack.errors import NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.io import StoreIO
from asynctrack.stores.keys import shorten
from asynctrack.stores.rest.answers import json_of
from asynctrack.stores.rest.decoding import each, file_info_of

__all__ = ["DatabricksArtifacts"]

_API = "/api/2.0/mlflow/artifacts"
#: pages of one listing
_MOST_PAGES = 10_000


class DatabricksArtifacts(ArtifactRepository):
    """The folder ``root`` ("" for all) of a run's artifacts in ``dbfs:/databricks/mlflow-tracking``."""

    def __init__(self, uri: str, run_id: str, root: str, io: StoreIO, client: ArtifactClient) -> None:
        super().__init__(uri, io)
        self._run_id = run_id
        self._root = root
        self._client = client

    async def upload(self, local_file: str, artifact_file: str) -> None:
        address = await self._address("credentials-for-write", artifact_file)
        await upload_signed(self._client, self._io, local_file, address)

    async def _fetch(self, path: str, destination: str) -> None:
        await fetch_signed(self._client, await self._address("credentials-for-read", path), destination)

    async def _address(self, call: str, path: str) -> SignedAddress:
        where = join(self._root, check_artifact_path(path))
        body = json.dumps({"run_id": self._run_id, "path": [where]}).encode()
        headers = {"Content-Type": "application/json"}
        response = await self._client.send("POST", f"{_API}/{call}", content=body, headers=headers)
        answer = json_of(response, call, ("credential_infos", "next_page_token"))
        found = each(answer, "credential_infos", signed_address)
        if not found:
            raise NotFoundError(f"Databricks gives no address for artifact {shorten(where)} of run {self._run_id}")
        return found[0]

    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = artifact_folder(path)
        where = join(self._root, folder) if folder else self._root
        entries = await self._entries(where)
        if [entry.path for entry in entries] == [where] and not entries[0].is_dir:
            return []  # asked about a file, it answers with that file
        found = []
        for entry in entries:
            name = str(entry.path).removeprefix(f"{where}/" if where else "")
            found.append(replace(entry, path=listed_path(folder, name, self.uri)))
        return sorted(found, key=lambda info: info.path)

    async def _entries(self, where: str) -> list[FileInfo]:
        asked = [("run_id", self._run_id), *([("path", where)] if where else [])]
        parameters = asked
        entries: list[FileInfo] = []
        seen: set[str] = set()
        while True:
            response = await self._client.send("GET", f"{_API}/list", params=parameters, again=True)
            answer = json_of(response, f"listing {shorten(where)}", ("files", "root_uri", "next_page_token"))
            entries += each(answer, "files", file_info_of)
            token = str(answer.get("next_page_token") or "")
            if not token:
                return entries
            if token in seen or len(seen) > _MOST_PAGES:
                raise UnavailableError(f"Databricks lists {shorten(where)} of run {self._run_id} without an end")
            seen.add(token)
            parameters = [*asked, ("page_token", token)]

    async def probe(self) -> None:
        # It could not be deleted again.
        raise UnavailableError(f"whether Databricks takes other artifacts of run {self._run_id} is not known")

    async def delete_artifacts(self, path: str) -> None:
        raise RefusedError(
            f"artifact {shorten(path)} of run {self._run_id}: Databricks deletes artifacts only with their run"
        )
