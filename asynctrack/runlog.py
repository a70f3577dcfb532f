"""The log verbs of a run, and the state they share. This is the hot path: read `log_metric` first.

One event is one claim (a C call that no other thread can interrupt) and one write into mapped memory. No lock, no
system call, no object that outlives the call. Everything unusual (a new key, a full segment, a bad argument, a forked
child, a run that has ended) fails in one of those steps and is sorted out in the slow path behind it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.engine.engine import Engine, RunStats
from asynctrack.engine.lifecycle import deliver_at_the_end_of_this_child, heed_signals, interpreter_is_ending
from asynctrack.errors import InvalidInputError, RunEndedError, SpoolError
from asynctrack.journal.slots import PACK, PACK_AT, PACK_WHEN, PackError
from asynctrack.runfiles import ArtifactLog
from asynctrack.values import flatten, shortened, to_float, to_step, to_text, to_timestamp

if TYPE_CHECKING:
    from asynctrack.artifacts.snapshot import Snapshot
    from asynctrack.engine.receipts import Receipt
    from asynctrack.entities import RunInfo
    from asynctrack.journal.segment import Segment
    from asynctrack.stores.base import RunSpec

__all__ = ["RunLog", "RunState"]

logger = logging.getLogger("asynctrack")

_now = time.time_ns


class RunState:
    """What the synchronous and the asynchronous face of a run have in common."""

    def __init__(self, engine: Engine, spec: RunSpec, *, strict: bool, attached: bool = False) -> None:
        self.engine = engine
        self.spec = spec
        self.strict = strict
        self.lock = threading.RLock()
        self.ended = False
        #: between the moment it counts as ended and the moment its end is in the journal
        self._ending = False
        #: somebody else's run (a forked process's parent's, or one named by its id): logged to, never ended
        self.attached = attached
        self.pid = os.getpid()
        self._known_id = spec.run_id or ("" if engine.store.chooses_run_ids else spec.uid)
        #: somebody has waited for the id already, and does not a second time
        self.has_waited = False
        #: metric key → stream number; empty once the run has ended, so that every log call comes to the slow path
        self.streams: dict[str, int] = {}
        #: all of them, also after the end
        self.stream_numbers: set[int] = set()
        self.params: dict[str, str] = {}
        self.told_rejected = 0
        self.told_dropped = engine.journal.dropped
        self._paths: dict[str, set[str]] = {"metric": set(), "param": set(), "tag": set()}
        self._folders: dict[str, set[str]] = {"metric": set(), "param": set(), "tag": set()}
        try:
            self.number = engine.open_run(spec, attached=attached)
        except OSError as error:
            where = engine.journal.spool.path
            raise SpoolError(
                error.errno, f"cannot start a run: the spool {where} cannot be written: {error}"
            ) from error

    @property
    def run_id(self) -> str:
        """The run's id: known at once where the client chooses it, else once the store has created the run; until then
        its uid."""
        return self._known_id if self.knows_id else self.spec.uid

    @property
    def knows_id(self) -> bool:
        """Whether `run_id` is the store's."""
        if not self._known_id:
            lane = self.engine.lane(self.number)
            self._known_id = (lane.run_id if lane is not None else None) or ""
        return bool(self._known_id)

    def stream(self, key: str) -> int | None:
        """The stream of a metric, registered on first use; None when there was no room for it and it is dropped."""
        with self.lock:
            self.check_open()
            number = self.streams.get(key) if isinstance(key, str) else None
            if number is None:
                self.check_key("metric", key)
                number = self.engine.journal.register_stream(self.number, key)
                if number is not None:
                    self.stream_numbers.add(number)
                    self.streams[key] = number
            return number

    def frame(self, kind: str, entries: dict[str, str]) -> None:
        """Log params or tags."""
        with self.lock:
            self.check_open()
            self.engine.journal.write_frame([kind, self.number, entries])

    def artifact(self, snapshot: Snapshot, artifact_path: str) -> bool:
        """Log an artifact that was put aside; False where there was no room for it in the journal."""
        with self.lock:
            self.check_open()
            return self.engine.journal.write_frame(["artifact", self.number, list(snapshot), artifact_path])

    def check_open_now(self) -> None:
        """As `check_open`, from outside."""
        with self.lock:
            self.check_open()

    def stats(self) -> RunStats:
        """What became of the run's events."""
        return self.engine.stats(self.number, self.stream_numbers)

    def check_open(self) -> None:
        """Raise RunEndedError where logging is over; attach to the run again in a forked child."""
        if self.ended:
            raise self.ended_error()
        if self.pid != os.getpid():
            self.attached = True
            self.streams.clear()
            self.stream_numbers = set()
            if self._known_id and self.engine.store.chooses_run_ids:
                self.spec = self.spec._replace(run_id=self._known_id)  # created already, by the parent
            self.number = self.engine.open_run(self.spec, attached=True)
            self.pid = os.getpid()
            deliver_at_the_end_of_this_child()
            heed_signals(self.engine.settings)

    def ended_error(self) -> BaseException:
        """What a log call raises after the end."""
        if interpreter_is_ending() and threading.current_thread() is not threading.main_thread():
            # A daemon thread that logs while the interpreter shuts down: it ends here, quietly, as it would anyway.
            return SystemExit()
        return RunEndedError(
            f"run {self.run_id} has ended; nothing was logged. Start a new run, or take this one up again with "
            f"start_run(run_id={self.run_id!r})"
        )

    def check_key(self, kind: str, key: Any) -> None:
        """Raise InvalidInputError for a key the store can never hold, alone or beside those logged already."""
        try:
            self.engine.store.check_key(kind, key)
        except InvalidInputError as error:
            raise InvalidInputError(f"run {self.run_id}: {error}") from None
        if not self.engine.store.keys_are_paths or key in self._paths[kind]:
            return
        parts = key.split("/")
        folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        clash = key if key in self._folders[kind] else next((f for f in folders if f in self._paths[kind]), None)
        if clash is not None:
            raise InvalidInputError(
                f"run {self.run_id}: {kind} {key!r} clashes with one logged before: in a file store {clash!r} would "
                "have to be a file and a folder at once; rename one of them"
            )
        self._paths[kind].add(key)
        self._folders[kind].update(folders)

    def end(self, status: str, end_time: int | None, patience: float | None = None) -> Receipt[RunInfo | None] | None:
        """Log the run's end; a receipt for everything before it. None when it has ended already.

        ``patience``: seconds to wait for room in the spool, and for other threads that do; default ``close_timeout``.
        """
        deadline = time.monotonic() + (self.engine.settings.close_timeout if patience is None else patience)
        if not self.lock.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            logger.error(
                "asynctrack: run %s: another thread still waits for room to log; it stays RUNNING", self.run_id
            )
            return None
        try:
            if self.ended and not self._ending:
                return None
            if not self.ended:
                self.check_open()
            # Twice only where a signal handler ends the run while this very thread is in the middle of it.
            self.ended = self._ending = True
            self.streams.clear()
            if not self.attached:
                now = _now() // 1_000_000
                entry = ["end", self.number, status, now if end_time is None else end_time]
                # Waiting here is worth it: an end that is dropped leaves the run RUNNING for ever.
                if not self.engine.journal.write_frame(entry, patience=max(deadline - time.monotonic(), 0.0)):
                    logger.error("asynctrack: run %s: no room in the spool for its end; it stays RUNNING", self.run_id)
            self._ending = False
        finally:
            self.lock.release()
        return self.engine.flush(self.number)

    def detach(self, status: str, end_time: int) -> None:
        """Log that nothing more comes from here of a run that is only attached; see `asynctrack.run.detach`."""
        with self.lock:
            if self.ended:
                return
            self.check_open()
            self.ended = True
            self.streams.clear()
            self.engine.journal.write_frame(["end", self.number, status, end_time])


