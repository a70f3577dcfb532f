"""Waking the engine's thread, whatever it waits in."""

from __future__ import annotations

from collections.abc import Callable

from asynctrack.reentrant import Gate

__all__ = ["Wakeup"]


class Wakeup:
    """Ends the naps of the engine's thread. Any thread may ring, and so may signal handlers: there is no lock here."""

    def __init__(self) -> None:
        #: somebody wants a look at the journal now
        self.asked = True
        #: opened by whoever rings; who has slept at it puts another in its place
        self._rung = Gate()
        self._wake_loop: Callable[[], None] | None = None

    def ask(self) -> None:
        """Have the journal looked at now."""
        self.asked = True
        self.ring()

    def take(self) -> bool:
        """Whether somebody has asked since the last time. Called before a look: who asks during it is heard next."""
        asked, self.asked = self.asked, False
        return asked

    def ring(self) -> None:
        """Wake the thread for something else than a look."""
        self._rung.set()
        wake_loop = self._wake_loop
        if wake_loop is not None:
            try:
                wake_loop()
            except RuntimeError:
                pass  # the loop has just been left; the thread comes to `sleep` now

    def use_loop(self, wake_loop: Callable[[], None] | None) -> None:
        """The thread naps in an event loop from now on, which ``wake_loop`` wakes; None: no longer."""
        self._wake_loop = wake_loop

    def sleep(self, seconds: float) -> None:
        """Block this thread until somebody rings, for at most so long."""
        if self._rung.wait(max(seconds, 0.0)):
            self._rung = Gate()
