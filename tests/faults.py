"""What ``FaultProxy`` can do to a request: each fault is a value, and a few lines on the request's ``Exchange``.

``None`` in a plan means: let it through. ``Mixture`` draws faults at random, the same ones for the same seed.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.exchange import Exchange


class Fault(ABC):
    """Done instead of passing a request on and its answer back."""

    @abstractmethod
    async def act(self, exchange: Exchange) -> None:
        """Handle the request; what the fault neither reads nor answers counts as lost with the connection."""


@dataclass(frozen=True)
class Refuse(Fault):
    """A crashed host: every connection is reset, and new ones are refused for ``seconds`` (None: until ``heal()``)."""

    seconds: float | None = None

    async def act(self, exchange: Exchange) -> None:
        exchange.proxy.go_down(self.seconds)
        exchange.reset()


@dataclass(frozen=True)
class Silent(Fault):
    """Nothing comes back for ``seconds`` (None: until ``heal()`` or the client leaves), then a reset.

    The server never sees the request. With ``reads=False`` its body is not even read, so a large one blocks the sender.
    """

    seconds: float | None = None
    reads: bool = True

    async def act(self, exchange: Exchange) -> None:
        if self.reads:
            await exchange.drain()
        await exchange.idle(self.seconds, watch=self.reads)
        exchange.reset()


@dataclass(frozen=True)
class CutRequest(Fault):
    """The server gets the request's first ``after`` bytes, head included; then both sides lose the connection."""

    after: int

    async def act(self, exchange: Exchange) -> None:
        await exchange.forward(self.after)
        exchange.reset()


@dataclass(frozen=True)
class CutResponse(Fault):
    """The client gets the answer's first ``after`` bytes, head included, then an orderly end or a reset."""

    after: int
    reset: bool = False

    async def act(self, exchange: Exchange) -> None:
        await exchange.forward()
        left = self.after
        async for data in exchange.response():
            await exchange.send(data[:left])
            left -= len(data[:left])
        if self.reset:
            exchange.reset()
        else:
            exchange.close()


@dataclass(frozen=True)
class LoseAnswer(Fault):
    """The server did what was asked and answered; the client sees a reset, and cannot know."""

    async def act(self, exchange: Exchange) -> None:
        await exchange.forward()
        await exchange.discard()
        exchange.reset()


@dataclass(frozen=True)
class Drip(Fault):
    """The answer arrives ``size`` bytes every ``seconds``; more, where a piece that the server sends would take longer
    than ``longest``."""

    size: int = 1
    seconds: float = 0.01
    longest: float = math.inf

    async def act(self, exchange: Exchange) -> None:
        await exchange.forward()
        async for data in exchange.response():
            size = max(self.size, int(len(data) * self.seconds / self.longest))
            for start in range(0, len(data), size):
                await exchange.send(data[start : start + size])
                await asyncio.sleep(self.seconds)
        exchange.answered()


@dataclass(frozen=True)
class Delay(Fault):
    """The request waits ``before`` seconds on its way, the answer ``after`` seconds on its way back."""

    before: float = 0.0
    after: float = 0.0

    async def act(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.before)
        await exchange.forward()
        parts = [data async for data in exchange.response()]
        await asyncio.sleep(self.after)
        await exchange.send(b"".join(parts))
        exchange.answered()


@dataclass(frozen=True)
class CloseAfter(Fault):
    """A full answer that promises keep-alive, then the connection ends: the pool's next request finds it stale."""

    async def act(self, exchange: Exchange) -> None:
        await exchange.relay()
        exchange.close()
        await exchange.closed()  # nobody who waits for this request is to meet a connection that is about to end


@dataclass(frozen=True)
class Answer(Fault):
    """An answer of the proxy's own.

    With ``applied`` the server first does what was asked, as when a gateway gives up too early. With ``early`` the body
    is not read and the connection ends, as nginx does at 413. ``close`` ends the connection after the answer.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    applied: bool = False
    early: bool = False
    close: bool = False

    async def act(self, exchange: Exchange) -> None:
        if self.applied:
            await exchange.forward()
            await exchange.discard()
        elif not self.early:
            await exchange.drain()
        ends = self.close or self.early
        names = {name.lower() for name, _ in self.headers}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(self.body)}"] if "content-length" not in names else []
        lines += ["Connection: close"] if ends else []
        body = b"" if exchange.record.method == "HEAD" else self.body
        await exchange.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        exchange.answered(self.status)
        if ends:
            exchange.close()


@dataclass(frozen=True)
class Overload(Fault):
    """A server that does ``at_once`` requests and no more: it passes those on and gives the rest ``refusal``."""

    at_once: int
    refusal: Answer = field(default_factory=lambda: error(503, "TEMPORARILY_UNAVAILABLE"))

    async def act(self, exchange: Exchange) -> None:
        if exchange.proxy.in_flight > self.at_once:
            await self.refusal.act(exchange)
        else:
            await exchange.relay()


def error(status: int, code: str, message: str = "made by the test", *, applied: bool = False) -> Answer:
    """An error as MLflow and Databricks word it."""
    return _json(status, {"error_code": code, "message": message}, applied=applied)


def too_many(retry_after: int | datetime | None = None) -> Answer:
    """429, with ``Retry-After`` in seconds, as an HTTP date (a datetime in UTC), or without."""
    answer = error(429, "REQUEST_LIMIT_EXCEEDED")
    return answer if retry_after is None else _retry_after(answer, retry_after)


def unavailable(status: int = 503, retry_after: int | datetime | None = None, *, applied: bool = False) -> Answer:
    """500, 502, 503 or 504 as JSON; ``applied`` when the server did what was asked nevertheless."""
    codes = {500: "INTERNAL_ERROR", 502: "BAD_GATEWAY", 503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
    answer = error(status, codes[status], applied=applied)
    return answer if retry_after is None else _retry_after(answer, retry_after)


def html(status: int = 502, *, applied: bool = False) -> Answer:
    """A page for people, as gateways and captive portals (status 200) send it."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n".encode()
    return Answer(status, page, (("Content-Type", "text/html"),), applied=applied)


