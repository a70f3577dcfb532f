"""This process's engines: at most one for each store and settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

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
        #: engines that are being closed, and by when (monotonic seconds)
        self._closing: dict[Engine, float] = {}
        self._lock = RLock()

    def find(self, key: Key, make: Callable[[], Engine]) -> Engine:
        """The engine of ``key``, made now where there is none."""
        with self._lock:
            engine = self._open.get(key)
            if engine is None:
                self._let_go_of_idle()
                engine = self._open[key] = make()
            engine.wanted_at = monotonic()
            return engine

    def _let_go_of_idle(self) -> None:
        """They have no thread and no file, and keep what they are made of: a store, its settings."""
        before = monotonic() - _KEPT
        for key, engine in list(self._open.items()):
            # Whoever has asked for it a moment ago may be about to open a run.
            if engine.idle and engine.wanted_at < before:
                self._open.pop(key, None)

    def engines(self) -> list[Engine]:
        """Every engine that this process has, those that are being closed included."""
        here = os.getpid()
        found = dict.fromkeys([*self._open.values(), *self._closing])
        return [engine for engine in found if engine.pid == here]

    def close(self, engine: Engine, deadline: float) -> float:
        """Whoever asks for the engine's key gets a new one from now on. Where it was being closed already, the nearer
        of the two deadlines holds, which is returned."""
        deadline = self._closing[engine] = min(deadline, self._closing.get(engine, deadline))
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
        for engine in self._open.values():
            if engine.pid != os.getpid():  # another hook, which came first, may have logged something
                engine.forget()
