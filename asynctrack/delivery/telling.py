"""What the user is told about delivery: when a trouble begins and when it is over, not once an attempt."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.source import Source
from asynctrack.delivery.uploads import Upload
from asynctrack.errors import StoreError
from asynctrack.stores.base import Refusal

__all__ = ["Teller"]

logger = logging.getLogger("asynctrack")

#: seconds after which a trouble that comes and goes is spoken of again
_QUIET = 60.0
#: seconds for which ranks that start together wait for one another, and nothing is said
_STARTING = 30.0
#: attempts after which an artifact's trouble is spoken of
_PATIENCE = 3


class Teller:
    """Remembers what was said about one store, its runs and their spools."""

    def __init__(self, uri: str, on_refusal: Callable[[str, Refusal], None] | None) -> None:
        self._uri = uri
        self._on_refusal = on_refusal
        #: since when the store has not taken events; None: it takes them
        self.failing_since: float | None = None
        self._told_failing = -_QUIET
        self._told_runs: weakref.WeakKeyDictionary[Lane, str] = weakref.WeakKeyDictionary()
        self._told_refused: weakref.WeakSet[Lane] = weakref.WeakSet()
        self._told_disks: weakref.WeakKeyDictionary[Source, str] = weakref.WeakKeyDictionary()

    # ── one run

    def held(self, source: Source, lane: Lane, error: StoreError) -> None:
        """The user has to mend something; it may concern this run alone. Every attempt words it differently."""
        if self._first(lane, error):
            logger.error(
                "asynctrack: run %s: %s. Events are kept in %s and delivered once that is mended.",
                lane.name, self._said(error), _place(source),
            )  # fmt: skip

    def awaits(self, source: Source, lane: Lane, error: StoreError) -> None:
        """Another process is to create the run."""
        waited = lane.backoff.failed_at - lane.backoff.failing_since
        if source.adopted:  # it has waited since long before
            waited = max(waited, time.time() - lane.spec.start_time / 1000)
        if waited > _STARTING and self._first(lane, error):
            logger.warning("asynctrack: %s. Events are kept in %s until then", error, _place(source))

    def upload_fails(self, source: Source, lane: Lane, upload: Upload, error: StoreError) -> None:
        """Where artifacts are kept may fail alone."""
        if lane.backoff.attempts >= _PATIENCE and lane not in self._told_runs and self._first(lane, error):
            logger.warning(
                "asynctrack: run %s: artifact %s cannot be stored now: %s. It is kept in %s; trying again.",
                lane.name, upload.artifact_path or "(a folder)", error, source.spool.artifacts(),
            )  # fmt: skip

    def is_told(self, lane: Lane) -> bool:
        """Whether the last that was said about a run is a trouble."""
        return lane in self._told_runs

    def lane_well(self, lane: Lane) -> None:
        """The store has dealt with something of the run."""
        if self._told_runs.pop(lane, None) is not None:
            what = "events" if lane.uploads_of is None else "artifacts"
            logger.warning("asynctrack: run %s: %s takes its %s again", lane.name, self._uri, what)

    def unexpected(self, lane: Lane, error: Exception) -> None:
        """A bug, of the store or ours: with its traceback. To be called while it is handled."""
        if self._first(lane, error):
            logger.exception(
                "asynctrack: run %s: unexpected failure in the store %s; its events are kept and tried again",
                lane.name, self._uri,
            )  # fmt: skip

    def _first(self, lane: Lane, error: Exception) -> bool:
        told, kind = self._told_runs.get(lane), type(error).__name__
        self._told_runs[lane] = kind
        return told != kind

    def refused(self, source: Source, lane: Lane, refusals: list[Refusal]) -> None:
        """Events that are set aside: to ``on_error`` each, in the log the first of a run."""
        run_id, run = lane.name, lane.uploads_of or lane
        for refusal in refusals if self._on_refusal is not None else ():
            try:
                self._on_refusal(run_id, refusal)  # type: ignore[misc]  # not None: tested above
            except BaseException:  # sys.exit(), too, would end this thread and with it all delivery
                logger.exception("asynctrack: on_error failed for %s %r of run %s", refusal.kind, refusal.key, run_id)
        if refusals and run not in self._told_refused:
            self._told_refused.add(run)
            first = refusals[0]
            logger.error(
                "asynctrack: run %s: %s refused %s %r: %s. Refused events are counted in stats() and kept in %s.",
                run_id, self._uri, first.kind, first.key, first.reason, source.spool.refusals.place,
            )  # fmt: skip

    # ── the store

    def store_fails(self, source: Source, error: StoreError, now: float) -> None:
        """The store does not take events, whosesoever."""
        if self.failing_since is not None:
            return
        self.failing_since = now
        if now - self._told_failing >= _QUIET:
            self._told_failing = now
            logger.warning("asynctrack: %s. Events are kept in %s; trying again.", self._said(error), _place(source))

    def store_well(self, now: float) -> bool:
        """The store has taken events; whether it had not before."""
        since, self.failing_since = self.failing_since, None
        if since is not None and self._told_failing == since:
            logger.warning("asynctrack: %s takes events again after %.0f s", self._uri, now - since)
        return since is not None

    def _said(self, error: StoreError) -> str:
        text = str(error)
        return text if self._uri in text else f"{self._uri}: {text}"

    # ── the spool's own files

    def disk_fails(self, source: Source, trouble: str) -> None:
        """What is to be written beside the journal cannot be."""
        if source not in self._told_disks:
            self._told_disks[source] = trouble
            logger.error("asynctrack: %s. What is delivered is noted there later; trying again.", trouble)

    def disk_well(self, source: Source) -> None:
        """It can be written."""
        if self._told_disks.pop(source, None) is not None:
            logger.warning("asynctrack: %s can be written again", _place(source))


def _place(source: Source) -> str:
    return source.spool.path or "memory"