def too_large(*, early: bool = False) -> Answer:
    """413; ``early`` as nginx does it, before the body is read."""
    page = b"<html><body><h1>413 Request Entity Too Large</h1></body></html>\r\n"
    return Answer(413, page, (("Content-Type", "text/html"),), early=early)


def unauthorized() -> Answer:
    """401 as MLflow's basic-auth app words it."""
    headers = (("Content-Type", "text/html; charset=utf-8"), ("WWW-Authenticate", 'Basic realm="mlflow"'))
    return Answer(401, b"You are not authenticated.", headers)


def forbidden(text: str = "Permission denied") -> Answer:
    """403 as MLflow words it."""
    return Answer(403, text.encode(), (("Content-Type", "text/plain; charset=utf-8"),))


def garbage(*, applied: bool = False) -> Answer:
    """200 and JSON that ends in the middle."""
    return Answer(200, b'{"run": {"info": {"run_id', (("Content-Type", "application/json"),), applied=applied)


def foreign(status: int = 200, *, applied: bool = False) -> Answer:
    """What another application says in the server's place: to everything that there is maintenance, or, as those of
    FastAPI do with 404, that it knows no such path."""
    return _json(status, {"status": "maintenance"} if status < 300 else {"detail": "Not Found"}, applied=applied)


def empty(status: int = 200, *, applied: bool = False) -> Answer:
    """An answer without a body; to an artifact's PUT, that with 200 is MLflow's own way to say that it is stored."""
    return Answer(status, applied=applied)


def redirect(location: str, status: int = 307) -> Answer:
    """Elsewhere, by an absolute URL; a second ``FaultProxy(None)`` records what arrives there."""
    return Answer(status, headers=(("Location", location),))


#: What ``Mixture`` can draw: none holds a client longer than a second, and after none is anything lost for good.
KINDS: dict[str, Callable[[random.Random], Fault]] = {
    "refuse": lambda rng: Refuse(rng.uniform(0.01, 0.3)),
    "silent": lambda rng: Silent(rng.uniform(0.1, 1.0)),
    "cut request": lambda rng: CutRequest(rng.randrange(1, 2000)),
    "cut response": lambda rng: CutResponse(rng.randrange(0, 200), reset=rng.random() < 0.5),
    "lose answer": lambda rng: LoseAnswer(),
    # A run's history is 300 kB: at the pace of a short answer it would take minutes.
    "drip": lambda rng: Drip(rng.randrange(20, 200), rng.uniform(0.001, 0.01), longest=0.05),
    "delay": lambda rng: Delay(rng.uniform(0, 0.2), rng.uniform(0, 0.2)),
    "close after": lambda rng: CloseAfter(),
    "429": lambda rng: too_many(),
    "429 retry-after": lambda rng: too_many(rng.choice([0, 1])),
    "5xx": lambda rng: unavailable(rng.choice([500, 502, 503, 504])),
    "5xx applied": lambda rng: unavailable(rng.choice([500, 502, 503, 504]), applied=True),
    "html": lambda rng: html(rng.choice([500, 502, 503])),
    "garbage": lambda rng: garbage(applied=rng.random() < 0.5),
    "foreign": lambda rng: foreign(applied=rng.random() < 0.5),
    "empty": lambda rng: empty(applied=rng.random() < 0.5),
}


class Mixture:
    """Call it for the next request's fault: each kind with its rate (0..1), None with what is left of 1.

    For one seed and one order of requests the faults are the same. ``repr`` is what to print when a test fails.
    """

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        if unknown := rates.keys() - KINDS.keys():
            raise ValueError(f"no such faults: {sorted(unknown)}; there are {sorted(KINDS)}")
        if sum(rates.values()) > 1:
            raise ValueError(f"the rates' sum is {sum(rates.values())}, more than 1")
        self._seed, self._rates, self._random = seed, dict(rates), random.Random(seed)

    def __call__(self) -> Fault | None:
        left = self._random.random()
        for kind, rate in self._rates.items():
            left -= rate
            if left < 0:
                return KINDS[kind](self._random)
        return None

    def __repr__(self) -> str:
        return f"Mixture({self._seed}, {self._rates})"


def _json(status: int, value: object, *, applied: bool) -> Answer:
    return Answer(status, json.dumps(value).encode(), (("Content-Type", "application/json"),), applied=applied)


def _retry_after(answer: Answer, when: int | datetime) -> Answer:
    value = format_datetime(when, usegmt=True) if isinstance(when, datetime) else str(when)
    return Answer(answer.status, answer.body, (*answer.headers, ("Retry-After", value)), answer.applied)
