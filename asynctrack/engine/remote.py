"""The engine of a process that logs and does not deliver: a shipper process does, or, offline, `asynctrack sync` later.

What is left to do here: have the next segment ready, seal the last one, and, where somebody waits, read what the
shipper has written down.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Container

from asynctrack.engine.batcher import Lane
from asynctrack.engine.engine import Engine, Request, RunStats
from asynctrack.journal.reader import JournalReader
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.uri import userinfo_of

__all__ = ["RemoteEngine"]

logger = logging.getLogger("asynctrack")

#: seconds between two looks at the cursor while somebody waits, and between two starts of a shipper that does not stay
_TICK = 0.02
_RESTART = 5.0
#: settings that cannot go through the environment
_NOT_HANDED_ON = ("on_error", "token", "shipper", "handle_sigterm")


class RemoteEngine(Engine):
    """An `Engine` whose journal is delivered elsewhere."""

    def __init__(self, store_uri: str, settings: Settings, store: AbstractStore | None = None) -> None:
        super().__init__(store_uri, settings, store, consumed=False)

    def _reset(self) -> None:
        super()._reset()
        self._offline = self.settings.mode == "offline"
        self._lanes: dict[int, Lane] = {}
        self._acknowledged: dict[int, int] = {}
        self._reader = JournalReader(self.journal.spool.registry, self.journal.head)
        self._front = 0
        self._known_runs = 0
        self._cursor_seen = (0, 0)
        self._shipper: subprocess.Popen[bytes] | None = None
        self._shipper_started = float("-inf")

    # ── what the shipper has written down

    def lane(self, run: int) -> Lane | None:
        return self._lanes.get(run)

    def _refresh(self) -> None:
        path = self.journal.spool.path or ""
        try:
            about = os.stat(os.path.join(path, "cursor"))
            seen = about.st_ino, about.st_size
            if seen == self._cursor_seen:
                return
            cursor = self.journal.spool.load_cursor()
        except (OSError, ValueError):
            return  # not written yet, or being written just now
        if cursor is None:
            return
        self._cursor_seen = seen
        self._front, self._known_runs = cursor["front"], cursor["known_runs"]
        self._acknowledged = {run: entry[0] for run, entry in cursor["runs"].items()}
        for run, report in cursor.get("reports", {}).items():
            lane = self._lanes.setdefault(run, Lane(run, RunSpec(uid=""), attached=False))
            lane.take_report(report)

    def acknowledged(self, run: int) -> int:
        """Every event of the run before this sequence number is delivered."""
        if abs(run) > self._known_runs:
            return 0
        # Of a run with its artifacts, or (below 0) of these alone.
        lanes = (run, -run) if run > 0 else (run,)
        return min(self._acknowledged.get(lane, self._front) for lane in lanes)

    def stats(self, run: int, streams: Container[int]) -> RunStats:
        self._refresh()
        lane = self._lanes.get(run) or Lane(run, RunSpec(uid=""), attached=False)
        try:
            waiting = self._reader.count(self.acknowledged(run), streams)
        except OSError:
            waiting = 0  # the shipper has just deleted the segment that was being counted
        return RunStats(
            accepted=lane.delivered + lane.rejected + waiting,
            delivered=lane.delivered,
            pending=waiting,
            rejected=lane.rejected,
            dropped=self.journal.dropped,
            retries=lane.retries,
            spool_bytes=self.journal.disk_bytes(),
            lag=0.0 if not waiting else time.monotonic() - self._caught_up_at,
            last_error=lane.last_error,
        )

    def pending(self) -> int:
        return max(self.journal.current[2].first - self._front, 0)

    @property
    def last_error(self) -> str | None:
        return next((lane.last_error for lane in self._lanes.values() if lane.last_error), None)

    # ── the thread

    def _open(self) -> None:
        """No source of this process's own."""

    def _main(self) -> None:
        try:
            while not self._leaving_loop:
                self._woken.clear()
                self._keep()
                self._woken.wait(_TICK if self._waiting else self.settings.flush_interval)
            self._close()
        except BaseException as error:
            self._died(error)
        finally:
            self.finished.set()

    def _keep(self) -> None:
        if not self._offline:
            self._keep_shipper()
        self.journal.seal_behind()
        self.journal.prepare()
        self._sync()
        self._drop_deleted()
        self._answer()

    def _drop_deleted(self) -> None:
        head = self.journal.head
        while head.next is not None and head.path is not None and not os.path.exists(head.path):
            head.close()
            head = head.next
        if head is not self.journal.head:
            self.journal.head = self._reader.head = head
            self.journal.room_made()

    def _settled(self, request: Request) -> bool:
        if self._offline:
            request.receipt.resolve(None)
            return True
        self._refresh()
        lane = self._lanes.get(request.run)
        if request.mark is not None:
            if self.acknowledged(request.run) < request.mark:
                return False
            request.receipt.resolve(None)
            return True
        if lane is not None and (error := lane.refused or lane.held) is not None:
            request.receipt.fail(error)
        elif lane is not None and (lane.info is not None or self._not_now(lane)):
            request.receipt.resolve(lane.info)
        else:
            return False
        return True

    def _drain(self) -> None:
        """At interpreter exit, where the thread could not be started."""
        self._keep()
        self._close()

    def _close(self) -> None:
        """Let the shipper finish, which it does when the journal's lock is free."""
        self.journal.close()
        self.journal.spool.release()
        self._answer()
        shipper = self._shipper
        self.left_behind = self._offline
        if shipper is None:
            return
        self._poke(shipper)
        while shipper.poll() is None and time.monotonic() < self._deadline:
            self._answer()
            time.sleep(_TICK)
        self.left_behind = shipper.poll() != 0
        self._answer()

    # ── the shipper process

    def wake(self) -> None:
        super().wake()
        shipper = self._shipper
        if shipper is not None:
            self._poke(shipper)

    def _poke(self, shipper: subprocess.Popen[bytes]) -> None:
        try:
            os.write(shipper.stdin.fileno(), b"!")  # type: ignore[union-attr]  # started with a pipe
        except (OSError, ValueError):
            pass  # it has just ended, or cannot keep up with being woken

    def _keep_shipper(self) -> None:
        if self._shipper is not None and self._shipper.poll() is None:
            return
        now = time.monotonic()
        if now < self._shipper_started + _RESTART or self.journal.spool.path is None:
            return
        if self._shipper is not None:
            logger.error(
                "asynctrack: the shipper process has ended (status %s); starting another", self._shipper.poll()
            )
        self._shipper_started = now
        try:
            self._shipper = subprocess.Popen(
                [sys.executable, "-m", "asynctrack.engine.shipper", self.journal.spool.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=self._environment(),
                start_new_session=True,
            )
            os.set_blocking(self._shipper.stdin.fileno(), False)  # type: ignore[union-attr]  # as above
        except OSError as error:
            logger.error("asynctrack: cannot start the shipper process: %s. Events are kept; trying again.", error)

    def _environment(self) -> dict[str, str]:
        """The shipper's: ours, and what this program has set in other ways."""
        environment = dict(os.environ)
        for name, value in self.settings._asdict().items():
            if name not in _NOT_HANDED_ON and value is not None:
                environment[f"ASYNCTRACK_{name.upper()}"] = str(value)
        userinfo = userinfo_of(self.store.uri)
        if userinfo is not None:
            environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"] = userinfo
        return environment

    def forget(self) -> None:
        super().forget()
        self._shipper = None  # the parent's
