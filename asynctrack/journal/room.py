"""What a log call does when there is no room: the policies of `Settings.spool_full`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from asynctrack.clock import monotonic
from asynctrack.errors import SpoolFullError
from asynctrack.settings import SpoolFull

__all__ = ["NoRoomNow", "Room"]

logger = logging.getLogger("asynctrack")

#: seconds between two attempts to find room while there is none
_RETRY_FULL = 0.1
#: seconds between two messages: on a full disk each segment that is delivered makes room for one more
_TELL_AGAIN = 60.0
#: seconds between two looks for room by a log call that waits
_ROOM_POLL = 0.02


class NoRoomNow(Exception):
    """The policy is to wait: the caller does that itself, without its locks, and tries again."""


class Room:
    """Remembers that there is no room, and applies the policy to each call that meets it.

    ``wake`` has whoever delivers look at once: only that makes room.
    """

    def __init__(self, policy: SpoolFull, wake: Callable[[], None]) -> None:
        self.policy = policy
        self.dropped = 0
        self._wake = wake
        #: no attempt before that (monotonic seconds), and why the last one failed
        self._full_until = 0.0
        self._problem = ""
        self._told = False
        #: not said again before that (monotonic seconds)
        self._silent_until = 0.0

    @property
    def problem(self) -> str:
        """Why there is no room, where it was tried so lately that trying again is of no use; else ""."""
        return self._problem if monotonic() < self._full_until else ""

    def made(self) -> None:
        """Something was deleted: whoever waits may try again."""
        self._full_until = 0.0

    def found(self) -> None:
        """There was room: should it end once more, that is said once more, if not at once."""
        self._told = False

    def refuse(
        self, where: str, problem: str, deadline: float = 0.0, *, never: bool = False, waits: bool = True
    ) -> bool:
        """No room in the spool ``where``: True to try again, False when the event is dropped. Raises SpoolFullError,
        and NoRoomNow instead of waiting where the caller ``waits`` not.

        With a ``deadline`` (monotonic seconds) the policy is to try again until then, and to drop after it. ``never``:
        the event is larger than the whole spool may be.
        """
        now = monotonic()
        if now >= self._full_until:
            # Not renewed by calls that made no attempt: those of a fast loop would put the next attempt off for ever.
            self._full_until, self._problem = now + _RETRY_FULL, problem
            self._wake()  # whoever delivers may be resting until its time comes
        policy = ("block" if now < deadline else "drop_new") if deadline else self.policy
        if policy == "raise" or (policy == "block" and never):
            raise SpoolFullError(f"{where}: {problem}. The event was not logged; make room or raise max_spool_bytes.")
        if not self._told and now >= self._silent_until:
            self._told, self._silent_until = True, now + _TELL_AGAIN
            does = "log calls wait until there is room" if policy == "block" else "new events are dropped and counted"
            logger.error(
                "asynctrack: no room in %s (%s); %s. Make room on the disk, or raise max_spool_bytes",
                where,
                problem,
                does,
            )
        if policy == "drop_new":
            self.dropped += 1
            return False
        if not waits:
            raise NoRoomNow
        self.wait()
        return True

    def wait(self) -> None:
        """Wait a moment for what is being delivered to make room."""
        self._wake()
        time.sleep(_ROOM_POLL)  # no Event: a signal handler that logs may come here while this thread is here
