"""The log verbs of a run. This is the hot path: read `log_metric` first.

One event is one claim (a C call that no other thread can interrupt) and one write into mapped memory. There is no lock,
no system call, no object that outlives the call. Every unusual case (a new key, a full segment, a bad argument, a
forked child, a run that has ended) makes one of these steps raise, and a slow path handles it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

from asynctrack.arguments import refuse_long_value
from asynctrack.errors import InvalidInputError, RunEndedError
from asynctrack.journal.slots import PACK, PACK_AT, PACK_WHEN, PackError
from asynctrack.runs.files import ArtifactLog
from asynctrack.runs.flattening import flattened
from asynctrack.runs.invalid import leave_out, log_what_is_valid
from asynctrack.runs.params import log_params
from asynctrack.values import shortened, to_float, to_step, to_text, to_timestamp

if TYPE_CHECKING:
    from asynctrack.engine.engine import RunStats
    from asynctrack.journal.segment import Segment
    from asynctrack.runs.state import RunState
    from asynctrack.settings import OnInvalid

__all__ = ["RunLog"]

logger = logging.getLogger("asynctrack")

_now = time.time_ns


def _entries(metrics: Mapping[str, SupportsFloat | str]) -> list[tuple[str, SupportsFloat | str]]:
    if not isinstance(metrics, Mapping):
        raise InvalidInputError(f"log_metrics takes a dictionary of names and numbers, not {shortened(metrics)}")
    return list(metrics.items())


class RunLog(ArtifactLog):
    """The log verbs. They return without waiting for the store, and any thread
    may call them. An event they accept survives the process (see
    `Settings.durability`).

    They raise InvalidInputError for an argument that can never be stored,
    RunEndedError after the run's end, SpoolFullError when the spool is full
    (with ``spool_full="raise"``). Nothing is logged then.
    """

    __slots__ = ("_chain", "_journal", "_streams")

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._streams = state.streams
        self._journal = state.engine.journal
        self._chain = self._journal.chain

    def log_metric(
        self,
        key: str,
        value: SupportsFloat | str,
        step: SupportsIndex | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Log one point. ``value``: anything with ``__float__``, NaN and ±Inf
        too, or the text of a number. ``step``: any signed 64-bit integer, default 0. ``timestamp``: ms
        since the epoch, default now."""
        if type(value) is not float:
            try:
                value = float(value) if type(value) is int else to_float(key, value)
            except InvalidInputError as error:
                leave_out(self._state, "metric", key, error)
                return
            except OverflowError as error:
                problem = InvalidInputError(f"metric {shortened(key)}: {shortened(value)}: {error}")
                leave_out(self._state, "metric", key, problem)
                return
        claim, slots, segment = self._chain.current  # before its number is looked up: see `Chain`
        try:
            stream = self._streams[key]
        except (KeyError, TypeError):
            try:
                new = self._state.stream(key)
            except InvalidInputError as error:
                leave_out(self._state, "metric", key, error)
                return
            if new is None:
                return
            stream = new
        if timestamp is None:
            timestamp = _now() // 1_000_000
        elif type(timestamp) is not int or not 0 <= timestamp < 1 << 63:
            try:
                timestamp = to_timestamp(key, timestamp)
            except InvalidInputError as error:
                leave_out(self._state, "metric", key, error)
                return
        if step is None:
            step = 0
        elif type(step) is not int:
            # Converted once: the record holds the step twice, and ``__index__`` may return two different numbers.
            try:
                step = to_step(key, step)
            except InvalidInputError as error:
                leave_out(self._state, "metric", key, error)
                return
        at = claim()
        try:
            PACK(slots, at, timestamp, step, value, stream, timestamp, step, value, stream, at)
        except (PackError, ValueError, TypeError, OverflowError):
            self._write_slowly(key, timestamp, step, value, stream, segment, at)

    def log_metrics(
        self,
        metrics: Mapping[str, SupportsFloat | str],
        step: SupportsIndex | None = None,
        timestamp: int | None = None,
        *,
        on_invalid: OnInvalid | None = None,
    ) -> None:
        """Log several points with one ``step`` and one ``timestamp`` (see
        `log_metric`). All are checked before any is logged.

        ``on_invalid="warn"`` logs the others where some can never be stored,
        and warns once for each such key; "skip" does so in silence. Default is
        the setting of that name, which is "raise"."""
        streams = self._streams
        claim, slots, segment = self._chain.current  # before the numbers are looked up: see `Chain`
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
        except InvalidInputError:  # without a name: a 17th local variable would cost CPython 3.13 sixty instructions
            log_what_is_valid(self.log_metric, self._state, metrics, step, timestamp, on_invalid)
            return
        when = PACK_WHEN(timestamp, step)
        for stream, value in points:
            at = claim()
            try:
                PACK_AT(slots, at, when, value, stream, when, value, stream, at)
            except (PackError, ValueError, TypeError):
                self._write_slowly("*", timestamp, step, value, stream, segment, at)
                claim, slots, segment = self._where_to_go_on(stream, segment)

    def log_param(self, key: str, value: Any) -> None:
        """Log one param, as ``str(value)``. A param never changes: a second,
        different value raises InvalidInputError, also if the first was logged
        before the run was taken up again; with ``start_run(from_step=…)`` it
        becomes the tag ``param_changed.<key>``, with both values."""
        try:
            self._state.check_key("param", key)
        except InvalidInputError as error:
            leave_out(self._state, "param", key, error)
            return
        self.log_params({key: value})

    def log_params(
        self, params: Mapping[str, Any], *, flatten: str | None = None, max_depth: int | None = None
    ) -> None:
        """Log params, each as ``str(value)``. All are checked before any is
        logged.

        ``flatten``: text between the names of nested params. With
        ``flatten="."``, ``{"a": {"b": 1}}`` is the param ``a.b``; without, it
        is the param ``a`` with the text ``{'b': 1}``. Dataclasses, namespaces
        and lists of dictionaries (``a.0.b``) are taken apart too. A dictionary
        with a name that cannot be part of a key stays one param.
        ``max_depth``: most names in a key, None for no limit.
        """
        log_params(self._state, self._named_params(params, flatten, max_depth))

    def set_tag(self, key: str, value: Any) -> None:
        """Set one tag, as ``str(value)``. A later value overwrites it."""
        try:
            self._state.check_key("tag", key)
        except InvalidInputError as error:
            leave_out(self._state, "tag", key, error)
            return
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags. All are checked before any is set."""
        if not isinstance(tags, Mapping):
            raise InvalidInputError(f"set_tags takes a dictionary of names and values, not {shortened(tags)}")
        entries = {}
        for key, value in tags.items():
            try:
                self._state.check_key("tag", key)
                text = to_text("tag", key, value)
                refuse_long_value("tag", key, text)
                entries[key] = text
            except InvalidInputError as error:
                leave_out(self._state, "tag", key, error)
        if entries:
            self._state.frame("tags", entries)

    @property
    def ended(self) -> bool:
        """Whether nothing more can be logged through this object."""
        return self._state.ended

    def check_key(self, kind: str, key: Any) -> None:
        """Raise InvalidInputError for a key that this run can never hold.
        ``kind``: "metric", "param" or "tag"."""
        if not isinstance(kind, str) or kind not in ("metric", "param", "tag"):
            raise InvalidInputError(f"kind={shortened(kind)}: it must be 'metric', 'param' or 'tag'")
        self._state.check_key(kind, key)

    def stats(self) -> RunStats:
        """How many events of this run are accepted, delivered, pending,
        refused, dropped. Any thread may call; does not wait for the engine."""
        return self._state.stats()

    def _named_params(
        self, params: Mapping[str, Any], flatten: str | None, max_depth: int | None
    ) -> Iterable[tuple[str, Any]]:
        if flatten is not None:
            return flattened(params, flatten, max_depth, lambda key: self._state.keys.allows("param", key))
        if max_depth is not None:
            raise InvalidInputError('max_depth= is the depth to which params are flattened; give flatten="." too')
        if not isinstance(params, Mapping):
            raise InvalidInputError(f"log_params takes a dictionary of names and values, not {shortened(params)}")
        return params.items()

    # ── slow paths

    def _checked(self, items: Iterable[tuple[str, SupportsFloat | str]]) -> list[tuple[int, float]]:
        """The points of a call that has new or invalid keys. Points that are dropped for want of room are left out."""
        points = [(self._streams.get(key) or self._state.stream(key), to_float(key, value)) for key, value in items]
        return [(stream, value) for stream, value in points if stream is not None]

    def _write_slowly(
        self, key: object, timestamp: int, step: object, value: Any, stream: int, segment: Segment, at: int
    ) -> None:
        try:
            step = to_step(key, step)
        except InvalidInputError as error:
            segment.void(at)
            leave_out(self._state, "metric", key, error)
            return
        place: Segment | None = segment
        while True:
            try:
                self._journal.write(timestamp, step, value, stream, place, at)
                return
            except RunEndedError:
                again = self._state.stream_again(stream, segment)
            if again is None:
                return
            stream, place = again, None

    def _where_to_go_on(self, stream: int, segment: Segment) -> tuple[Callable[[], int], Any, Segment]:
        """Behind a point that ``segment`` did not take. The call's later points were looked up later: they have numbers
        of the spool of now if ``stream`` is one. If not, they come here one by one: the segment takes none of them."""
        current = self._chain.current  # before the number is looked at, as ever
        if stream < self._journal.registry.first_stream:
            return segment.claim, segment.slots, segment
        return current
