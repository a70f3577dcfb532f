"""Artifacts through a real MLflow server: streamed, whole, and as MLflow's client sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.entities import FileInfo
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.io import StoreIO
from asynctrack.stores.rest.store import RestStore
from asynctrack.stores.uri import open_store
from tests.artifact_clients import WAYS, PlainClient, run, run_with_client
from tests.servers import MlflowServer

#: what may not be equal in names that differ, or not be understood on the way
NAMES = [
    "plain.txt",
    "a b+c.txt",
    "ü☃.txt",
    "a&b=c.txt",
    "100%.txt",
    "a?b.txt",
    "a;b.txt",
    "a:b.txt",
    "a[b].txt",
    "~x",
    "'q'",
]
LIMIT_MB = 64


@pytest.fixture
def uri() -> str:
    """The artifact URI of a run of its own."""
    return f"mlflow-artifacts:/7/{uuid.uuid4().hex}/artifacts"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name in [*NAMES, "sub/deep er/ü.bin"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "empty").touch()
    return folder


def opened(server: str, uri: str, io: StoreIO, client: PlainClient) -> ArtifactRepository:
    return open_artifacts(uri, server, io, client)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_goes_up_is_listed_comes_down_and_is_deleted(
    way: str, sqlite_server: MlflowServer, uri: str, tree: Path, tmp_path: Path
) -> None:
    async def there_and_back(io: StoreIO, client: PlainClient) -> list[list[FileInfo]]:
        artifacts = opened(sqlite_server.url, uri, io, client)
        await artifacts.log_artifacts(tree, "m/v 1")
        await artifacts.log_artifact(tree / "plain.txt")
        downloaded = await artifacts.download_artifacts("m", tmp_path / "down")
        assert downloaded == str(tmp_path / "down" / "m")
        one = await artifacts.download_artifacts("m/v 1/sub/deep er/ü.bin")
        assert one.endswith("/m/v 1/sub/deep er/ü.bin")
        assert await io.call(Path(one).read_bytes) == "sub/deep er/ü.bin".encode()
        listings = [await artifacts.list_artifacts(path) for path in (None, "m/v 1", "plain.txt", "nothing")]
        await artifacts.delete_artifacts("m")
        await artifacts.delete_artifacts("m")
        return [*listings, await artifacts.list_artifacts()]

    root, folder, file, missing, after = run_with_client(way, sqlite_server.url, there_and_back)
    assert root == [FileInfo("m", is_dir=True), FileInfo("plain.txt", is_dir=False, file_size=9)]
    assert [info.path for info in folder] == sorted(f"m/v 1/{name}" for name in [*NAMES, "empty", "sub"])
    assert {info.path: info.file_size for info in folder}["m/v 1/empty"] == 0
    assert file == missing == []
    assert after == [FileInfo("plain.txt", is_dir=False, file_size=9)]
    assert names_in(tmp_path / "down" / "m" / "v 1") == names_in(tree)
    assert all((tmp_path / "down/m/v 1" / name).read_bytes() == name.encode() for name in NAMES)


def test_mlflow_s_client_lists_and_downloads_what_was_stored(
    sqlite_server: MlflowServer, tree: Path, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient(sqlite_server.url)
    run = client.create_run(client.create_experiment(uuid.uuid4().hex))

    async def store(io: StoreIO, ours: PlainClient) -> None:
        await opened(sqlite_server.url, run.info.artifact_uri, io, ours).log_artifacts(tree, "m")

    run_with_client("inline", sqlite_server.url, store)
    listed = client.list_artifacts(run.info.run_id, "m")
    assert [(info.path, info.is_dir) for info in listed] == [
        (f"m/{name}", name == "sub") for name in sorted([*NAMES, "empty", "sub"])
    ]
    downloaded = Path(client.download_artifacts(run.info.run_id, "m/a b+c.txt", str(tmp_path)))
    assert downloaded.read_bytes() == b"a b+c.txt"
    client.log_text(run.info.run_id, "theirs", "theirs.txt")

    async def read(io: StoreIO, ours: PlainClient) -> str:
        return await opened(sqlite_server.url, run.info.artifact_uri, io, ours).download_artifacts("theirs.txt")

    assert Path(run_with_client("inline", sqlite_server.url, read)).read_text() == "theirs"


def test_what_is_not_there_is_not_found_and_leaves_nothing(
    sqlite_server: MlflowServer, uri: str, tmp_path: Path
) -> None:
    async def work(io: StoreIO, client: PlainClient) -> None:
        await opened(sqlite_server.url, uri, io, client).download_artifacts("nothing/here", tmp_path / "down")

    with pytest.raises(NotFoundError, match="nothing/here"):
        run_with_client("asyncio", sqlite_server.url, work)
    assert names_in(tmp_path / "down") == []


def test_a_name_that_the_server_would_change_is_refused_and_the_others_are_stored(
    sqlite_server: MlflowServer, uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("50%20.txt", "a#b", "fine.txt"):
        (folder / name).write_bytes(b"x")

    async def work(io: StoreIO, client: PlainClient) -> list[FileInfo]:
        artifacts = opened(sqlite_server.url, uri, io, client)
        with pytest.raises(RefusedError, match=r"2 of the files .*50%20.*; .*a#b.*rename the file"):
            await artifacts.log_artifacts(folder)
        return await artifacts.list_artifacts()

    assert [info.path for info in run_with_client("inline", sqlite_server.url, work)] == ["fine.txt"]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\0b", "a\\..\\..\\x", ""])
def test_a_path_that_leads_elsewhere_is_never_sent(path: str, tree: Path) -> None:
    def unexpected(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was sent")

    async def work(io: StoreIO, client: PlainClient) -> None:
        artifacts = opened("http://host", "mlflow-artifacts:/1", io, client)
        source = str(tree / "plain.txt")
        for call in (artifacts.upload(source, path), artifacts.delete_artifacts(path)):
            with pytest.raises(InvalidInputError, match="artifact path"):
                await call
        if path:
            for other in (artifacts.log_artifact(source, path), artifacts.log_artifacts(tree, path)):
                with pytest.raises(InvalidInputError, match="artifact path"):
                    await other

    run_with_client("inline", "http://host", work, httpx.MockTransport(unexpected))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..", "sub/../../../escaped", "a\0b"])
def test_a_malicious_server_cannot_have_a_download_written_elsewhere(name: str, tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/artifacts"):
            return httpx.Response(
                200, json={"files": [{"path": "ok", "is_dir": False}, {"path": name, "is_dir": False}]}
            )
        return httpx.Response(200, content=b"payload")

    async def work(io: StoreIO, client: PlainClient) -> None:
        artifacts = opened("http://host", "mlflow-artifacts:/1", io, client)
        await artifacts.download_artifacts("", tmp_path / "a" / "b" / "down")

    with pytest.raises(RefusedError, match="lists an artifact"):
        run_with_client("inline", "http://host", work, httpx.MockTransport(answer))
    assert names_in(tmp_path) == []


def test_folders_in_folders_without_an_end_are_not_followed_for_ever(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"files": [{"path": "a", "is_dir": True}]})

    async def work(io: StoreIO, client: PlainClient) -> None:
        await opened("http://host", "mlflow-artifacts:/1", io, client).download_artifacts("", tmp_path / "down")

    with pytest.raises(RefusedError, match="without an end"):
        run_with_client("inline", "http://host", work, httpx.MockTransport(answer))


class OldServer:
    """An artifact proxy as MLflow 2.9 has it: it fails (500) at what is not there, and loses the connection at names
    that it cannot serve."""

    def __init__(self, *unserved: str) -> None:
        self.files = {"ok.txt": b"1", "sub/日本.txt": b"2", "sub/z.txt": b"3"}
        self.unserved = unserved
        #: further requests until it is gone
        self.left = 1000

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.left -= 1
        if self.left < 0:
            raise httpx.ConnectError("gone", request=request)
        path = request.url.path.partition("/artifacts")[2].partition("/1/")[2]
        if request.url.path == "/version":
            return httpx.Response(200, content=b"2.9.2")
        if "path" in request.url.params:
            folder = request.url.params["path"].removeprefix("1").strip("/")
            prefix = f"{folder}/" if folder else ""
            below = [name.removeprefix(prefix) for name in self.files if name.startswith(prefix)]
            names = dict.fromkeys(name.partition("/") for name in below)
            entries = [{"path": first, "is_dir": bool(slash), "file_size": 1} for first, slash, _ in names]
            return httpx.Response(200, json={"files": [e for n, e in enumerate(entries) if e not in entries[:n]]})
        if path in self.unserved:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        if path not in self.files:
            return httpx.Response(500, json={"error_code": "INTERNAL_ERROR", "message": "The following failures occ…"})
        return httpx.Response(200, content=self.files[path])

    def download(self, path: str, to: Path | None) -> str:
        async def work(io: StoreIO, client: PlainClient) -> str:
            return await opened("http://host", "mlflow-artifacts:/1", io, client).download_artifacts(path, to)

        return str(run_with_client("inline", "http://host", work, httpx.MockTransport(self)))


def test_an_old_server_s_failure_at_what_is_not_there_is_told_by_the_folder_above(tmp_path: Path) -> None:
    """It says 500; what is listed there and fails is the server's failure."""
    server = OldServer("sub/日本.txt")
    for path in ("none.txt", "sub/none.txt"):
        with pytest.raises(NotFoundError, match=path):
            server.download(path, tmp_path)
    with pytest.raises(UnavailableError, match="disconnected"):
        server.download("sub/日本.txt", tmp_path)
    server.left = 2  # the listing, the file, and not the folder above it
    with pytest.raises(UnavailableError, match="gone"):
        server.download("none.txt", tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("given", [True, False])
def test_a_file_that_a_server_cannot_serve_costs_none_of_the_others(given: bool, tmp_path: Path) -> None:
    """The error at the end names it, the server's version, and where the others are."""
    target = tmp_path / "down"
    with pytest.raises(UnavailableError, match="disconnected") as raised:
        OldServer("sub/日本.txt").download("", target if given else None)
    text = str(raised.value)
    assert "1 of the artifacts in the root" in text
    assert "'sub/日本.txt'" in text
    assert "from MLflow 2.9.2" in text
    where = Path(text.rpartition(" are in ")[2])
    assert where == target if given else where.name.startswith("artifacts-")
    assert names_in(where) == ["ok.txt", "sub/z.txt"]
    if not given:
        shutil.rmtree(where)


def test_a_server_that_goes_away_in_the_middle_of_a_folder_is_not_asked_for_the_rest(tmp_path: Path) -> None:
    server = OldServer()
    server.left = 3
    with pytest.raises(UnavailableError, match="gone") as raised:
        server.download("", tmp_path)
    assert "could not be fetched" not in str(raised.value)
    assert server.left == -2  # the file that failed, and one look at the folder above


def bodies(sent: list[tuple[dict[str, str], bytes]]) -> httpx.MockTransport:
    """A server that takes everything and notes headers and body."""

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((dict(request.headers), request.content))
        return httpx.Response(200)

    return httpx.MockTransport(answer)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 1, 3 * (1 << 20) + 5])
