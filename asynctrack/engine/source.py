"""One spool being drained: reader, lanes and cursor. Its own process's, a dead process's: the same code.

``front`` is the sequence number up to which everybody's events have been loaded. A run whose store does not keep up
falls behind it and reads on from a position of its own when there is room again, so that memory stays bounded and no
run waits for another.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from asynctrack.constants import PARENT_RUN_TAG
from asynctrack.engine.batcher import EndOfRun, Lane, Part, Work
from asynctrack.engine.reports import report_of, take_counts
from asynctrack.engine.uploads import Upload
from asynctrack.journal.reader import Chunk, JournalReader
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import shares
from asynctrack.journal.spool import Spool
from asynctrack.stores.base import Limits, RecordBlock, Refusal, RunSpec

__all__ = ["Loaded", "Source"]

logger = logging.getLogger("asynctrack")

#: ended runs that are kept in memory, for events that come behind their end; later ones are read from the registry
_REMEMBERED = 1000
#: a bookmark's end where all that a spool holds may have been delivered already
_EVERYTHING = 1 << 63
#: ended runs that are reported to their owner
_REPORTED = 100


class Loaded(Enum):
    """What `Source.load` found: maybe more right now, all there is, or no run with room for more."""

    MORE = 1
    ALL = 2
    NO_ROOM = 3


class Source:
    """A spool, the lanes of its runs, and how far each has come. Belongs to the engine's thread."""

    def __init__(
        self,
        spool: Spool,
        head: Segment | None,
        limits: Limits,
        *,
        adopted: bool = False,
        followed: bool = False,
        durable: bool = False,
        experiment: str | None = None,
    ) -> None:
        self.spool = spool
        #: acknowledge only what survives the machine (``durability="system"``)
        self.durable = durable
        self.limits = limits
        #: the experiment, by name, that runs are created in, whatever their programs chose
        self.experiment = experiment
        #: how many batches of one run are worth loading ahead; the engine sets it as the store keeps up
        self.depth = 1
        #: enough is loaded for all runs together; the engine sets it, too
        self.crowded = False
        #: its owner is dead: nothing will be added
        self.adopted = adopted
        #: its owner is another process, alive as far as we know, that does not deliver
        self.followed = followed
        #: write down for the owner what became of its runs, and their errors
        self.reports = False
        #: the status of runs that a dead owner has not ended; None: it is not known yet
        self.end_status: Callable[[], str | None] = lambda: "KILLED"
        #: events dealt with since we have it, and those of them that were refused
        self.delivered = 0
        self.rejected = 0
        self._published: tuple[Any, ...] = ()
        #: where it goes, when that is not the store that its owner meant
        self.to: str | None = None
        self.lanes: dict[int, Lane] = {}
        self._finished: dict[int, Lane] = {}
        self._known_runs = 0
        self._saved_low_water = 0
        #: slots written late that are loaded and not dealt with
        self._late: set[int] = set()
        cursor = self._load_cursor()
        self.front: int = cursor.get("front", head.first if head else 0)
        self.reader = JournalReader(spool.registry, head, cursor.get("pending"))
        if head is not None and head.first > self.front:
            self._lost("records in a segment that is missing, at most", head.first - self.front)
        self._restore(cursor)

    # ── runs

    def lane(self, run: int) -> Lane | None:
        """The lane of a run, made when its registration is first seen; None where that is damaged."""
        found = self.peek(run)
        if found is None:
            self.refresh()
            found = self.peek(run)
        if found is None and run < 0:
            found = self._add_uploads(-run)
        if found is None and self.reader.run(run) is not None:
            found = self._add_lane(run)  # it ended so long ago that it was forgotten
            found.ended = True
        return found

    def peek(self, run: int) -> Lane | None:
        """The lane of a run as far as it is known; changes nothing, so any thread may ask."""
        return self.lanes.get(run) or self._finished.get(run)

    def refresh(self) -> None:
        """Make lanes for runs registered since. Raises OSError."""
        self.reader.refresh_registry()
        if self.followed:
            self._find_segments()
        for run in range(self._known_runs + 1, max(self.reader.runs, default=0) + 1):
            if run in self.reader.runs:
                self._add_lane(run)
        self._known_runs = max(self._known_runs, max(self.reader.runs, default=0))

    def _find_segments(self) -> None:
        tail: Segment | None = None
        for segment in self.reader.chain():
            segment.refresh()
            tail = segment
        while (found := self.spool.next_segment(tail)) is not None:
            if tail is None:
                self.reader.head = found
            else:
                tail.next = found
            tail = found

    def take_over(self) -> bool:
        """Whether the owner of a spool that we follow is found dead just now: nothing is added from here on."""
        if not self.followed or not self.spool.take_over():
            return False
        self.refresh()
        for segment in self.reader.chain():
            segment.sealed = True
        self.followed, self.adopted = False, True
        return True

    def _add_lane(self, run: int) -> Lane:
        entry = dict(self.reader.runs[run])
        attached = entry.pop("attached", False)
        spec = RunSpec(**entry)
        if self.experiment is not None and spec.run_id is None:
            spec = spec._replace(experiment_id=None, experiment_name=self.experiment)
        lane = Lane(run, spec, attached=attached)
        parent = lane.spec.tags.get(PARENT_RUN_TAG)
        for other in [*self.lanes.values(), *self._finished.values()]:
            if lane.spec.run_id is not None and lane.spec.run_id in (other.run_id, other.spec.uid):
                lane.after = other
            if parent == other.spec.uid:
                lane.parent = other
        self.lanes[run] = lane
        return lane

    def _add_uploads(self, run: int) -> Lane | None:
        """The lane of a run's artifacts, whose number is the run's with a minus."""
        main = self.lane(run)
        if main is None:
            return None
        if main.uploads is not None:
            self.lanes[-run] = main.uploads  # put away with the run
            return main.uploads
        lane = Lane(-run, main.spec, attached=True)
        lane.uploads_of = main
        if main.bookmark_end == _EVERYTHING:
            lane.bookmark, lane.bookmark_end = {}, _EVERYTHING
        main.uploads = self.lanes[-run] = lane
        return lane

    # ── loading

    def load(self) -> Loaded:
        """Load one more chunk for the runs that have room. Raises OSError."""
        loaded = self._load_next()
        # After that: who logged to a pending slot and then asked for a flush has written it before the flush's mark.
        for late in self.reader.read_pending():
            self._distribute(late, None)
        return loaded

    def _load_next(self) -> Loaded:
        if self.crowded:
            return Loaded.NO_ROOM
        now = time.monotonic()
        behind = [(lane.position, lane) for lane in self.lanes.values() if lane.position is not None]
        ready = [(position, lane) for position, lane in behind if lane.has_room(self.limits, self.depth, now)]
        if ready:
            start = min(position for position, _ in ready)
            # Those that have fallen behind together read on together, up to where the next ones join them.
            end = min((position for position, _ in behind if position > start), default=self.front)
            return self._load_behind(start, end, [lane for position, lane in ready if position == start])
        level = [lane for lane in self.lanes.values() if lane.position is None]
        if level and not any(lane.has_room(self.limits, self.depth, now) for lane in level):
            return Loaded.NO_ROOM
        chunk = self.reader.read(self.front, self._count(self.front))
        self.front = chunk.end
        self._distribute(chunk, None)
        return Loaded.MORE if chunk.more else Loaded.ALL

    @property
    def can_catch_up(self) -> bool:
        """Whether a run that had fallen behind has room again."""
        now = time.monotonic()
        return any(
            lane.position is not None and lane.has_room(self.limits, self.depth, now) for lane in self.lanes.values()
        )

    def _count(self, start: int) -> int:
        """How many slots to read from there on: up to a multiple of what fits a batch. So the few slots at the end of
        a segment are filled up with the next one's, and are no batch of their own."""
        return self.limits.entities - start % self.limits.entities

    def _load_behind(self, start: int, end: int, lanes: list[Lane]) -> Loaded:
        count = min(self._count(start), end - start)
        chunk = self.reader.read(start, count)
        # Nothing there, although something stands behind it (before the front): these slots are all holes.
        position = min(chunk.end if chunk.end > start else start + count, self.front)
        for lane in lanes:
            lane.position = position
        self._distribute(chunk, lanes)
        if position >= self.front:
            for lane in lanes:
                lane.position = None
                self._put_away(lane)
        return Loaded.MORE

    def _distribute(self, chunk: Chunk, only: list[Lane] | None) -> None:
        """Give each run, or each of a few, its share of a chunk; where it is everybody's, a run without room falls
        behind (unless the chunk is late)."""
        parts: dict[int, Part] = {}

        late = () if chunk.late is None else (chunk.late,)

        def wanted(run: int) -> bool:
            lane = self.lane(run)
            if lane is None:
                self._lost("events of runs whose registration is damaged", 1)
            return lane is not None and (only is None or lane in only)

        def part_of(run: int) -> Part | None:
            if not wanted(run):
                return None
            if run not in parts:
                parts[run] = Part(chunk.start, chunk.end, late=late)
            return parts[run]

        if chunk.plain is not None:
            keys = self._keys(chunk.plain)
            if keys is None:
                chunk.decode()
            else:
                owners = {number: run for run in keys if part_of(run) is not None for number in keys[run]}
                # Of one run alone, as most chunks are, it goes to the store as it is.
                alone = len(keys) == 1
                for run, data in (dict.fromkeys(parts, chunk.data) if alone else shares(chunk.data, owners)).items():
                    parts[run].batch.add_block(RecordBlock(data, keys[run]))
        for number, records in chunk.streams.items():
            stream = self.reader.stream(number)
            if stream is None:
                self._lost("metric values whose registration is damaged", len(records))
                continue
            part = part_of(stream.run)
            if part is not None:
                part.batch.add(stream.key, records)
        uploads: list[tuple[int, Part]] = []
        for frame, place in zip(chunk.frames, chunk.places, strict=True):
            if frame[0] == "artifact":
                if wanted(-frame[1]):
                    # Acknowledged one by one: each may be gigabytes, and is deleted when it is.
                    uploads.append((-frame[1], Part(place, place + 1, late=late, upload=Upload.of(frame))))
            elif (part := part_of(frame[1])) is not None:
                _take_frame(part, frame, place)
        for run, part in [*parts.items(), *uploads]:
            self._give(run, part, only, chunk.late)

    def _keys(self, streams: set[int]) -> dict[int, dict[int, str]] | None:
        """The metrics behind some stream numbers, by run; None where a registration is damaged."""
        keys: dict[int, dict[int, str]] = {}
        for number in streams:
            stream = self.reader.stream(number)
            if stream is None:
                return None
            keys.setdefault(stream.run, {})[number] = stream.key
        return keys

    def _give(self, run: int, part: Part, only: list[Lane] | None, late: int | None) -> None:
        lane = self.lanes.get(run)
        if lane is None:
            # A thread that logged while the run was being ended: its event comes behind the end, and counts.
            lane = self.lanes[run] = self._finished.pop(run)
            if lane.uploads is not None:
                self.lanes[-run] = lane.uploads
        if late is not None:
            if lane.position is not None and lane.position <= late:
                return  # the lane reads on from before it, and will find it in its place
            # Behind all that is loaded, so that acknowledging what stands before it is not taken back.
            part.start = part.end = self.front if lane.position is None else lane.position
            self._late.add(late)
        elif only is None:
            if lane.position is not None:
                return
            if not lane.has_room(self.limits, self.depth, time.monotonic()):
                lane.position = part.start
                return
        lane.add(part)

    # ── acknowledging

    def done(self, lane: Lane, work: Work) -> list[Upload]:
        """The store has dealt with ``work``: move the cursor on. Raises OSError when the cursor cannot be written.

        The artifacts that it stands behind now, whose snapshots are needed no more, whatever happens.
        """
        passed = lane.done(work)
        self._late.difference_update(number for done in passed for number in done.late)
        self.delivered += len(work.batch) + (work.upload is not None)
        self._put_away(lane)
        self.save_cursor()
        uploads = [work.upload for work in passed if work.upload is not None]
        return [upload for upload in uploads if upload.snapshot.name not in lane.failed]

    def _put_away(self, lane: Lane) -> None:
        """Remember a run that has ended, and is read and delivered to the end, for a while only."""
        if lane.uploads_of is not None:
            lane = lane.uploads_of
        if not (lane.ended and lane.level):
            return
        self.lanes.pop(-lane.run, None)
        self._finished[lane.run] = lane
        self.lanes.pop(lane.run, None)
        while len(self._finished) > _REMEMBERED:
            oldest = next(iter(self._finished))
            del self._finished[oldest]
            self.reader.forget(oldest)

    def acknowledged(self, run: int) -> int:
        """Every event of the run before this sequence number is dealt with; with ``-run``, every artifact of it."""
        lane = self.lane(run) if run > 0 else self.peek(run)
        if lane is None:
            return self.front
        uploads = self.front if lane.uploads is None else lane.uploads.acknowledged(self.front)
        return min(lane.acknowledged(self.front), uploads)

    def low_water(self) -> int:
        """Every event before this sequence number is dealt with, whosesoever."""
        return min((lane.acknowledged(self.front) for lane in list(self.lanes.values())), default=self.front)

    def save_cursor(self) -> None:
        """Write down how far each run is. Raises OSError."""
        front = self.front
        runs = {}
        for run, lane in self.lanes.items():
            acknowledged = lane.acknowledged(front)
            runs[run] = [acknowledged, lane.run_id, *lane.sent_bookmark(acknowledged), lane.ended]
        low_water = min((entry[0] for entry in runs.values()), default=front)
        cursor = {
            "front": front,
            "known_runs": self._known_runs,
            "pending": sorted(self.reader.pending | self._late),
            "runs": runs,
        }
        if self.to is not None:
            cursor["to"] = self.to
        if self.reports:
            lately = list(self._finished.items())[-_REPORTED:]
            cursor["reports"] = {run: report_of(lane) for run, lane in [*lately, *self.lanes.items()] if run > 0}
        self.spool.save_cursor(cursor, sync=self.durable)
        self._saved_low_water = low_water
        self._published = self._news()

    def start_reporting(self) -> None:
        """Write down for the owner what becomes of its runs, counting on from what an earlier consumer has written."""
        self.reports = True
        for run, report in self._load_cursor().get("reports", {}).items():
            lane = self.peek(run)
            if lane is not None:
                take_counts(lane, report)

    def publish(self) -> None:
        """Write down for the owner what is new although nothing was delivered. Raises OSError."""
        if self.reports and self._news() != self._published:
            self.save_cursor()

    def _news(self) -> tuple[Any, ...]:
        troubles = [(lane.retries, lane.rejected, lane.refused, lane.held) for lane in self.lanes.values()]
        return self.front, self._known_runs, len(self._finished), troubles

    def retire(self) -> int:
        """Delete the segments that everybody is past; how many. Raises OSError."""
        retired = self.reader.retire(min([self.low_water(), *self._late]))
        if retired and self._saved_low_water < retired[-1].first + retired[-1].capacity:
            self.save_cursor()  # or the next reader would take what was empty there for missing
        for segment in retired:
            segment.remove()
        return len(retired)

    def reject(self, lane: Lane, refusals: list[Refusal], start: int) -> None:
        """Keep refused events beside the journal, with the reasons. Raises OSError."""
        now = time.time_ns() // 1_000_000
        self.spool.reject([_rejected_line(lane, refusal, start, now) for refusal in refusals])
        lane.rejected += len(refusals)
        self.rejected += sum(refusal.kind != "end" for refusal in refusals)
        lane.refusals.extend(f"{refusal.kind} {refusal.key!r}: {refusal.reason}" for refusal in refusals)

    def pending(self) -> int:
        """About how many events are still to be delivered."""
        written = 0
        for segment in self.reader.chain():
            # Of a living owner's, all but the last are full.
            begun = segment.begun or (segment.capacity if segment.next else segment.count_begun())
            written = max(written, segment.first + begun)
        return max(written - self.low_water(), 0)

    @property
    def drained(self) -> bool:
        """Whether all that is loaded is delivered, and no run is behind."""
        return all(lane.idle and lane.position is None for lane in self.lanes.values())

    def unended(self) -> bool:
        """Whether a run that was started here has not ended."""
        return any(not (lane.ended or lane.attached or lane.refused) for lane in self.lanes.values())

    def end_orphans(self, alive: set[str]) -> bool:
        """For a spool whose owner is dead: once everything is delivered, end the runs that it could not end, except
        those in ``alive`` (run ids taken up again in this process). True when nothing at all is left to do."""
        if not self.drained or self.front < self._end():
            return False
        for lane in list(self.lanes.values()):
            if lane.uploads_of is not None:
                continue
            if lane.run_id in alive or lane.attached or lane.ended or lane.run_id is None:
                self._finished[lane.run] = self.lanes.pop(lane.run)
                self.lanes.pop(-lane.run, None)
            elif (status := self.end_status()) is not None:
                lane.add(Part(self.front, self.front, ends=EndOfRun(status, self._last_sign_of_life(), assumed=True)))
        return not self.lanes

    def _end(self) -> int:
        return max((segment.first + segment.capacity for segment in self.reader.chain()), default=0)

    def _last_sign_of_life(self) -> int:
        """When the owner last wrote, in ms, as far as the files tell."""
        path = self.spool.path
        try:
            names = [os.path.join(path, name) for name in os.listdir(path)] if path else []
            newest = max((os.stat(name).st_mtime for name in names if not name.endswith("owner")), default=time.time())
        except OSError:
            newest = time.time()
        return int(newest * 1000)

    def close(self) -> None:
        """Let go of the segments' files; they stay."""
        for segment in self.reader.chain():
            segment.close()

    # ── recovery

    def _load_cursor(self) -> dict[str, Any]:
        try:
            cursor = self.spool.load_cursor() or {}
            if self.spool.is_copy():
                raise ValueError(f"{self.spool.path} is a copy")  # what the other one has delivered is not known here
            return cursor
        except (OSError, ValueError) as error:
            logger.warning("asynctrack: %s; everything in that spool is compared with the store again", error)
            return {"damaged": True}

    def _restore(self, cursor: dict[str, Any]) -> None:
        if not (self.adopted or self.followed):
            return
        self.refresh()
        known = cursor.get("known_runs", 0)
        open_runs = cursor.get("runs", {})
        for run, lane in list(self.lanes.items()):
            if run in open_runs:
                # Ended, it is here all the same while something may come behind its end.
                acknowledged, lane.run_id, lane.bookmark, lane.bookmark_end, lane.ended = open_runs[run]
                lane.position = acknowledged if acknowledged < self.front else None
                lane.suspects = set(cursor.get("pending", ()))
            elif run <= known:
                lane.ended = True  # ended and delivered long ago
                self._finished[run] = self.lanes.pop(run)
            uploads = self._add_uploads(run) if -run in open_runs else None
            if uploads is not None:
                acknowledged, _, uploads.bookmark, uploads.bookmark_end = open_runs[-run][:4]
                uploads.position = acknowledged if acknowledged < self.front else None
            if cursor.get("damaged"):
                # Nothing is known of what was delivered: have the store look for every event, from its beginning.
                lane.bookmark, lane.bookmark_end = {}, _EVERYTHING

    def _lost(self, what: str, records: int) -> None:
        self.reader.problems[what] = self.reader.problems.get(what, 0) + records


def _take_frame(part: Part, frame: list[Any], place: int) -> None:
    kind = frame[0]
    if kind == "start":
        part.starts = True
    elif kind == "params":
        part.batch.params.extend(frame[2].items())
    elif kind == "tags":
        part.batch.tags.extend(frame[2].items())
    elif kind == "end":
        part.ends, part.ends_at = EndOfRun(frame[2], frame[3]), place


def _rejected_line(lane: Lane, refusal: Refusal, start: int, now: int) -> dict[str, Any]:
    line: dict[str, Any] = {
        "run_id": lane.name,
        "kind": refusal.kind,
        "key": refusal.key,
        "reason": refusal.reason,
        "refused_at": now,
        "slots_from": start,
    }
    if refusal.kind == "metric":
        timestamp, step, value = refusal.value[:3]
        line |= {"value": repr(value), "timestamp": timestamp, "step": step}
    else:
        line["value"] = refusal.value
    return line
