"""Real MLflow servers for tests and benchmarks: a process group of their own, on a free port of 127.0.0.1.

    with servers.sqlite(folder) as server:
        httpx.get(f"{server.url}/health")

A start takes about ten seconds, most of it MLflow's imports and migrations: tests share the session's servers
(``sqlite_server`` and its siblings in ``conftest.py``) and keep apart by experiment names.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.guard import Guard
from tests.mlflow_store import Tables

#: whose MLflow serves: another than the tests' own where those have older libraries than MLflow's server needs
INTERPRETER = os.environ.get("SERVER_PYTHON", sys.executable)
#: seconds for a start on a busy machine, and for a graceful end before the group is killed
START_LIMIT, STOP_LIMIT = 180.0, 15.0
#: how many ports are tried when somebody else takes the chosen one first
PORT_ATTEMPTS = 5


class MlflowServer:
    """One ``mlflow server`` and what it stores; made by ``sqlite()`` and its siblings below, started by ``start()``.

    Used from one thread. ``stop()`` and ``restart()`` keep port and data; ``close()`` also ends what belongs to the
    server, such as its database. Leaving the ``with`` block closes it; no server outlives the process that started it.
    """

    def __init__(
        self,
        folder: Path,
        backend: str,
        *options: str,
        workers: int = 1,
        prefix: str = "",
        environment: Mapping[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
        command: Sequence[str] = (INTERPRETER, "-m", "mlflow"),
    ) -> None:
        self.folder = folder
        #: what MLflow was given as --backend-store-uri
        self.backend = backend
        #: where it keeps artifacts, by experiment and run
        self.artifacts = folder / "artifacts"
        #: user name and password of the administrator, for a server that asks for them
        self.credentials = credentials
        #: ended by ``close()``, after the server
        self.resources = ExitStack()
        self._options = [*options, "--workers", str(workers)]
        self._prefix = prefix
        self._command = command
        self._environment = dict(environment or {})
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._log = folder / "server.log"
        self._log_start = 0

    def __repr__(self) -> str:
        return f"MlflowServer({str(self.folder)!r}, port={self._port})"

    @property
    def url(self) -> str:
        """The tracking URI, prefix included; the same after a restart."""
        if self._port is None:
            raise RuntimeError(f"{self!r} was never started: call start() first")
        return f"http://127.0.0.1:{self._port}{self._prefix}"

    def log(self) -> str:
        """What the server wrote since its first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> Self:
        """Start, and return when it answers; on the port it had before, if it was started before.

        Raises RuntimeError with the server's own words when it does not come up.
        """
        if self._process is not None:
            raise RuntimeError(f"{self!r} is running already")
        ports = [self._port] if self._port else [free_port() for _ in range(PORT_ATTEMPTS)]
        for port in ports:
            if self._start(port):
                self._port = port
                return self
        raise RuntimeError(f"MLflow's ports {ports} were all taken by somebody else:\n{self.log()}")

    def stop(self) -> None:
        """End it gracefully (SIGTERM), or by SIGKILL when that takes too long; harmless when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as an out-of-memory killer would: SIGKILL, requests under way included."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """``stop()``, then ``start()`` on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """``stop()``, and end what belongs to it."""
        self.stop()
        self.resources.close()

    def __enter__(self) -> Self:
        if self._process is None:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rows(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query, with ``:name`` parameters, finds in the server's database."""
        return Tables(self.backend).rows(statement, **parameters)

    def add_user(self, name: str, password: str) -> None:
        """Create a user without rights of his own, on a server made by ``basic_auth()``; 12 characters or more."""
        response = httpx.post(
            f"{self.url}/api/2.0/mlflow/users/create",
            json={"username": name, "password": password},
            auth=self.credentials,
            trust_env=False,
        )
        response.raise_for_status()

    def _start(self, port: int) -> bool:
        """False when the port was taken by somebody else in the meantime."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        where = ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", self.backend]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "server", *where, *self._options],
                cwd=self.folder,
                env={**_environment(), **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = Guard("kill -s KILL -- -$1", self._process.pid)
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            written = self._log.read_bytes()[self._log_start :].decode(errors="replace")
            if "address already in use" in written.lower():
                self.kill()
                return False
            if (code := self._process.poll()) is not None:
                self.kill()
                raise RuntimeError(f"MLflow's server ended with status {code} while starting; it wrote:\n{written}")
            # Another server may answer on this port: only after ours says that it listens is the answer its own.
            listens = "Uvicorn running on" in written or "Listening at" in written
            if listens and _healthy(f"http://127.0.0.1:{port}{self._prefix}"):
                _load_the_rest(f"http://127.0.0.1:{port}{self._prefix}")
                return True
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"MLflow's server did not answer within {START_LIMIT:.0f} s; it wrote:\n{self.log()}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if process is None or guard is None:
            return
        if how is signal.SIGTERM:
            process.terminate()  # which hands it on to uvicorn and waits for it
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                pass  # a request that never ends, as faults make them, holds a graceful end up for ever
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the usual case: nobody of the group is left
        guard.dismiss()
        process.wait()


def sqlite(folder: Path, *, workers: int = 1) -> MlflowServer:
    """MLflow on an SQLite database in ``folder``, serving artifacts from there too."""
    return MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}", *_artifacts(folder), workers=workers)


def old(folder: Path, interpreter: str) -> MlflowServer:
    """The same of an old MLflow, by the interpreter of its environment."""
    path = f"{Path(interpreter).parent}:{os.environ.get('PATH', '')}"  # where it looks for gunicorn
    options = [*_artifacts(folder), "--serve-artifacts"]
    backend = f"sqlite:///{folder / 'mlflow.db'}"
    command = (interpreter, "-c", "from mlflow.cli import cli; cli()")
    return MlflowServer(folder, backend, *options, environment={"PATH": path}, command=command)


def prefixed(folder: Path, prefix: str = "/tracking") -> MlflowServer:
    """The same with everything below a path, as behind a shared host name."""
    options = [*_artifacts(folder), "--static-prefix", prefix]
    return MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}", *options, prefix=prefix)


def file_backed(folder: Path) -> MlflowServer:
    """MLflow on its file layout, in ``folder/mlruns``."""
    store = folder / "mlruns"
    return MlflowServer(folder, str(store), *_artifacts(folder), environment={"MLFLOW_ALLOW_FILE_STORE": "true"})


def postgres(folder: Path, *, workers: int = 1) -> MlflowServer:
    """MLflow on a PostgreSQL server of its own, which takes about a second more to start."""
    from tests.postgres import Postgres  # for the same reason as SQLAlchemy above

    database = Postgres()
    server = MlflowServer(folder, database.url, *_artifacts(folder), workers=workers)
    server.resources.callback(database.close)
    return server


def basic_auth(folder: Path) -> MlflowServer:
    """MLflow's basic-auth app on SQLite; ``credentials`` holds the administrator's name and password."""
    credentials = ("admin", uuid.uuid4().hex)
    configuration = folder / "auth.ini"
    configuration.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'users.db'}\n"
        f"admin_username = {credentials[0]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
        "MLFLOW_AUTH_ADMIN_USERNAME": credentials[0],
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": uuid.uuid4().hex,
    }
    options = [*_artifacts(folder), "--app-name", "basic-auth"]
    backend = f"sqlite:///{folder / 'mlflow.db'}"
    return MlflowServer(folder, backend, *options, environment=environment, credentials=credentials)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, outside the range the kernel gives to outgoing connections.

    Inside it, a client that keeps trying a stopped server's port can be given that very port for its own end: then it
    talks to itself, and the server cannot come back.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [port for port in range(10_000, 65_536) if not low <= port <= high] or list(range(low, high + 1))
    # Not the shared generator: hypothesis seeds that, and then everybody would try the same ports.
    for port in random.SystemRandom().sample(ports, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("none of 100 ports of 127.0.0.1 is free")


def _artifacts(folder: Path) -> list[str]:
    return ["--artifacts-destination", str(folder / "artifacts")]


def _environment() -> dict[str, str]:
    """Ours without what would configure MLflow, or send its telemetry; without its job runner and eight helpers."""
    foreign = ("MLFLOW_", "ASYNCTRACK_", "DATABRICKS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**kept, **settings, "DO_NOT_TRACK": "true", "PYTHONUNBUFFERED": "1"}


def _load_the_rest(url: str) -> None:
    """MLflow's server loads much of itself with the first request, which on a slow machine takes longer than a client
    waits for an answer."""
    search = f"{url}/api/2.0/mlflow/experiments/search"
    httpx.post(search, json={"max_results": 1}, timeout=START_LIMIT, trust_env=False)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
