"""A wire to PostgreSQL that can be cut: a TCP port in front of its socket.

    with Wire(cluster) as wire:
        wire.cut_at_commit(answered=False)   # the next COMMIT, and the ones after it, until heal()
        asynctrack.set_tracking_uri(wire.uri)

Every connection has a thread of its own. The methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.postgres import Postgres

_COMMIT = b"COMMIT\0"


class Wire:
    """In front of the server of ``cluster``; ``uri`` is what clients are given."""

    def __init__(self, cluster: Postgres) -> None:
        self._server = parse_qs(urlsplit(cluster.url).query)["host"][0] + "/.s.PGSQL.5432"
        #: whether to cut a connection whose client sends COMMIT, and whether the server gets to see it before
        self._cut: Callable[[], bool | None] = lambda: None
        self._refuses = False
        #: how many connections were cut in a COMMIT
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres?sslmode=disable"
        self._thread = threading.Thread(target=self._accept, name="wire", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._hang_up()

    def refuse(self) -> None:
        """Cut every connection, and each new one at once, until `heal`."""
        self._refuses = True
        self._hang_up()

    def cut_at_commit(self, *, answered: bool) -> None:
        """Cut the next connection whose client sends COMMIT: before the server has it, or (``answered``) when it has
        answered, and the client does not know."""
        left = [answered]
        self._cut = lambda: left.pop() if left else None

    def cut_some_commits(self, seed: int, share: float) -> None:
        """Do that with a share of all COMMITs, either way, until `heal`."""
        chance = random.Random(seed)
        self._cut = lambda: chance.random() < 0.5 if chance.random() < share else None

    def heal(self) -> None:
        """Let everything pass again."""
        self._cut, self._refuses = (lambda: None), False

    def _hang_up(self) -> None:
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), name="wire connection", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):  # either end may go away
            self._open |= {client, server}
            try:
                if not self._refuses:
                    server.connect(self._server)
                    self._pass_on(client, server)
            finally:
                self._open -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        cut: bool | None = None
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for source in ready:
                data = source.recv(1 << 16)
                if not data:
                    return
                if source is client:
                    if _COMMIT in data and (cut := self._cut()) is not None:
                        self.cuts += 1
                    if cut is False:
                        return
                    server.sendall(data)
                elif cut:
                    return  # the server has answered
                else:
                    client.sendall(data)
