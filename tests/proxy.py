"""A proxy that stands between a client and a real server and does to each request what the test planned.

    with FaultProxy(server.url) as proxy:
        proxy.plan(LoseAnswer(), None, too_many(retry_after=1), path="runs/log-batch")   # one after the other
        proxy.always(Mixture(seed, {"5xx": 0.2, "cut response": 0.1}))                   # every request, until heal()

Unplanned requests pass unchanged, byte for byte, each client connection over one connection to the server; when the
server ends that (MLflow's does after five idle seconds), the client's ends too. ``requests`` says what arrived.
All methods may be called from any thread; the proxy runs in one of its own.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.exchange import Exchange, Recorded, next_head
from tests.faults import Answer, Fault
from tests.http1 import Head
from tests.servers import PORT_ATTEMPTS, free_port

Result = TypeVar("Result")

#: seconds for anything that the proxy's thread is asked to do
LIMIT = 30.0


@dataclass
class _Rule:
    """Faults for requests whose target contains ``path`` and whose body contains ``body``."""

    path: str
    body: bytes
    planned: deque[Fault | None]
    always: Callable[[], Fault | None] | None = None

    def matches(self, record: Recorded) -> bool:
        left = self.always is not None or bool(self.planned)
        return left and self.path in record.path and self.body in record.body

    def take(self) -> Fault | None:
        return self.planned.popleft() if self.always is None else self.always()


class FaultProxy:
    """In front of the server at ``target_url``; without one it answers everything with 200 and ``{}`` itself.

    ``tls`` makes it speak TLS to its clients, with whatever certificates and demands the context holds.
    """

    def __init__(self, target_url: str | None, *, tls: ssl.SSLContext | None = None) -> None:
        target = urlsplit(target_url or "")
        self.target = (target.hostname or "", target.port or 80) if target_url else None
        self._prefix, self._tls = target.path, tls
        self._lock = threading.Condition()
        self._rules: list[_Rule] = []
        self._records: list[Recorded] = []
        self._errors: list[Exception] = []
        self._connections: dict[asyncio.Task[None], Exchange] = {}
        self._opened = 0
        #: requests being handled now, and the most there ever were at once
        self.in_flight = self.peak = 0
        self._healed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._port = self._do(self._listen_anywhere())

    @property
    def url(self) -> str:
        """What to give to the client instead of ``target_url``: prefix included, and the same while it refuses."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}{self._prefix}"

    @property
    def requests(self) -> list[Recorded]:
        """What arrived so far, in the order of arrival; refused connections leave no trace."""
        with self._lock:
            return list(self._records)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._opened

    def requests_to(self, path: str) -> list[Recorded]:
        """Those whose target contains ``path``."""
        return [record for record in self.requests if path in record.path]

    def wait_for(self, count: int, path: str = "", *, timeout: float = LIMIT) -> list[Recorded]:
        """The requests to ``path``, once ``count`` of them were handled to their end; AssertionError after ``timeout``.

        A request in the hands of ``Silent`` is not at its end: poll ``requests_to`` for those.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while len(done := [r for r in self._records if path in r.path and r.finished]) < count:
                if not self._lock.wait(deadline - time.monotonic()):
                    raise AssertionError(f"{len(done)} of {count} requests to {path!r} came in {timeout} s: {done}")
        return done

    def plan(self, *faults: Fault | None, path: str = "", body: bytes = b"") -> None:
        """Faults for the next requests that match, one each; None lets one through.

        ``path`` is looked for in the target, query included, and ``body`` in the body. Earlier plans come first.
        """
        with self._lock:
            self._rules.append(_Rule(path, body, deque(faults)))

    def always(self, fault: Fault | Callable[[], Fault | None], *, path: str = "", body: bytes = b"") -> None:
        """A fault, or what a function such as ``Mixture`` says, for all matching requests until ``heal()``."""
        draw = (lambda: fault) if isinstance(fault, Fault) else fault
        with self._lock:
            self._rules.append(_Rule(path, body, deque(), draw))

    def refuse(self, seconds: float | None = None) -> None:
        """Reset every connection and refuse new ones, for that long or until ``heal()``."""
        self._do(self._async(lambda: self.go_down(seconds)))

    def heal(self) -> None:
        """Forget all plans, reset those who wait in silence, and accept connections again."""
        with self._lock:
            self._rules.clear()
        self._do(self._heal())

    def close_idle(self) -> int:
        """End the connections on which no request is under way, as a server does after a while; how many there were."""
        return self._do(self._close_idle())

    def close(self) -> None:
        """End everything; raises what went wrong inside the proxy itself, if anything did."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()
        if self._errors:
            raise ExceptionGroup("the fault proxy itself failed", self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # In the proxy's thread

    def go_down(self, seconds: float | None) -> None:
        """``refuse()`` for faults, from the proxy's own thread."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, exchange in self._connections.items():
            if task is not asyncio.current_task():
                exchange.reset()
                task.cancel()
        if seconds is not None:
            self._loop.call_later(seconds, lambda: self._loop.create_task(self._come_back()))

    async def until_healed(self) -> None:
        """Return at the next ``heal()``, or at the end."""
        await self._healed.wait()

    def finished(self, record: Recorded) -> None:
        """Wake those who wait for it."""
        with self._lock:
            record.finished = True
            self._lock.notify_all()

    async def fault_for(self, exchange: Exchange) -> Fault | None:
        """What is planned for this request, taken off the plan."""
        with self._lock:
            reads = any(rule.body for rule in self._rules if rule.path in exchange.record.path)
        if reads:
            await exchange.prefetch()
        default = Answer(200, b"{}", (("Content-Type", "application/json"),)) if self.target is None else None
        with self._lock:
            rule = next((rule for rule in self._rules if rule.matches(exchange.record)), None)
            return (rule and rule.take()) or default

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this as a task"
        self._opened += 1
        exchange = Exchange(self, reader, writer, self._opened)
        self._connections[task] = exchange
        try:
            while (head := await next_head(exchange)) is not None:
                await self._handle(exchange, head)
        except asyncio.CancelledError:
            pass  # by refuse(), close_idle() or close(), which have ended the connection as they mean it
        except (ConnectionError, ssl.SSLError):
            exchange.reset()  # one side left, which is what the other side is to see
        except Exception as error:
            self._errors.append(error)
        finally:
            del self._connections[task]
            exchange.close()

    async def _handle(self, exchange: Exchange, head: Head) -> None:
        record = exchange.begin(head)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        with self._lock:
            self._records.append(record)
        try:
            record.fault = await self.fault_for(exchange)
            await (exchange.relay() if record.fault is None else record.fault.act(exchange))
        finally:
            self.in_flight -= 1
            self.finished(record)

    async def _listen_anywhere(self) -> int:
        for _ in range(PORT_ATTEMPTS):
            self._port = free_port()
            try:
                await self._listen()
            except OSError:
                continue  # somebody else took it first
            return self._port
        raise RuntimeError(f"{PORT_ATTEMPTS} ports were all taken by somebody else")

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, ssl=self._tls)

    async def _come_back(self) -> None:
        try:
            await self._listen()
        except OSError as error:
            self._errors.append(error)

    async def _heal(self) -> None:
        self._healed.set()
        self._healed = asyncio.Event()
        await self._listen()

    async def _close_idle(self) -> int:
        idle = {task: exchange for task, exchange in self._connections.items() if exchange.waiting}
        for task, exchange in idle.items():
            exchange.close()
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        return len(idle)

    async def _end(self) -> None:
        self._healed.set()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            self._connections[task].reset()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)

    async def _async(self, work: Callable[[], None]) -> None:
        work()
