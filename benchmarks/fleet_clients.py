"""Some of the fleet's clients: each has a journal, a run, a store with connections of its own, and the delivery
of an engine (`asynctrack.delivery.pump.Pump`: batches, limits, retries). What an engine has a thread for, the
waiting, is a task of one event loop here: a thousand threads would measure the interpreter.

Run by `benchmarks.fleet` with one JSON argument. Prints ``ready`` once every client's run exists; logs until a line
comes on standard input; then waits until everything is delivered and prints what happened.
"""

from __future__ import annotations

import functools
import json
import logging
import random
import resource
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import anyio
from anyio import to_thread

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Loaded, Source
from asynctrack.delivery.work import Work
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.rest import client as rest_client
from asynctrack.stores.rest.tls import tls_options
from asynctrack.stores.uri import open_store

#: seconds between two rounds of log calls, and for the runs' creation or the last delivery
_TICK, _LAST = 0.1, 60.0


class Simulated:
    """One client, with one metric of one run."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.logged = 0
        self._interval = settings.flush_interval
        self._journal = Journal(url, settings, rolled=lambda: None, wake=lambda: None)
        spec = RunSpec(uid=uuid.uuid4().hex, experiment_id="0", start_time=time.time_ns() // 1_000_000)
        self._run = self._journal.register_run({**spec._asdict(), "attached": False})
        self._journal.write_frame(["start", self._run])
        self._stream = self._journal.register_stream(self._run, "loss") or 0
        store = open_store(url, ThreadedIO())
        self._source = Source(self._journal.spool, self._journal.head, store.limits)
        self._pump = Pump(store, settings)
        self._pump.sources.append(self._source)
        # Programs do not start in step.
        self._look_at = time.monotonic() + random.random() * self._interval
        self._no_room = False

    def log(self, events: int) -> None:
        """Log so many events."""
        now = time.time_ns() // 1_000_000
        for _ in range(events):
            self._journal.write(now, self.logged, 0.5, self._stream)
            self.logged += 1

    @property
    def created(self) -> bool:
        """Whether the server has its run."""
        lane = self._source.peek(self._run)
        return lane is not None and lane.run_id is not None

    @property
    def retries(self) -> int:
        """How often it has tried again so far."""
        lane = self._source.peek(self._run)
        return 0 if lane is None else lane.retries

    def flush(self) -> int:
        """Have everything delivered now; what `delivered` is to be asked with."""
        self._look_at = 0.0
        self._event.set()
        return self._journal.mark()

    def delivered(self, mark: int) -> bool:
        """Whether everything before ``mark`` is."""
        return self._source.acknowledged(self._run) >= mark

    async def deliver(self) -> None:
        """What an engine does until it is cancelled: look, load, begin what is due, wait."""
        async with anyio.create_task_group() as steps:
            while True:
                self._event = anyio.Event()
                self._journal.seal_behind()
                if time.monotonic() >= self._look_at:
                    found = self._pump.load()
                    self._no_room = Loaded.NO_ROOM in found
                    self._look_at = time.monotonic() + (0.0 if Loaded.MORE in found else self._interval)
                for due in self._pump.due():
                    steps.start_soon(self._step, *due)
                nap = min(self._look_at, self._pump.next_retry()) - time.monotonic()
                with anyio.move_on_after(max(nap, 0.0)):
                    await self._event.wait()

    async def _step(self, source: Source, lane: Lane, work: Work) -> None:
        try:
            await self._pump.step(source, lane, work)
            self._journal.head = source.reader.head or self._journal.head
        finally:
            if self._no_room:
                self._look_at = 0.0
            self._event.set()


async def log_until_told(clients: list[Simulated], events: int) -> list[tuple[float, int]]:
    """Log in all clients until a line comes; (monotonic seconds, retries so far) along the way."""
    told = anyio.Event()

    async def listen() -> None:
        await to_thread.run_sync(sys.stdin.readline)
        told.set()

    retries = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        due = time.monotonic()
        while not told.is_set():
            for client in clients:
                client.log(events)
            retries.append((time.monotonic(), sum(client.retries for client in clients)))
            due += _TICK
            await anyio.sleep(max(due - time.monotonic(), 0.0))
    return retries


async def until(true: Callable[[], bool]) -> None:
    """Wait for it. Ends the program where it takes too long."""
    for _ in range(round(_LAST / _TICK)):
        if true():
            return
        await anyio.sleep(_TICK)
    sys.exit(f"the server did not take everything within {_LAST:.0f} s")


async def main(job: dict[str, Any]) -> None:
    """Be so many clients."""
    settings = Settings(flush_interval=job["flush_interval"], segment_bytes=64 * 1024)
    # A spool folder for each, as each has its own machine.
    homes = [f"{job['spool']}/{uuid.uuid4().hex}" for _ in range(job["clients"])]
    clients = [Simulated(job["url"], settings._replace(spool_dir=home)) for home in homes]
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(client.deliver)
        await until(lambda: all(client.created for client in clients))
        print("ready", flush=True)
        retries = await log_until_told(clients, job["events"])
        marks = [client.flush() for client in clients]
        flushed = list(zip(clients, marks, strict=True))
        await until(lambda: all(client.delivered(mark) for client, mark in flushed))
        print(json.dumps({"logged": [client.logged for client in clients], "retries": retries}), flush=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    logging.getLogger("asynctrack").setLevel(logging.CRITICAL)  # each would say that the server is away
    # A client reads the list of authorities once, which takes a hundredth of a second; here one list serves all.
    rest_client.tls_options = functools.cache(tls_options)  # type: ignore[attr-defined]  # what it has imported
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    anyio.run(main, json.loads(sys.argv[1]))
