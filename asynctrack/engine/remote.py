"""The engine of a process that logs and does not deliver: a shipper process does, or, offline, `asynctrack sync` later.

What is left to do here: have the next segment ready, seal the last one, and, where somebody waits, read what the
shipper has written down.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Container
from typing import Any

from asynctrack.engine.batcher import Lane
from asynctrack.engine.child import LOG, ShipperProcess, Tail, shipper_environment
from asynctrack.engine.engine import Engine, Request, RunStats
from asynctrack.engine.reports import take_report
from asynctrack.journal.reader import JournalReader
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore, Refusal, RunSpec
from asynctrack.stores.io import deliver_here

__all__ = ["RemoteEngine"]

logger = logging.getLogger("asynctrack")

#: seconds between two looks at the cursor while somebody waits, and between two starts of a shipper that does not stay
_TICK = 0.02
_RESTART = 5.0
#: seconds to wait for a shipper that has delivered everything to leave
_GOODBYE = 1.0
#: what the shipper's messages begin with; other lines are a traceback's
_LEVELS = ("INFO", "WARNING", "ERROR")


class RemoteEngine(Engine):
    """An `Engine` whose journal is delivered elsewhere."""

    def __init__(self, store_uri: str, settings: Settings, store: AbstractStore | None = None) -> None:
        super().__init__(store_uri, settings, store, consumed=False)

    def _reset(self) -> None:
        super()._reset()
        self.offline = self.settings.mode == "offline"
        self._lanes: dict[int, Lane] = {}
        self._acknowledged: dict[int, int] = {}
        self._reader = JournalReader(self.journal.spool.registry, self.journal.head)
        self._front = 0
        self._known_runs = 0
        self._cursor_seen = (0, 0, 0)
        self._shipper = ShipperProcess()
        self._shipper_started = float("-inf")
        path = self.journal.spool.path or ""
        self._refusals = Tail(self.journal.spool.rejected_path())
        self._messages = Tail(os.path.join(path, LOG))

    # ── what the shipper has written down

    def lane(self, run: int) -> Lane | None:
        return self._lanes.get(run)

    def _refresh(self) -> None:
        path = self.journal.spool.path or ""
        try:
            about = os.stat(os.path.join(path, "cursor"))
            seen = about.st_ino, about.st_size, about.st_mtime_ns
            if seen == self._cursor_seen:
                return
            cursor = self.journal.spool.load_cursor()
        except (OSError, ValueError):
            return  # not written yet, or being written just now
        if cursor is None:
            return
        for run, report in cursor.get("reports", {}).items():
            lane = self._lanes.get(run) or Lane(run, RunSpec(uid=""), attached=False)
            take_report(lane, report)
            self._lanes[run] = lane
        self._acknowledged = {run: entry[0] for run, entry in cursor["runs"].items()}
        self._front, self._known_runs = cursor["front"], cursor["known_runs"]
        self._cursor_seen = seen

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
        # The shipper knows of the others: params, tags and artifacts.
        waiting = max(waiting, lane.accepted - lane.delivered - lane.rejected)
        return RunStats(
            accepted=lane.delivered + lane.rejected + waiting,
            delivered=lane.delivered,
            pending=waiting,
            rejected=lane.rejected,
            dropped=self.journal.dropped,
            retries=lane.retries,
            spool_bytes=self.journal.disk_bytes() + self.journal.artifact_bytes(),
            lag=0.0 if not waiting else time.monotonic() - self._caught_up_at,
            last_error=lane.last_error,
        )

    def pending(self) -> int:
        segment = self.journal.current[2]
        try:
            begun = segment.count_begun()
        except OSError:
            begun = 0  # it is just being closed
        return max(segment.first + begun - self._front, 0)

    @property
    def last_error(self) -> str | None:
        return next((lane.last_error for lane in list(self._lanes.values()) if lane.last_error), None)

    # ── the thread

    def _open(self) -> None:
        """No source of this process's own; and the shipper starts here, for at interpreter exit none could."""
        self._keep_shipper()

    def _main(self) -> None:
        deliver_here()
        try:
            while not self._leaving_loop:
                self._keep()
                self._sleep(_TICK if self._waiting else self.settings.flush_interval)
            self._close()
        except BaseException as error:
            self._died(error)
        finally:
            self.finished.set()

    def _keep(self) -> None:
        self._keep_shipper()
        self.journal.seal_behind()
        self.journal.prepare()
        self._sync()
        self._drop_deleted()
        self._hand_on()
        self._answer()

    def _drop_deleted(self) -> None:
        head = self.journal.head
        while head.next is not None and head.path is not None and not os.path.exists(head.path):
            head.close()
            head = head.next
        if head is not self.journal.head:
            self.journal.head = self._reader.head = head
            self.journal.room_made()

    def _answer(self) -> None:
        super()._answer()
        if not self._waiting and self._known_runs and self._front >= self.journal.current[2].first:
            self._caught_up_at = time.monotonic()

    def _settled(self, request: Request) -> bool:
        if self.offline:
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
        self.left_behind = self.offline or not self._seen_through()
        self._hand_on()
        self._answer()
        self._shipper.let_go()
        self._messages.close()
        self._refusals.close()

    def _seen_through(self) -> bool:
        """Wait until the shipper has delivered everything; False at the deadline."""
        self._shipper.wake()
        registry = os.path.join(self.journal.spool.path or "", "registry")
        delivered_at: float | None = None
        while self._shipper.status != 0:
            now = time.monotonic()
            if delivered_at is None and not os.path.exists(registry):
                delivered_at = now
            # The shipper may go on with what others have left; or another process has delivered ours, as
            # `asynctrack sync` does where the shipper was killed.
            if delivered_at is not None and (not self._shipper.running or now > delivered_at + _GOODBYE):
                return True
            if now >= self._deadline:
                return delivered_at is not None
            self._keep_shipper()
            self._answer()
            time.sleep(_TICK)
        return True

    # ── what the shipper would say or call if it were a thread

    def _hand_on(self) -> None:
        """Its messages go to this process's loggers, the refused events to ``on_error``."""
        if self.offline:
            return
        try:
            for line in self._messages.lines():
                level, _, text = line.decode("utf-8", "replace").partition(" ")
                known = getattr(logging, level, None) if level in _LEVELS else None
                logger.log(known or logging.ERROR, "%s", text if known else line.decode("utf-8", "replace"))
            if self.settings.on_error is not None:
                for line in self._refusals.lines():
                    self._call_on_error(line)
        except OSError as error:
            self._say_once(f"the spool {self.journal.spool.path} cannot be read: {error}")

    def _call_on_error(self, line: bytes) -> None:
        try:
            entry: dict[str, Any] = json.loads(line)
            value = entry["value"]
            if entry["kind"] == "metric":
                value = entry["timestamp"], entry["step"], float(value)
            refusal = Refusal(entry["kind"], entry["key"], value, entry["reason"])
            self.settings.on_error(entry["run_id"], refusal)  # type: ignore[misc]  # not None: tested above
        except BaseException:  # as in `Delivery`: sys.exit(), too, would end this thread
            logger.exception("asynctrack: on_error failed for %s", line.decode("utf-8", "replace"))

    # ── the shipper process

    def wake(self) -> None:
        super().wake()
        self._shipper.wake()

    def _keep_shipper(self) -> None:
        path = self.journal.spool.path
        if self.offline or path is None:
            return
        if self._shipper.running:
            self._renew_credentials()
            return
        now = time.monotonic()
        if now < self._shipper_started + _RESTART:
            return
        if self._shipper.started:
            status = self._shipper.status
            logger.error("asynctrack: the shipper process has ended (status %s); starting another", status)
        self._shipper_started = now
        try:
            self._shipper.start(path, shipper_environment(self.store.uri, self.settings))
        except (OSError, RuntimeError) as error:
            self._say_once(f"cannot start the shipper process: {error}. Events are kept; trying again")

    def _renew_credentials(self) -> None:
        """A process's environment cannot be changed from outside: where the credentials are refused and the program has
        got others since, another shipper takes over."""
        if not any(lane.held for lane in list(self._lanes.values())):
            return
        if not self._shipper.knows(shipper_environment(self.store.uri, self.settings)):
            self._shipper.kill()
            self._shipper = ShipperProcess()
            self._shipper_started = float("-inf")

    def forget(self) -> None:
        super().forget()
        self._shipper.forget()
        self._messages.close()
        self._refusals.close()
