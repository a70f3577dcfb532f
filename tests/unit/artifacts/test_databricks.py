"""Artifacts on Databricks: addresses from the workspace, bytes to a stand-in for the clouds' storage."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from asynctrack.artifacts import signed
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.entities import FileInfo
from asynctrack.errors import NotFoundError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.io import StoreIO
from tests.artifact_clients import WAYS, PlainClient, run_with_client

WORKSPACE = "https://workspace.example"
URI = "dbfs:/databricks/mlflow-tracking/12/abc/artifacts"
SIGNATURE = "sig=SECRET%2Bsignature%3D"
#: sent with an address; the second one only belongs to Azure's finishing request
GIVEN = {"x-ms-version": "2021-08-06", "x-ms-blob-content-type": "text/plain", "x-ms-blob-type": "BlockBlob"}


class Cloud:
    """A workspace and the storage behind it; ``objects`` is what is stored."""

    def __init__(self, kind: str | int) -> None:
        self.kind = kind
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[str, bytes]] = {}
        self.requests: list[httpx.Request] = []
        #: the storage answers with this status instead
        self.status = 200

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host == "storage.example":
            return self._storage(request)
        call = request.url.path.removeprefix("/api/2.0/mlflow/artifacts/")
        if call == "list":
            return self._list(request.url.params)
        body = json.loads(request.content)
        assert request.headers["content-type"] == "application/json"
        assert body["run_id"] == "abc"
        [path] = body["path"]
        if call == "credentials-for-read" and path not in self.objects:
            return httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {path}"})
        info = {
            "run_id": "abc",
            "path": path,
            "type": self.kind,
            "signed_uri": f"https://storage.example/bucket/{path}?{SIGNATURE}",
            "headers": [{"name": name, "value": value} for name, value in GIVEN.items()],
        }
        return httpx.Response(200, json={"credential_infos": [info]})

    def _storage(self, request: httpx.Request) -> httpx.Response:
        assert request.url.query.decode().startswith(SIGNATURE), "the signature was altered"
        if self.status != 200:
            return httpx.Response(self.status, text="<Error>Request has expired</Error>")
        path = request.url.path.removeprefix("/bucket/")
        query = dict(request.url.params)
        parts = self.parts.setdefault(path, {})
        if request.method == "GET":
            return httpx.Response(200, content=self.objects[path])
        assert int(request.headers["content-length"]) == len(request.content)
        if query.get("comp") == "block":
            assert "x-ms-blob-content-type" not in request.headers
            assert len(base64.b64decode(query["blockid"])) == 15  # Azure wants them all of one length
            parts[query["blockid"]] = request.content
        elif query.get("comp") == "blocklist":
            assert request.headers["x-ms-blob-content-type"] == "text/plain"
            names = re.findall("<Uncommitted>(.*?)</Uncommitted>", request.content.decode())
            self.objects[path] = b"".join(parts[name] for name in names)
        elif query.get("resource") == "file":
            parts["data"] = b""
        elif query.get("action") == "append":
            assert int(query["position"]) == len(parts["data"])
            parts["data"] += request.content
        elif query.get("action") == "flush":
            assert int(query["position"]) == len(parts["data"])
            self.objects[path] = parts["data"]
        else:
            assert request.headers["x-ms-version"] == GIVEN["x-ms-version"]
            self.objects[path] = request.content
        return httpx.Response(201)

    def _list(self, query: httpx.QueryParams) -> httpx.Response:
        """One entry a page; a file asked about is listed itself."""
        folder = query.get("path", "")
        prefix = f"{folder}/" if folder else ""
        names = {path.removeprefix(prefix).partition("/")[0] for path in self.objects if path.startswith(prefix)}
        found = [{"path": prefix + name, "is_dir": prefix + name not in self.objects} for name in sorted(names)]
        if folder in self.objects:
            found = [{"path": folder, "is_dir": False}]
        for entry in found:
            if not entry["is_dir"]:
                entry["file_size"] = len(self.objects[str(entry["path"])])
        start = int(query.get("page_token", 0))
        answer: dict[str, Any] = {"files": found[start : start + 1]}
        if start + 1 < len(found):
            answer["next_page_token"] = str(start + 1)
        return httpx.Response(200, json=answer)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "a b.txt").write_bytes(b"0123456789" * 5)
    (folder / "sub" / "empty").touch()
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kind", ["AWS_PRESIGNED_URL", "GCP_SIGNED_URL", "AZURE_SAS_URI", "AZURE_ADLS_GEN2_SAS_URI", 1, 2]
)
def test_a_folder_goes_to_each_cloud_is_listed_and_comes_down(
    way: str, kind: str | int, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed, "_BLOCK_BYTES", 16)
    cloud = Cloud(kind)

    async def there_and_back(io: StoreIO, client: PlainClient) -> list[list[FileInfo]]:
        artifacts = open_artifacts(URI + "/root", "databricks", io, client)
        await artifacts.log_artifacts(tree, "m")
        assert await artifacts.download_artifacts("m", tmp_path / "down") == str(tmp_path / "down" / "m")
        return [await artifacts.list_artifacts(path) for path in (None, "m", "m/a b.txt", "x")]

    root, folder, file, missing = run_with_client(way, WORKSPACE, there_and_back, httpx.MockTransport(cloud))
    assert cloud.objects == {"root/m/a b.txt": b"0123456789" * 5, "root/m/sub/empty": b""}
    assert root == [FileInfo("m", is_dir=True)]
    assert folder == [FileInfo("m/a b.txt", is_dir=False, file_size=50), FileInfo("m/sub", is_dir=True)]
    assert file == missing == []
    assert (tmp_path / "down/m/a b.txt").read_bytes() == b"0123456789" * 5
    assert (tmp_path / "down/m/sub/empty").read_bytes() == b""


def test_azure_gets_the_file_in_blocks(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed, "_BLOCK_BYTES", 16)
    cloud = Cloud("AZURE_SAS_URI")

    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).log_artifact(tree / "a b.txt")

    run_with_client("inline", WORKSPACE, work, httpx.MockTransport(cloud))
    sent = Counter(request.url.params.get("comp") for request in cloud.requests)
    assert sent == {None: 1, "block": 4, "blocklist": 1}
    assert sorted(map(len, cloud.parts["a b.txt"].values())) == [2, 16, 16, 16]


def test_a_file_of_any_size_fits_the_number_of_blocks_that_azure_allows() -> None:
    size = 5 * (1 << 40) + 1
    blocks = signed._blocks(size)
    assert len(blocks) <= 50_000
    assert sum(length for _, length in blocks) == size


@pytest.mark.parametrize(
    ("status", "kind"), [(403, UnavailableError), (401, UnavailableError), (503, UnavailableError), (400, StoreError)]
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_no_error_holds_the_signature_and_an_expired_one_is_tried_again_with_a_new_one(
    status: int, kind: type[StoreError], direction: str, tree: Path, tmp_path: Path
) -> None:
    cloud = Cloud("AWS_PRESIGNED_URL")
    cloud.objects["a b.txt"] = b"x"
    cloud.status = status

    async def work(io: StoreIO, client: PlainClient) -> None:
        artifacts = open_artifacts(URI, "databricks", io, client)
        if direction == "up":
            await artifacts.log_artifact(tree / "a b.txt")
        else:
            await artifacts.download_artifacts("a b.txt", tmp_path / "down")

    with pytest.raises(kind) as caught:
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(cloud))
    error: BaseException | None = caught.value
    assert "storage.example/bucket/a" in str(error)
    while error is not None:
        assert "SECRET" not in str(error)
        error = None if error.__suppress_context__ else error.__context__
    cloud.status = 200
    run_with_client("inline", WORKSPACE, work, httpx.MockTransport(cloud))


def test_an_address_is_shown_without_its_signature() -> None:
    address = signed.signed_address({"type": 2, "signed_uri": f"https://u:p@host/x?{SIGNATURE}", "headers": []})
    assert repr(address) == "SignedAddress('AWS_PRESIGNED_URL', 'https://host/x')"


@pytest.mark.parametrize("kind", ["FTP", 99, None])
def test_an_unknown_kind_of_storage_is_refused_by_name(kind: Any, tree: Path) -> None:
    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).log_artifact(tree / "a b.txt")

    with pytest.raises(RefusedError, match=f"no upload of the kind '{kind}'"):
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(Cloud(kind)))


def test_what_s3_takes_in_no_single_request_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((5 << 30) + 1)

    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).log_artifact(tmp_path / "huge")

    with pytest.raises(RefusedError, match="huge has 5368709121 bytes"):
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(Cloud("AWS_PRESIGNED_URL")))


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).download_artifacts("none", tmp_path / "down")

    with pytest.raises(NotFoundError, match="none"):
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(Cloud("AWS_PRESIGNED_URL")))


def test_deleting_is_refused_because_databricks_has_no_such_call() -> None:
    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).delete_artifacts("x")

    with pytest.raises(RefusedError, match="run abc: Databricks deletes artifacts only with their run"):
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(Cloud(1)))


@pytest.mark.parametrize("kind", ["AWS_PRESIGNED_URL", "AZURE_SAS_URI", "AZURE_ADLS_GEN2_SAS_URI"])
@pytest.mark.parametrize("place", ["workspace.example", "storage.example"])
def test_something_in_the_place_of_workspace_or_storage_has_stored_nothing(
    place: str, kind: str, tmp_path: Path
) -> None:
    """It answers everything with a message in JSON; the file is sent again later."""
    (tmp_path / "a.txt").write_text("a")
    cloud = Cloud(kind)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "maintenance"}) if request.url.host == place else cloud(request)

    async def work(io: StoreIO, client: PlainClient) -> None:
        await open_artifacts(URI, "databricks", io, client).log_artifact(tmp_path / "a.txt")

    with pytest.raises(UnavailableError) as raised:
        run_with_client("inline", WORKSPACE, work, httpx.MockTransport(answer))
    assert "SECRET" not in str(raised.value)
    assert cloud.objects == {}