def test_length_and_type_are_told_before_the_body(way: str, size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "a.png").write_bytes(data)
    sent: list[tuple[dict[str, str], bytes]] = []

    async def work(io: StoreIO, client: PlainClient) -> None:
        await opened("http://host", "mlflow-artifacts:/1", io, client).log_artifact(tmp_path / "a.png")

    run_with_client(way, "http://host", work, bodies(sent))
    [(headers, body)] = sent
    assert body == data
    assert headers["content-length"] == str(size)
    assert headers["content-type"] == "image/png"
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", ["grows", "shrinks", "is overwritten", "is replaced"])
def test_a_file_that_changes_while_it_is_sent_is_sent_again(way: str, change: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old" * 1_000_000)
    os.utime(path, ns=(0, 0))

    def disturb() -> None:
        if change == "grows":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "shrinks":
            os.truncate(path, 1000)
        elif change == "is overwritten":
            with path.open("r+b") as file:
                file.write(b"new")
        else:
            (tmp_path / "b").write_bytes(b"new" * 1_000_000)
            os.replace(tmp_path / "b", path)

    def answer(request: httpx.Request) -> httpx.Response:
        disturb()
        return httpx.Response(200)

    async def work(io: StoreIO, client: PlainClient) -> None:
        await opened("http://host", "mlflow-artifacts:/1", io, client).log_artifact(path)

    with pytest.raises(UnavailableError, match=r"a\.bin was written to while it was being stored"):
        run_with_client(way, "http://host", work, httpx.MockTransport(answer))


BIG = """
import os, resource, sys
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.stores.uri import open_store
from tests.artifact_clients import run
way, server, uri, folder = sys.argv[1:]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
async def work(io):
    store = open_store(server, io)
    artifacts = open_artifacts(uri, server, io, store.client)
    for name in ("small", "big"):  # with the small one everything is loaded that there is
        before = peak()
        await artifacts.log_artifact(f"{folder}/{name}")
        await artifacts.download_artifacts(name, f"{folder}/down")
    assert os.path.getsize(f"{folder}/down/big") == os.path.getsize(f"{folder}/big")
    print(peak() - before)
    await store.client.aclose()
run(way, work)
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_large_file_goes_up_and_comes_down_without_being_held_in_memory(
    way: str, sqlite_server: MlflowServer, uri: str, tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"x" * (4 << 20))
    with (tmp_path / "big").open("wb") as file:
        file.truncate(300 << 20)
    done = subprocess.run(
        [sys.executable, "-c", BIG, way, sqlite_server.url, uri, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (tmp_path / "down" / "big").unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT_MB


@pytest.mark.parametrize("way", WAYS)
def test_the_tracking_store_s_own_client_carries_artifacts(
    way: str, sqlite_server: MlflowServer, uri: str, tree: Path, tmp_path: Path
) -> None:
    async def there_and_back(io: StoreIO) -> str:
        store = open_store(sqlite_server.url, io)
        assert isinstance(store, RestStore)
        artifacts = open_artifacts(uri, sqlite_server.url, io, store.client)
        try:
            await artifacts.log_artifacts(tree)
            with pytest.raises(NotFoundError, match="nothing"):
                await artifacts.download_artifacts("nothing", tmp_path / "down")
            return await artifacts.download_artifacts("", tmp_path / "down")
        finally:
            await store.client.aclose()

    assert names_in(Path(run(way, there_and_back))) == names_in(tree)


@pytest.mark.parametrize("size", [0, 5])
def test_something_in_the_servers_place_has_stored_and_deleted_nothing(size: int, tmp_path: Path) -> None:
    """It answers everything with a message in JSON."""
    (tmp_path / "a.txt").write_bytes(b"a" * size)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "maintenance"})

    async def work(io: StoreIO, client: PlainClient) -> None:
        artifacts = opened("http://host", "mlflow-artifacts:/1", io, client)
        for call in (
            artifacts.log_artifact(tmp_path / "a.txt"),
            artifacts.list_artifacts(),
            artifacts.delete_artifacts("a.txt"),
        ):
            with pytest.raises(UnavailableError) as raised:
                await call
            assert raised.value.ambiguous

    run_with_client("inline", "http://host", work, httpx.MockTransport(answer))
