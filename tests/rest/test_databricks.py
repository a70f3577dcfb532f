"""Runs in a Databricks workspace, its stand-in's: the real databricks-sdk, and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.errors import RefusedError
from tests.databricks import DatabricksHost
from tests.rest import support
from tests.servers import MlflowServer


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    support.impatient(monkeypatch)
    asynctrack.configure(connect_timeout=30.0)  # messages are counted: that a slow machine is slow is none of them
    asynctrack.set_tracking_uri("databricks")


@pytest.fixture
def host(sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabricksHost]:
    """A workspace; nobody has signed in yet."""
    for name in ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with DatabricksHost(sqlite_server.url, tmp_path / "dbfs", token_seconds=2) as host:
        monkeypatch.setenv("DATABRICKS_HOST", host.url)
        yield host


def workspace_path() -> str:
    return f"/Shared/{support.fresh()}"


@pytest.mark.parametrize("sdk", [True, False], ids=["with databricks-sdk", "without"])
def test_a_run_is_logged_with_a_personal_access_token(
    sdk: bool, host: DatabricksHost, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment."""
    monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
    if not sdk:
        monkeypatch.setitem(sys.modules, "databricks.sdk.config", None)
    with asynctrack.start_run(experiment_name=workspace_path(), strict=True) as run:
        took = support.log_events(run)
    support.assert_all_stored(sqlite_server, run.run_id)
    support.assert_quick(took)
    asks = host.requests_to(".well-known")
    assert bool(asks) == sdk
    assert len(asks) <= 1, "one Config serves all requests"


def test_a_profile_of_the_configuration_file_is_used(
    host: DatabricksHost, sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``databricks://profile``."""
    monkeypatch.delenv("DATABRICKS_HOST")
    (tmp_path / "cfg").write_text(f"[team]\nhost = {host.url}\ntoken = {host.token}\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "cfg"))
    with asynctrack.start_run(tracking_uri="databricks://team", experiment_name=workspace_path(), strict=True) as run:
        run.log_metric("a", 1.0)
    assert support.stored(sqlite_server, run.run_id).points == [("a", 0, 1.0)]


def test_a_service_principals_token_is_refreshed_in_the_middle_of_a_run(
    host: DatabricksHost, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """OAuth, machine to machine: tokens end while the run goes on, one is even revoked, and nobody notices much."""
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", host.client_id)
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", host.client_secret)
    with asynctrack.start_run(experiment_name=workspace_path(), strict=True) as run:
        run.flush()
        first = len(host.issued)
        took = support.log_events(run, at={10_000: host.revoke})
        run.flush()
        assert len(host.issued) > first
    support.assert_all_stored(sqlite_server, run.run_id)
    assert len(support.spoken(caplog)) <= 2
    assert host.client_secret not in caplog.text
    support.assert_quick(took)


def test_a_revoked_token_holds_the_events_until_there_is_a_new_one(
    host: DatabricksHost, sqlite_server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A personal access token that was rotated: the environment is read again."""
    monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
    with asynctrack.start_run(experiment_name=workspace_path(), strict=True) as run:
        run.flush()
        host.revoke()
        support.log_events(run, 3000)
        support.until(lambda: len([record for record in host.requests if record.status == 401]) >= 3)
        monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
    support.assert_all_stored(sqlite_server, run.run_id, 3000)
    assert len(support.spoken(caplog)) == 2


def test_an_experiment_name_that_is_no_workspace_path_is_said_at_once(
    host: DatabricksHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the name should look like."""
    monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
    with pytest.raises(RefusedError, match="absolute path"), asynctrack.start_run(experiment_name="vision"):
        pass


def test_rate_limits_are_kept_and_cost_nothing(
    sqlite_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """429 with Retry-After, a few times in a run: said once."""
    with DatabricksHost(sqlite_server.url, tmp_path / "dbfs", rates={"runs/log-batch": 2}) as host:
        monkeypatch.setenv("DATABRICKS_HOST", host.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", host.token)
        with asynctrack.start_run(experiment_name=workspace_path(), strict=True) as run:
            for step in range(12):
                run.log_metric(support.KEYS[step % 4], step * 0.25, step)
                run.flush()
        assert {record.status for record in host.requests_to("log-batch")} == {200, 429}
    assert support.stored(sqlite_server, run.run_id).points == support.expected(12)
    assert len(support.spoken(caplog)) <= 2
