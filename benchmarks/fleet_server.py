"""A stand-in for an MLflow server that many clients share: fast, of one process, and with a capacity that can be set.

Run by `benchmarks.fleet`. A line on standard input is an order: ``down`` closes every connection and stops listening,
``up`` listens again on the same port, ``slow SECONDS`` makes it store one event in so many seconds (0: at once), one
request after another, and ``report`` prints everything that arrived and ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any

_STEP = re.compile(rb'"step":(\d+)')
_RUN = re.compile(rb'"run_id":"([0-9a-f]+)"')


class Server:
    """What it holds: by run the steps stored, and when requests came and were answered."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.seconds_an_event = 0.0
        self.free_at = 0.0
        self.runs = 0
        #: run → its steps; one point each
        self.steps: dict[str, set[int]] = {}
        #: (monotonic seconds of its arrival) of every request
        self.requests: list[float] = []
        #: (monotonic seconds of its answer, run, new points) of every batch
        self.batches: list[tuple[float, str, int]] = []

    def answer(self, path: str, body: bytes) -> tuple[float, dict[str, Any]]:
        """When to answer (loop time) and what."""
        now = time.monotonic()
        self.requests.append(now)
        if path.endswith("/server-info"):
            return now, {"store_type": "SqlStore"}
        if path.endswith("/runs/create"):
            self.runs += 1
            return now, {"run": {"info": self._info(f"{self.runs:032x}")}}
        found = _RUN.search(body)
        run = found[1].decode() if found else ""
        if path.endswith("/runs/log-batch"):
            points = set(map(int, _STEP.findall(body)))
            stored = self.steps.setdefault(run, set())
            new = len(points - stored)
            stored |= points
            self.free_at = max(now, self.free_at) + self.seconds_an_event * len(points)
            self.batches.append((self.free_at, run, new))
            return self.free_at, {}
        return now, {"run_info": self._info(run)} if path.endswith("/runs/update") else {}

    def _info(self, run: str) -> dict[str, Any]:
        return {"run_id": run, "experiment_id": "0", "status": "RUNNING", "lifecycle_stage": "active"}

    def report(self) -> dict[str, Any]:
        """Everything that arrived."""
        stored = {run: len(steps) for run, steps in self.steps.items()}
        return {"requests": self.requests, "batches": self.batches, "stored": stored}


class Connection(asyncio.Protocol):
    """HTTP/1.1, as far as our own client speaks it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, separator, rest = self._data.partition(b"\r\n\r\n")
            if not separator:
                return
            line, *headers = head.decode("latin-1").split("\r\n")
            fields = dict(header.lower().split(": ", 1) for header in headers)
            length = int(fields.get("content-length", 0))
            if len(rest) < length:
                return
            self._data = rest[length:]
            at, answer = self._server.answer(line.split(" ")[1].partition("?")[0], rest[:length])
            body = json.dumps(answer).encode()
            whole = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            asyncio.get_running_loop().call_at(at, self._write, whole)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


async def main() -> None:
    """Serve until asked to report."""
    loop = asyncio.get_running_loop()
    server = Server()
    orders: asyncio.Queue[list[str]] = asyncio.Queue()
    loop.add_reader(0, lambda: orders.put_nowait(sys.stdin.readline().split()))
    port = 0
    listening: asyncio.Server | None = None

    async def listen() -> asyncio.Server:
        return await loop.create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)

    listening = await listen()
    port = listening.sockets[0].getsockname()[1]
    print(port, flush=True)
    while True:
        order, *arguments = await orders.get() or ["report"]
        if order == "down" and listening is not None:
            listening.close()
            for connection in list(server.connections):
                connection.transport.abort()
            server.free_at = 0.0
        elif order == "up":
            listening = await listen()
        elif order == "slow":
            server.seconds_an_event = float(arguments[0])
        else:
            print(json.dumps(server.report()), flush=True)
            return


if __name__ == "__main__":
    asyncio.run(main())
