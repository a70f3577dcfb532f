"""The stand-in for a workspace is one that the real SDK signs in to, and refuses what a workspace refuses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databricks import SIGNED_HEADER, DatabricksHost
from tests.faults import LoseAnswer
from tests.proxy import FaultProxy
from tests.servers import MlflowServer

API = "/api/2.0/mlflow"
NAMES = (f"/Users/someone@example.com/x{number}" for number in itertools.count())


def signed_in(**how: Any) -> Any:
    """The SDK's way to sign in."""
    from databricks.sdk.config import Config  # takes seconds

    return Config(retry_timeout_seconds=5, http_timeout_seconds=5, **how)


@pytest.fixture
def host(sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabricksHost]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with DatabricksHost(sqlite_server.url, tmp_path / "dbfs") as host:
        yield host


@pytest.fixture
def client(host: DatabricksHost) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {host.token}"}
    with httpx.Client(base_url=f"{host.url}{API}", headers=headers, trust_env=False) as client:
        yield client


def new_run(client: httpx.Client) -> dict[str, Any]:
    experiment = client.post("/experiments/create", json={"name": next(NAMES)}).raise_for_status().json()
    answer = client.post("/runs/create", json={**experiment, "start_time": 1}).raise_for_status()
    info: dict[str, Any] = answer.json()["run"]["info"]
    return info


def test_the_sdk_signs_in_with_a_personal_token(host: DatabricksHost) -> None:
    config = signed_in(host=host.url, token=host.token)
    assert config.authenticate() == {"Authorization": f"Bearer {host.token}"}
    assert (config.auth_type, config.workspace_id) == ("pat", host.workspace_id)
    answer = httpx.get(f"{host.url}{API}/experiments/get?experiment_id=0", headers=config.authenticate())
    assert answer.status_code == 200
    assert [record.path for record in host.requests] == [
        "/.well-known/databricks-config",
        f"{API}/experiments/get?experiment_id=0",
    ]


def test_the_sdk_signs_in_as_a_service_principal_and_renews_its_token_in_time(
    sqlite_server: MlflowServer, tmp_path: Path
) -> None:
    with DatabricksHost(sqlite_server.url, tmp_path, token_seconds=0) as host:
        config = signed_in(
            host=host.url,
            client_id=host.client_id,
            client_secret=host.client_secret,
            disable_async_token_refresh=True,
        )
        assert config.auth_type == "oauth-m2m"
        first, second = config.authenticate(), config.authenticate()
        assert first != second, "the first one had ended at once"
        assert len(host.issued) == 2
        assert httpx.get(f"{host.url}{API}/experiments/get?experiment_id=0", headers=first).status_code == 401


def test_the_sdk_keeps_a_token_that_is_good_and_a_wrong_secret_gets_none(host: DatabricksHost) -> None:
    config = signed_in(host=host.url, client_id=host.client_id, client_secret=host.client_secret)
    assert config.authenticate() == config.authenticate()
    assert len(host.issued) == 1
    wrong = signed_in(host=host.url, client_id=host.client_id, client_secret="wrong")
    with pytest.raises(ValueError, match="invalid_client"):
        wrong.authenticate()


def test_every_request_to_the_api_needs_a_token_that_is_good_now(host: DatabricksHost) -> None:
    config = signed_in(host=host.url, client_id=host.client_id, client_secret=host.client_secret)
    headers, url = config.authenticate(), f"{host.url}{API}/experiments/get?experiment_id=0"
    assert httpx.get(url, headers=headers).status_code == 200
    host.revoke()
    for refused in (headers, {}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}):
        answer = httpx.get(url, headers=refused)
        assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")
    assert httpx.get(url, headers={"Authorization": f"Bearer {host.token}"}).status_code == 200
    assert host.token not in repr(host)


def test_runs_are_kept_by_the_server_behind_and_their_artifacts_are_in_dbfs(
    client: httpx.Client, sqlite_server: MlflowServer
) -> None:
    run = new_run(client)
    metrics = [{"key": "loss", "value": 1.5, "timestamp": 1}]
    client.post("/runs/log-batch", json={"run_id": run["run_id"], "metrics": metrics}).raise_for_status()
    assert sqlite_server.rows("select value from metrics where run_uuid = :run", run=run["run_id"]) == [(1.5,)]
    root = f"dbfs:/databricks/mlflow-tracking/{run['experiment_id']}/{run['run_id']}/artifacts"
    assert run["artifact_uri"] == root
    read = client.get("/runs/get", params={"run_id": run["run_id"]}).json()["run"]
    assert (read["info"]["artifact_uri"], read["data"]["metrics"][0]["value"]) == (root, 1.5)


