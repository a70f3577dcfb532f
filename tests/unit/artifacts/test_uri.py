"""From an artifact URI to the place it means, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from asynctrack.artifacts.base import ArtifactRepository
from asynctrack.artifacts.databricks import DatabricksArtifacts
from asynctrack.artifacts.local import LocalArtifacts
from asynctrack.artifacts.proxied import ProxiedArtifacts
from asynctrack.artifacts.uri import open_artifacts
from asynctrack.errors import InvalidInputError, NotFoundError
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.rest.client import Params
from tests.artifact_clients import PlainClient

HERE = "http://mlflow.example:5000/team"
SERVICE = "/api/2.0/mlflow-artifacts/artifacts"


class Requests(PlainClient):
    """Notes what is asked for and answers with an empty listing."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        super().__init__(HERE, blocking=True, transport=httpx.MockTransport(self._answer))

    async def send(self, method: str, path: str, *, params: Params = (), **options: Any) -> httpx.Response:
        self.urls.append(path)
        return await super().send(method, path, params=params, **options)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={})


def opened(uri: str, tracking_uri: str | None = HERE, client: PlainClient | None = None) -> ArtifactRepository:
    return open_artifacts(uri, tracking_uri, InlineIO(), client)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("/data/a b", "/data/a b"),
        ("/data/100%25#1?", "/data/100%25#1?"),
        ("file:///data/a%20b%23", "/data/a b#"),
        ("file://localhost/data", "/data"),
        ("file:/data", "/data"),
    ],
)
def test_paths_and_file_uris_are_directories(uri: str, root: str) -> None:
    artifacts = opened(uri)
    assert isinstance(artifacts, LocalArtifacts)
    assert artifacts.root == root


def test_a_relative_path_is_in_the_working_directory(tmp_path: Path) -> None:
    artifacts = opened("runs/1")
    assert isinstance(artifacts, LocalArtifacts)
    assert artifacts.root == str(tmp_path / "runs" / "1")


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("mlflow-artifacts:/1/abc/artifacts", f"{SERVICE}/1/abc/artifacts/x%20y"),
        ("mlflow-artifacts:1/abc/artifacts/", f"{SERVICE}/1/abc/artifacts/x%20y"),
        ("mlflow-artifacts:/", f"{SERVICE}/x%20y"),
        ("mlflow-artifacts:/my%20place/1", f"{SERVICE}/my%20place/1/x%20y"),
        ("mlflow-artifacts://mlflow.example:5000/1", f"{SERVICE}/1/x%20y"),
        ("mlflow-artifacts://other:81/1", f"http://other:81/team{SERVICE}/1/x%20y"),
        (f"http://MLFLOW.example:5000/team{SERVICE}/1", f"{SERVICE}/1/x%20y"),
        (f"https://mlflow.example:5000/team{SERVICE}/1", f"https://mlflow.example:5000/team{SERVICE}/1/x%20y"),
        (f"http://user:secret@elsewhere{SERVICE}/1", f"http://elsewhere{SERVICE}/1/x%20y"),
    ],
)
def test_only_the_tracking_server_itself_is_asked_by_path_and_so_with_credentials(uri: str, url: str) -> None:
    client = Requests()
    artifacts = opened(uri, client=client)
    assert isinstance(artifacts, ProxiedArtifacts)
    assert "secret" not in repr(artifacts)
    drive(artifacts.delete_artifacts("x y"))
    assert client.urls == [url]
    drive(client.close())


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("dbfs:/databricks/mlflow-tracking/12/abc/artifacts", "x"),
        ("dbfs:/databricks/mlflow-tracking/12/abc/artifacts/sub/folder", "sub/folder/x"),
        ("dbfs://profile@databricks/databricks/mlflow-tracking/12/abc/artifacts", "x"),
    ],
)
def test_databricks_runs_are_found_in_their_uri(uri: str, path: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/artifacts/credentials-for-read")
        assert json.loads(request.content) == {"run_id": "abc", "path": [path]}
        return httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "as expected"})

    client = PlainClient("https://workspace.example", blocking=True, transport=httpx.MockTransport(answer))
    artifacts = opened(uri, "databricks", client)
    assert isinstance(artifacts, DatabricksArtifacts)
    with pytest.raises(NotFoundError, match="as expected"):
        drive(artifacts._fetch("x", "never-written"))
    drive(client.close())


@pytest.mark.parametrize(
    ("uri", "tracking_uri", "words"),
    [
        ("", HERE, ["no place for artifacts"]),
        ("s3://bucket/x", HERE, ["s3:", "mlflow server --serve-artifacts --artifacts-destination s3://"]),
        ("gs://user:secret@bucket/x", HERE, ["gs:", "log them with mlflow"]),
        ("wasbs://c@a.blob.core.windows.net/x", HERE, ["wasbs:"]),
        ("http://host/some/where", HERE, ["http:", "cannot be reached"]),
        ("memory:/1", None, ["memory:"]),
        ("mlflow-artifacts:/1", "file:///runs", ["'file:///runs'", "http://127.0.0.1:5000"]),
        ("mlflow-artifacts:/1", None, ["MLflow server"]),
        ("mlflow-artifacts:/1", "http://u:secret@host", ["reached through an MLflow server"]),
        ("file://host/x", None, ["'host'", "file:///absolute/path"]),
        ("file:///x?y", None, ["%3F"]),
        ("dbfs:/other/x", "databricks", ["only dbfs:/databricks/mlflow-tracking"]),
        ("dbfs:/databricks/mlflow-tracking/1/r/artifacts", "file:///x", ["set the tracking URI to databricks"]),
        ("http://[bad/x", None, ["cannot be read"]),
    ],
)
def test_a_place_that_cannot_be_reached_is_named_with_what_to_do(
    uri: str, tracking_uri: str | None, words: list[str]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        opened(uri, tracking_uri)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "secret" not in str(caught.value)
