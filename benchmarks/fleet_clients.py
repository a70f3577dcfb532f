"""Some of the fleet's clients: each an engine of its own, as a logging program has one, with its thread, event loop,
journal and connections. Many of them share one process, and one thread that logs for them all.

Run by `benchmarks.fleet` with one JSON argument. Prints ``ready`` once every client's run exists; logs until a line
comes on standard input; then waits until everything is delivered and prints what happened.
"""

from __future__ import annotations

import functools
import json
import logging
import resource
import select
import sys
import time
import uuid
from typing import Any

from asynctrack.engine.engine import Engine
from asynctrack.settings import Settings
from asynctrack.stores.base import RunSpec
from asynctrack.stores.rest import client as rest_client
from asynctrack.stores.rest.tls import tls_options

#: seconds between two rounds of log calls, and for the last delivery
_TICK, _LAST = 0.1, 60.0


class Simulated:
    """One client: its engine, and one metric of one run."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.engine = Engine(url, settings)
        spec = RunSpec(uid=uuid.uuid4().hex, experiment_id="0", start_time=time.time_ns() // 1_000_000)
        self.run = self.engine.open_run(spec)
        self.stream = self.engine.journal.register_stream(self.run, "loss") or 0
        self.logged = 0

    def log(self, events: int) -> None:
        """Log so many events."""
        now = time.time_ns() // 1_000_000
        for _ in range(events):
            self.engine.journal.write(now, self.logged, 0.5, self.stream)
            self.logged += 1

    def retries(self) -> int:
        """How often it has tried again so far."""
        lane = self.engine.lane(self.run)
        return 0 if lane is None else lane.retries

    def delivered(self, patience: float) -> bool:
        """Whether everything is delivered, after a wait."""
        return self.engine.flush(self.run).wait(patience)


def main(job: dict[str, Any]) -> None:
    """Be so many clients."""
    logging.getLogger("asynctrack").setLevel(logging.CRITICAL)  # each would say that the server is away
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A client loads the list of authorities once, a hundredth of a second; here one list serves all of them.
    rest_client.tls_options = functools.cache(tls_options)  # type: ignore[attr-defined]  # what it has imported
    settings = Settings(flush_interval=job["flush_interval"], segment_bytes=64 * 1024)
    # A spool folder for each, as each has its own machine: it looks through it for what the dead have left.
    homes = [f"{job['spool']}/{uuid.uuid4().hex}" for _ in range(job["clients"])]
    clients = [Simulated(job["url"], settings._replace(spool_dir=home)) for home in homes]
    for client in clients:
        client.engine.created(client.run).wait(_LAST)
    print("ready", flush=True)
    retries = []
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0.0))[0]:
        for client in clients:
            client.log(job["events"])
        retries.append((time.monotonic(), sum(client.retries() for client in clients)))
        due += _TICK
    deadline = time.monotonic() + _LAST
    late = sum(not client.delivered(max(deadline - time.monotonic(), 0.1)) for client in clients)
    print(json.dumps({"logged": [client.logged for client in clients], "late": late, "retries": retries}), flush=True)
    for client in clients:
        client.engine.shut_down(time.monotonic() + 1.0)
    for client in clients:
        client.engine.finished.wait(10.0)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