@pytest.mark.parametrize("name", ["vision", "", "Users/someone/x"])
def test_an_experiments_name_is_an_absolute_path(client: httpx.Client, name: str) -> None:
    for answer in (
        client.post("/experiments/create", json={"name": name}),
        client.get("/experiments/get-by-name", params={"experiment_name": name}),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_name_below_workspace_is_kept_without_it(client: httpx.Client) -> None:
    name = next(NAMES)
    client.post("/experiments/create", json={"name": f"/Workspace{name}"}).raise_for_status()
    found = client.get("/experiments/get-by-name", params={"experiment_name": name})
    assert found.json()["experiment"]["name"] == name
    missed = client.get("/experiments/get-by-name", params={"experiment_name": f"/Workspace{name}"})
    assert missed.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_there_is_no_default_experiment_and_no_body_over_a_megabyte(client: httpx.Client) -> None:
    answer = client.post("/runs/create", json={"experiment_id": "0"})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    answer = client.post("/runs/log-batch", json={"run_id": "x" * 1_000_000})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_rate_limit_is_for_its_path_only(sqlite_server: MlflowServer, tmp_path: Path) -> None:
    with DatabricksHost(sqlite_server.url, tmp_path, rates={"runs/search": 1}) as host:
        headers = {"Authorization": f"Bearer {host.token}"}
        with httpx.Client(base_url=f"{host.url}{API}", headers=headers) as client:
            statuses = [client.post("/runs/search", json={"max_results": 1}).status_code for _ in range(20)]
            assert statuses[0] == 200
            assert 429 in statuses
            assert client.get("/experiments/get", params={"experiment_id": "0"}).status_code == 200
        assert [record.status for record in host.requests_to("runs/search")] == statuses


def test_artifacts_go_to_signed_addresses_without_a_second_way_to_sign_in(
    host: DatabricksHost, client: httpx.Client
) -> None:
    run_id, path = new_run(client)["run_id"], "models/a b.bin"
    sent = {"run_id": run_id, "path": [path, "empty"]}
    infos = client.post("/artifacts/credentials-for-write", json=sent).json()["credential_infos"]
    assert [(info["path"], info["type"]) for info in infos] == [(it, "AWS_PRESIGNED_URL") for it in sent["path"]]
    uri = infos[0]["signed_uri"]
    headers = {header["name"]: header["value"] for header in infos[0]["headers"]}
    assert headers == dict([SIGNED_HEADER])
    assert httpx.put(uri, content=b"data").status_code == 403, "its headers are part of what was signed"
    assert httpx.put(uri, content=b"data", headers={**headers, "Authorization": "Bearer x"}).status_code == 400
    assert httpx.put(uri, content=iter([b"data"]), headers=headers).status_code == 501, "S3 takes no chunks"
    assert httpx.put(uri, content=b"data" * 100_000, headers=headers).status_code == 200
    assert httpx.put(infos[1]["signed_uri"], content=b"", headers=headers).status_code == 200
    assert httpx.get(uri).status_code == 403, "it is for writing"

    read = client.post("/artifacts/credentials-for-read", json={"run_id": run_id, "path": [path]})
    (info,) = read.json()["credential_infos"]
    assert httpx.get(info["signed_uri"]).content == b"data" * 100_000
    listed = client.get("/artifacts/list", params={"run_id": run_id}).json()
    assert listed["root_uri"].startswith("dbfs:/databricks/mlflow-tracking/")
    assert listed["files"] == [
        {"path": "empty", "is_dir": False, "file_size": 0},
        {"path": "models", "is_dir": True},
    ]
    inside = client.get("/artifacts/list", params={"run_id": run_id, "path": "models"}).json()["files"]
    assert inside == [{"path": path, "is_dir": False, "file_size": 400_000}]


def test_a_fault_proxy_may_stand_before_it(host: DatabricksHost) -> None:
    with FaultProxy(host.url) as proxy:
        config = signed_in(host=proxy.url, client_id=host.client_id, client_secret=host.client_secret)
        url = f"{proxy.url}{API}/experiments/create"
        proxy.plan(LoseAnswer(), path="experiments/create")
        name = next(NAMES)
        with pytest.raises(httpx.ReadError):
            httpx.post(url, json={"name": name}, headers=config.authenticate())
        again = httpx.post(url, json={"name": name}, headers=config.authenticate())
        assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
        assert len(proxy.requests_to("/oidc/v1/token")) == 1, "what it hands out leads through the proxy too"
