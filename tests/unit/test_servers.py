"""The servers that other tests rely on: what each kind is, and that they come back as they were."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.mlruns import read_runs
from tests.servers import MlflowServer

API = "/api/2.0/mlflow"


def new_run(server: MlflowServer) -> str:
    """A run with one metric, in an experiment of its own."""
    with httpx.Client(base_url=f"{server.url}{API}", auth=server.credentials, trust_env=False, timeout=60) as client:
        experiment = client.post("/experiments/create", json={"name": uuid.uuid4().hex}).raise_for_status().json()
        created = client.post("/runs/create", json={**experiment, "start_time": 1}).raise_for_status().json()
        run_id: str = created["run"]["info"]["run_id"]
        metrics = [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 2}]
        client.post("/runs/log-batch", json={"run_id": run_id, "metrics": metrics}).raise_for_status()
    return run_id


def metrics(server: MlflowServer, run_id: str) -> list[tuple[object, ...]]:
    return server.rows("select key, value, timestamp, step from metrics where run_uuid = :run", run=run_id)


@pytest.mark.parametrize("kind", ["sqlite_server", "postgres_server", "auth_server", "prefixed_server"])
def test_a_server_keeps_in_sql_what_it_is_sent(kind: str, request: pytest.FixtureRequest) -> None:
    server: MlflowServer = request.getfixturevalue(kind)
    assert metrics(server, new_run(server)) == [("loss", 0.5, 1, 2)]


def test_a_file_backed_server_keeps_files(file_server: MlflowServer) -> None:
    run_id = new_run(file_server)
    assert read_runs(file_server.folder / "mlruns")[run_id].metrics == {"loss": [(1, 0.5, 2)]}


def test_everything_is_below_the_prefix(prefixed_server: MlflowServer) -> None:
    assert prefixed_server.url.endswith("/tracking")
    root = prefixed_server.url.removesuffix("/tracking")
    assert httpx.get(f"{root}{API}/experiments/get?experiment_id=0", trust_env=False).status_code == 404


def test_the_auth_server_asks_who_it_is_and_lets_others_read_only(auth_server: MlflowServer) -> None:
    assert httpx.get(f"{auth_server.url}/version", trust_env=False).status_code == 401
    run_id, user = new_run(auth_server), ("user-" + uuid.uuid4().hex, "a long password")
    auth_server.add_user(*user)
    url = f"{auth_server.url}{API}/runs"
    assert httpx.get(f"{url}/get?run_id={run_id}", auth=user, trust_env=False).status_code == 200
    tag = {"run_id": run_id, "key": "k", "value": "v"}
    assert httpx.post(f"{url}/set-tag", json=tag, auth=user, trust_env=False).status_code == 403
    assert auth_server.credentials is not None
    assert auth_server.credentials[1] not in repr(auth_server) + auth_server.log()


def test_a_restarted_server_has_its_address_and_data_and_nothing_while_it_is_down(sqlite_server: MlflowServer) -> None:
    run_id, url = new_run(sqlite_server), sqlite_server.url
    sqlite_server.stop()
    try:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", trust_env=False)
    finally:
        sqlite_server.start()
    assert sqlite_server.url == url
    assert metrics(sqlite_server, run_id) == [("loss", 0.5, 1, 2)]
    with pytest.raises(RuntimeError, match="is running already"):
        sqlite_server.start()


def imitate(folder: Path, program: str) -> MlflowServer:
    """A server that runs ``program`` in MLflow's place: ``python -m`` looks into the working directory first."""
    (folder / "mlflow").mkdir()
    (folder / "mlflow" / "__init__.py").touch()
    head = "import http.server, sys\nport = int(sys.argv[sys.argv.index('--port') + 1])\n"
    (folder / "mlflow" / "__main__.py").write_text(head + textwrap.dedent(program))
    return MlflowServer(folder, "")


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    server = imitate(tmp_path, "sys.exit('no such database')")
    with pytest.raises(RuntimeError, match=r"(?s)ended with status 1 while starting.*no such database"):
        server.start()
    with pytest.raises(RuntimeError, match="was never started"):
        _ = server.url


def test_what_is_guarded_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = """
        import os, signal, subprocess, sys
        from tests.guard import Guard
        sleepers = [subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=2) for _ in range(2)]
        guards = [Guard("kill -s KILL -- -$1; echo $1 >> $2", it.pid, sys.argv[1]) for it in sleepers]
        guards[1].dismiss()
        sleepers[1].kill()
        print(sleepers[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    gone, root = tmp_path / "gone", Path(servers.__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(code), str(gone)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    deadline = time.monotonic() + 10
    while not gone.exists():
        assert time.monotonic() < deadline, "the guard does nothing"
        time.sleep(0.01)
    # That run() returned says that the first sleeper is gone too: it held the other end of a pipe.
    assert gone.read_text() == ended.stdout, "the other one was dismissed"


def test_a_port_that_somebody_else_took_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = imitate(
        tmp_path,
        """
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
        try:
            server = http.server.HTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            sys.exit(f"[Errno 98] error while attempting to bind: {error.strerror}")
        print("Uvicorn running on", flush=True)
        server.serve_forever()
        """,
    )
    other = servers.free_port()
    with socket.create_server(("127.0.0.1", servers.free_port())) as taken:
        ports = iter([taken.getsockname()[1], *[other] * servers.PORT_ATTEMPTS])
        monkeypatch.setattr(servers, "free_port", ports.__next__)
        with server:
            assert server.url == f"http://127.0.0.1:{other}"


def test_free_ports_are_not_among_those_of_outgoing_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = {servers.free_port() for _ in range(50)}
    assert len(ports) > 1
    assert not [port for port in ports if low <= port <= high]