def _entries(metrics: Mapping[str, SupportsFloat]) -> list[tuple[str, SupportsFloat]]:
    if not isinstance(metrics, Mapping):
        raise InvalidInputError(f"log_metrics takes a dictionary of names and numbers, not {shortened(metrics)}")
    return list(metrics.items())


class RunLog(ArtifactLog):
    """The log verbs. All return None at once, may be called from any thread, and raise InvalidInputError, with nothing
    logged, for what can never be stored, and RunEndedError after the run's end. What they accept survives the
    process (see `Settings.durability`)."""

    __slots__ = ("_journal", "_streams")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._streams = state.streams
        self._journal = state.engine.journal

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: SupportsIndex | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Log one point. ``value``: anything with ``__float__``, NaN and ±Inf too; ``step``: any 64-bit integer,
        default 0; ``timestamp``: ms since the epoch, default now."""
        if type(value) is not float:
            try:
                value = float(value) if type(value) is int else to_float(key, value)
            except InvalidInputError as error:
                raise self._named(error) from None
            except OverflowError as error:
                raise self._named(InvalidInputError(f"metric {shortened(key)}: {shortened(value)}: {error}")) from None
        try:
            stream = self._streams[key]
        except (KeyError, TypeError):
            new = self._state.stream(key)
            if new is None:
                return
            stream = new
        if timestamp is None:
            timestamp = _now() // 1_000_000
        elif type(timestamp) is not int or not 0 <= timestamp < 1 << 63:
            try:
                timestamp = to_timestamp(key, timestamp)
            except InvalidInputError as error:
                raise self._named(error) from None
        if step is None:
            step = 0
        claim, slots, segment = self._journal.current
        at = claim()
        try:
            PACK(slots, at, timestamp, step, value, stream, timestamp, step, value, stream)
        except (PackError, ValueError, TypeError, OverflowError):
            self._write_slowly(key, timestamp, step, value, stream, segment, at)

    def log_metrics(
        self, metrics: Mapping[str, SupportsFloat], step: SupportsIndex | None = None, timestamp: int | None = None
    ) -> None:
        """Log several points of one step and time. All are checked before any is logged."""
        streams = self._streams
        try:
            items = metrics.items() if type(metrics) is dict else _entries(metrics)
            timestamp = _now() // 1_000_000 if timestamp is None else to_timestamp("*", timestamp)
            if step is None:
                step = 0
            elif type(step) is not int or not -(1 << 63) <= step < 1 << 63:
                step = to_step("*", step)
            try:
                points = [
                    (streams[key], value if type(value) is float else to_float(key, value)) for key, value in items
                ]
            except (KeyError, TypeError):
                points = self._checked(items)
        except InvalidInputError as error:
            raise self._named(error) from None
        when = PACK_WHEN(timestamp, step)
        claim, slots, segment = self._journal.current
        for stream, value in points:
            at = claim()
            try:
                PACK_AT(slots, at, when, value, stream, when, value, stream)
            except (PackError, ValueError, TypeError):
                self._write_slowly("*", timestamp, step, value, stream, segment, at)
                claim, slots, segment = self._journal.current

    def log_param(self, key: str, value: Any) -> None:
        """Log one param, as ``str(value)``. A param never changes: another value for it raises InvalidInputError."""
        self._state.check_key("param", key)
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log params, nested dictionaries flattened with dots. All are checked before any is logged."""
        state = self._state
        entries: dict[str, str] = {}
        with state.lock:
            for key, value in flatten(params):
                text = to_text("param", key, value)
                state.check_key("param", key)
                logged = state.params.get(key, entries.get(key, text))
                if logged != text:
                    raise InvalidInputError(
                        f"run {state.run_id}: param {key!r} is {shortened(logged)} already and cannot become "
                        f"{shortened(text)}; log it under another name, or use set_tag for what changes"
                    )
                entries[key] = text
            if entries:
                state.frame("params", entries)
                state.params.update(entries)

    def set_tag(self, key: str, value: Any) -> None:
        """Set one tag, as ``str(value)``; a later one overwrites."""
        self._state.check_key("tag", key)
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags. All are checked before any is set."""
        if not isinstance(tags, Mapping):
            raise InvalidInputError(f"set_tags takes a dictionary of names and values, not {shortened(tags)}")
        entries = {}
        for key, value in tags.items():
            self._state.check_key("tag", key)
            entries[key] = to_text("tag", key, value)
        if entries:
            self._state.frame("tags", entries)

    @property
    def ended(self) -> bool:
        """Whether nothing more can be logged through this object."""
        return self._state.ended

    def check_key(self, kind: str, key: Any) -> None:
        """Raise InvalidInputError for a metric, param or tag key (``kind``) that this run can never hold."""
        self._state.check_key(kind, key)

    def stats(self) -> RunStats:
        """What became of this run's events, as of now. Any thread; does not wait for the engine."""
        return self._state.stats()

    # ── slow paths

    def _checked(self, items: Iterable[tuple[str, SupportsFloat]]) -> list[tuple[int, float]]:
        """The points of a call with keys that are new, or that are none; without those for which the policy drops."""
        points = [(self._streams.get(key) or self._state.stream(key), to_float(key, value)) for key, value in items]
        return [(stream, value) for stream, value in points if stream is not None]

    def _write_slowly(
        self, key: object, timestamp: int, step: object, value: Any, stream: int, segment: Segment, at: int
    ) -> None:
        if segment.holds(at):
            segment.void(at)  # the slot was there, so it is the step that does not fit
        try:
            self._journal.write(timestamp, to_step(key, step), value, stream)
        except InvalidInputError as error:
            raise self._named(error) from None
        except RunEndedError:
            raise self._state.ended_error() from None

    def _named(self, error: InvalidInputError) -> InvalidInputError:
        return InvalidInputError(f"run {self._state.run_id}: {error}")
