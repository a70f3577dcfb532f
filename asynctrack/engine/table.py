"""This process's engines: at most one for each store and settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import ref

from asynctrack.clock import monotonic
from asynctrack.reentrant import RLock
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine

__all__ = ["EngineTable"]

#: seconds for which an engine that nobody uses is kept
_KEPT = 60.0

#: a store by its URI, or by the object where a user has handed over a store of their own
Key = tuple[str | AbstractStore, Settings]


class EngineTable:
    """Finds engines, and keeps those that are being closed until they are. Only `find` takes a lock, which is held
    while a store is opened; everything else may be called by signal handlers."""

    def __init__(self) -> None:
        self._open: dict[Key, Engine] = {}
        #: those that nobody had used for a while. Runs that have ended hold theirs, and may be taken up again with it
        self._let_go: dict[Key, ref[Engine]] = {}
        #: engines that are being closed, and by when (monotonic seconds)
        self._closing: dict[Engine, float] = {}
        self._lock = RLock()

    def find(self, key: Key, make: Callable[[], Engine]) -> Engine:
        """The engine of ``key``, made now where there is none."""
        with self._lock:
            engine = self._open.get(key)
            if engine is None:
                self._let_go_of_idle()
                engine = self._taken_back(key)
                if engine is None:
                    engine = self._open[key] = make()
            engine.wanted_at = monotonic()
            return engine

    def _let_go_of_idle(self) -> None:
        """They have no thread and no file, and keep what they are made of: a store, its settings."""
        before = monotonic() - _KEPT
        for key, engine in list(self._open.items()):
            # Whoever has asked for it a moment ago may be about to open a run.
            if engine.idle and engine.wanted_at < before:
                self._let_go[key] = ref(engine)
                self._open.pop(key, None)
        for key, gone in list(self._let_go.items()):
            if gone() is None:
                self._let_go.pop(key, None)

    def _taken_back(self, key: Key) -> Engine | None:
        """The engine of ``key`` that was let go, if a run still holds it: there is to be one only."""
        engine = next((one for known, one in self._held() if known == key), None)
        if engine is not None:
            self._open[key] = engine
            if self._let_go.pop(key, None) is None:  # another thread has had it closed, just now
                self._open.pop(key, None)
                return None
        return engine

    def _held(self) -> list[tuple[Key, Engine]]:
        """Those that were let go, and that a run, or whoever has found it and is about to open one, still holds."""
        return [(key, engine) for key, one in list(self._let_go.items()) if (engine := one()) is not None]

    def _known(self) -> list[Engine]:
        # A signal handler may come while one is let go, or taken back: it is here and there then.
        return [*self._open.values(), *(engine for _, engine in self._held())]

    def engines(self) -> list[Engine]:
        """Every engine that this process has, those that are being closed included."""
        here = os.getpid()
        return [engine for engine in dict.fromkeys([*self._known(), *self._closing]) if engine.pid == here]

    def close(self, engine: Engine, deadline: float) -> float:
        """Whoever asks for the engine's key gets a new one from now on. Where it was being closed already, the nearer
        of the two deadlines holds, which is returned."""
        deadline = self._closing[engine] = min(deadline, self._closing.get(engine, deadline))
        # In this order: `_taken_back` goes the other way.
        for key, one in self._held():
            if one is engine:
                self._let_go.pop(key, None)
        for key, other in list(self._open.items()):
            if other is engine:
                self._open.pop(key, None)
        return deadline

    def closed(self, engine: Engine) -> bool:
        """It is closed; False where that was known."""
        return self._closing.pop(engine, None) is not None

    def forget(self) -> None:
        """In a forked child: the engines are the parent's. They stay, for the runs that go on here through them."""
        self._lock = RLock()
        self._closing.clear()
        for engine in self._known():
            if engine.pid != os.getpid():  # another hook, which came first, may have logged something
                engine.forget()
