"""What an engine and the consumer of its journal have to do with one another."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakSet

from asynctrack.engine.waiters import Request, Waiters
from asynctrack.engine.wakeup import Wakeup
from asynctrack.journal.writer import Journal
from asynctrack.reentrant import Gate, RLock
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

if TYPE_CHECKING:
    from asynctrack.delivery.lane import Lane

__all__ = [
    "ArtifactFailures",
    "Attached",
    "Consumer",
    "Context",
    "Ending",
    "RunStats",
    "SaidOnce",
    "answer_creation",
    "sync",
]

logger = logging.getLogger("asynctrack")


class RunStats(NamedTuple):
    """What became of a run's events. ``lag`` is seconds since the engine last had everything delivered."""

    accepted: int
    delivered: int
    pending: int
    rejected: int
    dropped: int
    retries: int
    spool_bytes: int
    lag: float
    last_error: str | None


class Ending:
    """How an engine is told to end, and how it says that it has."""

    def __init__(self) -> None:
        #: nothing new comes; deliver what is there
        self.asked = False
        #: until then (monotonic seconds)
        self.deadline = float("inf")
        #: it has ended and something is still in the spool
        self.left_behind = False
        self.finished = Gate()


class SaidOnce:
    """A trouble that lasts is said once, and not each time that it is met."""

    def __init__(self) -> None:
        self._said = ""

    def error(self, trouble: str, error: BaseException | None = None) -> None:
        """Say it, with the traceback of ``error``, unless it was the last to be said."""
        if trouble != self._said:
            self._said = trouble
            logger.error("asynctrack: %s", trouble, exc_info=error)


class ArtifactFailures:
    """Why artifacts were refused, by the names of their snapshots; of the latest ones, however many runs have ended
    since. Any thread may call."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._reasons: dict[str, str] = {}

    def note(self, name: str, reason: str) -> None:
        """One was refused."""
        self._reasons[name] = reason
        if len(self._reasons) > self._most:
            self._reasons.pop(next(iter(self._reasons)), None)

    def reason(self, name: str) -> str | None:
        """Why; None where it was not."""
        return self._reasons.get(name)


class Attached(Protocol):
    """Who logs to a run that somebody else ends, if anybody does. When nothing was logged for a while, it rests."""

    #: held while a frame is logged, and while it comes to rest
    lock: RLock
    ended: bool

    def may_rest(self) -> bool:
        """Whether no call needs the spool that is there now."""

    def rest(self) -> None:
        """The spool is closed; the next log call opens another run for it."""


class Context(NamedTuple):
    """What an engine shares with its consumer; all of it but settings, store and journal is new in a forked child."""

    settings: Settings
    store: AbstractStore
    journal: Journal
    waiters: Waiters
    wakeup: Wakeup
    ending: Ending
    trouble: SaidOnce
    failures: ArtifactFailures
    #: held while a run is opened, and while the engine's thread or its spool is let go
    lock: RLock
    #: those of this process
    attached: WeakSet[Attached]


class Consumer(Protocol):
    """Who sees to it that an engine's journal is delivered: this process's thread, or another process.

    `run` and `finish` are called by the engine's thread, or in its stead; the rest by any thread.
    """

    @property
    def offline(self) -> bool:
        """Nothing is delivered from here (``mode="offline"``)."""

    @property
    def idle(self) -> bool:
        """No run is open, and nothing is left to do."""

    def open(self) -> None:
        """Called before each run is opened, with the lock held. Raises OSError."""

    def run(self) -> None:
        """Deliver, answer who waits, until the end is asked for, or it has been idle for a while."""

    def finish(self) -> None:
        """Deliver the rest, until the deadline, without new threads and thread pools: the interpreter may be ending."""

    def adopt(self) -> None:
        """Look for what dead processes have left, too. Any thread may call."""

    def wake(self) -> None:
        """Somebody wants a look at the journal. Never blocks; safe in signal handlers."""

    def lane(self, run: int) -> Lane | None:
        """What is known of a run so far; for reading only."""

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        """What became of the events of a run, whose metrics are ``streams``."""

    def pending(self) -> int:
        """About how many events are on their way; cheap enough to be asked ten times a second."""

    @property
    def last_error(self) -> str | None:
        """What the store said last when it could not take events."""

    def forget(self) -> None:
        """In a forked child: what the parent has of it is not this process's."""


def answer_creation(request: Request, lane: Lane | None, settings: Settings) -> bool:
    """Answer who waits for a run's creation; whether there was an answer: its info, why it will never be created or not
    until the user mends something, or, with ``on_unreachable="spool"``, that the store cannot be reached now."""
    if lane is None:
        return False
    if lane.info is None and (error := lane.refused or lane.held) is not None:
        request.receipt.fail(error)  # held, too (wrong credentials, wrong server): the user has to know at once
        return True
    away = lane.backoff.attempts > 0 and settings.on_unreachable == "spool"
    if lane.info is not None or away:
        request.receipt.resolve(lane.info)
        return True
    return False


def sync(journal: Journal) -> None:
    """Hand what was logged to the disk itself; say it where that fails."""
    try:
        journal.sync()
    except OSError as error:
        logger.error("asynctrack: the spool %s may not survive a power cut: %s", journal.spool.path, error)
