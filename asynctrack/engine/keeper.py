"""Keeping a shipper process for a spool, and saying here what it has to say."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from asynctrack.clock import monotonic
from asynctrack.engine.child import LOG, ShipperProcess, Tail, shipper_environment
from asynctrack.engine.consumer import ArtifactFailures, SaidOnce
from asynctrack.engine.reported import ShipperReports
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from asynctrack.settings import Settings
from asynctrack.stores.base import Refusal

__all__ = ["Farewell", "ShipperKeeper", "ShipperMessages"]

logger = logging.getLogger("asynctrack")

#: seconds between two starts of a shipper that does not stay
_RESTART = 5.0
#: what the shipper's messages begin with; other lines are a traceback's
_LEVELS = ("INFO", "WARNING", "ERROR")


class ShipperKeeper:
    """Sees to it that there is one shipper, with the credentials that the program has. Any thread may wake it; the
    rest belongs to the engine's thread."""

    def __init__(self, spool: Spool, store_uri: str, settings: Settings, trouble: SaidOnce) -> None:
        self._spool = spool
        self._store_uri = store_uri
        self._settings = settings
        self._trouble = trouble
        self._process = ShipperProcess()
        self._started_at = float("-inf")

    def keep(self) -> None:
        """Start one where there is none."""
        if self._spool.path is None or self._process.running or self._spool.deleted:
            return
        now = monotonic()
        if now < self._started_at + _RESTART:
            return
        if self._process.started:
            status = self._process.status
            logger.error(
                "asynctrack: the shipper process for %s has ended (status %s); starting another. Nothing in %s is lost",
                self._store_uri, status, self._spool.path,
            )  # fmt: skip
        self._started_at = now
        try:
            self._process.start(self._spool.path, shipper_environment(self._store_uri, self._settings))
        except (OSError, RuntimeError) as error:
            kept = f"Events for {self._store_uri} are kept in {self._spool.path}; trying again"
            self._trouble.error(f"cannot start the shipper process: {error}. {kept}")

    def renew_credentials(self) -> None:
        """Where the program has got other credentials since, have another shipper take over: a process's environment
        cannot be changed from outside."""
        environment = shipper_environment(self._store_uri, self._settings)
        if self._process.running and not self._process.knows(environment):
            self._process.kill()
            self._process = ShipperProcess()
            self._started_at = float("-inf")

    def wake(self) -> None:
        """Have it look at the journal now. Never blocks; safe in signal handlers."""
        self._process.wake()

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process.running

    def kill(self) -> None:
        """End it: somebody else delivers from here on."""
        self._process.kill()

    def let_go(self) -> None:
        """It goes on without us, or has ended."""
        self._process.let_go()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._process.forget()


class ShipperMessages:
    """What a shipper would say or call if it were a thread. Its messages go to this process's loggers, the refused
    events to ``on_error``."""

    def __init__(self, spool: Spool, settings: Settings, trouble: SaidOnce, failures: ArtifactFailures) -> None:
        self._spool = spool
        self._failures = failures
        self._on_error = settings.on_error
        self._trouble = trouble
        self._messages = Tail(os.path.join(spool.path or "", LOG))
        self._refusals = Tail(spool.rejected_path())

    def hand_on(self) -> None:
        """Say and call what is new."""
        try:
            for line in self._messages.lines():
                level, _, text = line.decode("utf-8", "replace").partition(" ")
                known = getattr(logging, level, None) if level in _LEVELS else None
                logger.log(known or logging.ERROR, "%s", text if known else line.decode("utf-8", "replace"))
            for line in self._refusals.lines():
                self._take_refusal(line)
        except OSError as error:
            self._trouble.error(f"the spool {self._spool.path} cannot be read: {error}")

    def _take_refusal(self, line: bytes) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
            value = entry["value"]
            if entry["kind"] == "artifact":
                self._failures.note(os.path.basename(value), entry["reason"])
            if self._on_error is None:
                return
            if entry["kind"] == "metric":
                value = entry["timestamp"], entry["step"], float(value)
            refusal = Refusal(entry["kind"], entry["key"], value, entry["reason"])
            self._on_error(entry["run_id"], refusal)
        except BaseException:  # as in `Sender`: sys.exit(), too, would end this thread
            logger.exception("asynctrack: on_error failed for %s", line.decode("utf-8", "replace"))

    def close(self) -> None:
        """Let go of the files."""
        self._messages.close()
        self._refusals.close()


class Farewell:
    """A spool that nothing is added to any more, and that this process lets go of, while it goes on itself: the shipper
    delivers what was logged to the very last, deletes it, and leaves. Belongs to the engine's thread."""

    def __init__(
        self, spool: Spool, last: Segment, reports: ShipperReports, shipper: ShipperKeeper, messages: ShipperMessages
    ) -> None:
        self._spool = spool
        #: somebody may be in the middle of a write to it
        self._last = last
        self._reports = reports
        self._shipper = shipper
        self._messages = messages
        self._released = False
        #: it is delivered, and the shipper has left
        self.over = False

    @property
    def delivered(self) -> bool:
        """Whether all of it is."""
        return self._released and self._reports.delivered

    def go_on(self) -> None:
        """Do what is to be done now; called again and again until it is ``over``."""
        if not self._released and self._last.seal():
            # From here on the shipper takes its owner for ended.
            self._released = True
            self._reports.close()
            self._spool.leave()
            self._shipper.wake()
        if not self._released or self.over:
            return
        self._messages.hand_on()
        if not self._reports.delivered:
            self._shipper.keep()
        elif not self._shipper.running:  # it may go on with what others have left
            self.leave()

    def leave(self) -> None:
        """It is gone, or goes on without us."""
        self.over = True
        self._shipper.let_go()
        self._messages.close()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._shipper.forget()
        self._messages.close()
