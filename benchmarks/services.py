"""A FastAPI application under uvicorn, with `MetricsMiddleware` and without.

Three servers run all the time: plain, plain once more as a control, and counted. One client that does next to nothing
sends requests over a few connections at once to each of them in turn, a short block at a time, in another order each
round; so what else the machine does meets all three. Which worker gets a connection is the kernel's choice, and for
each server another: so they are started anew many times, and connections are new in each block.
What the two plain servers differ by is what this measurement cannot tell apart. Ratios of p50 and p99 are over all
requests; their medians over the rounds are given beside them. Processor time is that of a server with its workers.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import asynctrack
from benchmarks.command import Options, run
from benchmarks.measuring import Tails, work_folder
from benchmarks.report import Report, Table

#: seconds of a block, blocks of each server, and how often the servers are started anew for them
BLOCK, BLOCKS, STARTS = 0.5, 4, 20
#: servers' workers, and the client's connections at once
SIZES = ((1, 4), (4, 8))
SERVERS = ("plain", "control", "counted")
_REQUEST = b"GET /items/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_END = b'{"item":7}'


@contextmanager
def server(work: Path, workers: int, attach: str | None, *, counted: bool) -> Iterator[tuple[int, int]]:
    """A server's port, and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": str(work / "mlruns"),
        "ASYNCTRACK_SPOOL_DIR": str(work / "spool"),
    }
    environment |= {"COUNTED": "1"} if counted else {}
    environment |= {"ASYNCTRACK_ATTACH": attach} if counted and attach else {}
    options = ["--port", str(port), "--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.services_app:app", *options]
    process = subprocess.Popen(command, env=environment)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu(pid: int) -> float:
    """Processor time of a process and its children, in seconds."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu(int(child)) for child in children)


def connected(port: int, count: int) -> list[socket.socket]:
    """Connections to a server that have had an answer."""
    found = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for each in found:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.sendall(_REQUEST)
        answer(each)
    return found


def answer(connection: socket.socket) -> None:
    """Wait for the last byte of an answer. Raises RuntimeError where the server has hung up."""
    # uvicorn with workers sends a head and a body one after the other, and the body only when the head is acknowledged,
    # which takes 40 ms unless it is asked for at once.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    said = b""
    while not said.endswith(_END):
        more = connection.recv(65536)
        if not more:
            raise RuntimeError(f"a server hung up after {said!r}")
        said += more


def block(connections: list[socket.socket], length: float) -> list[int]:
    """How long requests took, in ns: one on each connection at a time."""
    laps: list[int] = []
    clock = time.perf_counter_ns
    until = clock() + int(length * 1e9)
    while clock() < until:
        sent = []
        for connection in connections:
            sent.append(clock())
            connection.sendall(_REQUEST)
        for connection, begun in zip(connections, sent, strict=True):
            answer(connection)
            laps.append(clock() - begun)
    return laps


class Found(NamedTuple):
    """Of one server: the laps of each block, in ns, and its processor time for all of them, in s."""

    blocks: list[list[int]]
    cpu: float

    @property
    def laps(self) -> list[int]:
        """All of them."""
        return [lap for block in self.blocks for lap in block]


def of_size(workers: int, connections: int, blocks: int, starts: int) -> dict[str, Found]:
    """What was found, by server, in some starts of all three."""
    parts = [of_start(workers, connections, blocks) for _ in range(starts)]
    return {
        name: Found([block for part in parts for block in part[name].blocks], sum(part[name].cpu for part in parts))
        for name in SERVERS
    }


def of_start(workers: int, connections: int, blocks: int) -> dict[str, Found]:
    """The same in one."""
    with work_folder() as work, ExitStack() as running:
        attach = None
        if workers > 1:
            asynctrack.configure(spool_dir=str(work / "spool"))
            attach = running.enter_context(asynctrack.start_run(tracking_uri=str(work / "mlruns"))).run_id
        places = {
            name: running.enter_context(server(work, workers, attach, counted=name == "counted"))
            for name in random.sample(SERVERS, len(SERVERS))
        }

        def once(port: int, length: float) -> list[int]:
            with ExitStack() as closing:
                lines = [closing.enter_context(line) for line in connected(port, connections)]
                return block(lines, length)

        for port, _ in places.values():
            once(port, 1.0)
        found: dict[str, list[list[int]]] = {name: [] for name in SERVERS}
        begun = {name: cpu(pid) for name, (_, pid) in places.items()}
        for _ in range(blocks):
            for name in random.sample(SERVERS, len(SERVERS)):
                found[name].append(once(places[name][0], BLOCK))
        spent = {name: cpu(pid) - begun[name] for name, (_, pid) in places.items()}
    asynctrack.shutdown()
    return {name: Found(found[name], spent[name]) for name in SERVERS}


def measure(options: Options) -> Report:
    """The benchmark."""
    report = Report("services", "Web services", __doc__ or "")
    columns = ["workers", "server", "p50, µs", "p99, µs", "p99.9, µs", "most, µs", "over 1 ms", "requests/s", "CPU, µs"]
    table = Table("Requests", columns)
    ratios = Table("Of the plain server's", ["workers", "server", "p50", "p99", "CPU", "p50, median of rounds", "p99"])
    for workers, connections in SIZES:
        found = of_size(workers, connections, *((4, 1) if options.quick else (BLOCKS, STARTS)))
        tails = {name: Tails.of(each.laps) for name, each in found.items()}
        each_cpu = {name: each.cpu / len(each.laps) * 1e6 for name, each in found.items()}
        for name, each in found.items():
            rate = len(each.laps) / (len(each.blocks) * BLOCK)
            table.add(str(workers), name, *tails[name].cells(), f"{rate:,.0f}", f"{each_cpu[name]:.0f}")
        for name in SERVERS[1:]:
            own, plain = tails[name], tails["plain"]
            p50, p99, spent = own.p50 / plain.p50, own.p99 / plain.p99, each_cpu[name] / each_cpu["plain"]
            pairs = [
                (Tails.of(one), Tails.of(other))
                for one, other in zip(found[name].blocks, found["plain"].blocks, strict=True)
            ]
            medians = (
                statistics.median(one.p50 / other.p50 for one, other in pairs),
                statistics.median(one.p99 / other.p99 for one, other in pairs),
            )
            ratios.add(str(workers), name, *(f"{ratio:.3f}" for ratio in (p50, p99, spent, *medians)))
            if name == "counted":
                report.goal(f"p50_{workers}", f"p50 of a request, {workers} workers", p50, 1.02)
                report.goal(f"p99_{workers}", f"p99 of a request, {workers} workers", p99, 1.05)
    report.tables += [table, ratios]
    return report


if __name__ == "__main__":
    run(__doc__, measure)
