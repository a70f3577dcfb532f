"""What one spool holds of its runs, and the store does not have yet: looked at once, or again and again."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from asynctrack.delivery.entries import put_into, registration_of, run_of, upload_of
from asynctrack.delivery.members import start_tags
from asynctrack.delivery.work import EndOfRun, Part
from asynctrack.journal.locks import is_held
from asynctrack.journal.owner import Owner, host_name
from asynctrack.journal.positions import Positions
from asynctrack.journal.viewing import SpoolView
from asynctrack.reading.points import Stretch, drop_doubles, join_last, late_point, load_numpy, points_in, taken

if TYPE_CHECKING:
    from asynctrack.journal.reader import Chunk
    from asynctrack.stores.base import RunSpec

__all__ = ["Held", "SpoolWatch"]

#: what the owner of a spool writes, by the ends of the names
_OWNERS = ("registry", ".slots", ".frames")


class Held:
    """What one spool holds of one run."""

    def __init__(self, number: int, spec: RunSpec, attached: bool) -> None:
        self.number = number
        self.spec = spec
        #: it is only logged to from there
        self.attached = attached
        #: its id in the store, as far as the spool knows
        self.run_id = spec.run_id
        #: it is not in the store yet, as far as is known
        self._uncreated = spec.run_id is None
        #: the id that the store has given it; None: not known
        self.told: str | None = None
        #: its end is delivered, and its owner has nothing to do with it any more
        self.over = False
        #: what waits in frames, by slot
        self.parts: dict[int, Part] = {}
        self.artifacts: set[int] = set()
        #: the points that wait, by key, in the order in which they will be delivered
        self.points: dict[str, list[Stretch]] = {}

    @property
    def names(self) -> set[str]:
        """The ids by which the run may be known."""
        return {name for name in (self.spec.uid, self.spec.run_id, self.run_id) if name is not None}

    @property
    def begins(self) -> bool:
        """Whether the store does not have it yet, or is still to take it up again."""
        return any(part.starts for part in self.parts.values()) or (self._uncreated and not self.over)

    @property
    def end(self) -> EndOfRun | None:
        """Its end, where that waits."""
        ends = [self.parts[number].ends for number in sorted(self.parts)]
        return next((end for end in reversed(ends) if end is not None and end.status), None)

    @property
    def waiting(self) -> int:
        """How many points, params, tags and artifacts wait."""
        points = sum(len(stretch) for stretches in self.points.values() for stretch in stretches)
        return points + sum(len(part.batch) for part in self.parts.values()) + len(self.artifacts)

    def params(self) -> Iterator[tuple[str, str]]:
        """The params that wait, in order."""
        return (entry for number in sorted(self.parts) for entry in self.parts[number].batch.params)

    def tags(self) -> Iterator[tuple[str, str]]:
        """The tags that wait, in order; those of a start first."""
        if self.begins:
            yield from start_tags(self.spec).items()
        yield from (entry for number in sorted(self.parts) for entry in self.parts[number].batch.tags)

    def stands(self, positions: Positions, *, chooses_ids: bool) -> None:
        """What a cursor says of it."""
        at = positions.runs.get(self.number)
        self.over = self.number in positions.seen and (at is None or at.ended)
        self._uncreated = self.spec.run_id is None and (at is None or at.run_id is None)
        if at is not None and at.run_id is not None:
            self.run_id = self.told = at.run_id
        elif self.spec.run_id is None and not chooses_ids:
            self.run_id = self.spec.uid

    def restore(self) -> None:
        """What was left out, as another spool held it, too, counts again."""
        for stretches in self.points.values():
            for stretch in stretches:
                stretch.restore()

    def drop_delivered(self, positions: Positions) -> None:
        """Forget what the store has, or has refused."""
        pending = set(positions.pending)

        def waits(run: int, number: int) -> bool:
            return number in pending or positions.waits(run, number)

        self.parts = {number: part for number, part in self.parts.items() if waits(self.number, number)}
        self.artifacts = {number for number in self.artifacts if waits(-self.number, number)}
        front = positions.runs[self.number].acknowledged if self.number in positions.runs else positions.front
        for key, stretches in list(self.points.items()):
            for stretch in stretches:
                stretch.keep_from(front, pending)
            self.points[key] = [stretch for stretch in stretches if not stretch.is_spent]
            if not self.points[key]:
                del self.points[key]


class SpoolWatch:
    """One spool. Belongs to one thread at a time.

    `refresh` says which runs there are, `walk` reads what waits of some of them, `settle` forgets what is delivered.
    The first two raise FileNotFoundError where the spool is gone, and OSError or ValueError where it cannot be read.
    """

    def __init__(self, path: str, owner: Owner, *, chooses_ids: bool) -> None:
        self.path = path
        self.owner = owner
        self._chooses_ids = chooses_ids
        self.runs: dict[int, Held] = {}
        #: its writer is alive, as far as can be told
        self.alive = False
        #: its last sign of life, in ms since the epoch
        self.last_time = owner.created
        self.problems: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self.view = self._view()
        self.runs.clear()
        #: of these something was passed over
        self._passed: set[int] = set()
        #: streams whose registration is damaged, and how large the registry was then
        self._unknown: dict[int, int] = {}

    def _view(self) -> SpoolView:
        return SpoolView(self.path, self.owner)

    @property
    def store(self) -> str:
        """The URI of the store that it goes to."""
        return self.view.positions.to or self.owner.store

    def refresh(self) -> None:
        """Which runs there are, and how far each is delivered."""
        here = self.owner.host == host_name()
        held = self._is_held()
        # On another host a lock proves nothing; nor does it that there is none.
        if not self.view.refresh(living=held or not here):
            self._begin_anew()
            self.view.refresh(living=held or not here)
        # Whoever delivers a dead writer's spool has its lock. (In a container with the host's name, but process ids of
        # its own, a living writer is not seen.)
        self.alive = held and (not here or self._writer_is_there())
        self.last_time = max(self.last_time, self._last_written())
        self._register()

    def _is_held(self) -> bool:
        return is_held(self.path)[0]

    def _writer_is_there(self) -> bool:
        try:
            os.kill(self.owner.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # somebody else's
        return True

    def _last_written(self) -> int:
        latest = 0.0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith(_OWNERS):
                    try:
                        latest = max(latest, entry.stat(follow_symlinks=False).st_mtime)
                    except FileNotFoundError:
                        continue  # delivered and deleted just now
        return int(latest * 1000)

    def _register(self) -> None:
        registry = self.view.reader.registry
        for number in registry.new_runs():
            found = registration_of(registry.runs[number])
            if found is not None and number not in self.runs:
                self.runs[number] = Held(number, *found)
        for held in self.runs.values():
            held.stands(self.view.positions, chooses_ids=self._chooses_ids)

    def walk(self, wanted: Collection[int]) -> None:
        """Read what waits of the runs with these numbers, or what is new of it."""
        if self._passed.intersection(wanted):
            self._begin_anew()
            self.view.refresh(living=self.alive)
            self._register()
        load_numpy(self.view.left())
        for chunk in self.view.walk():
            self._take(chunk, wanted)

    def _begin_anew(self) -> None:
        self.view.close()
        self._begin()

    def settle(self) -> None:
        """Forget what the cursor says is delivered: the store was asked since it was read."""
        for held in self.runs.values():
            held.drop_delivered(self.view.positions)

    def close(self) -> None:
        """Let go of the spool."""
        self.view.close()

    # ── a chunk

    def _take(self, chunk: Chunk, wanted: Collection[int]) -> None:
        if chunk.late is None:
            streams = points_in(chunk.data, chunk.start)
        else:
            streams = {stream: late_point(chunk.late, points[0]) for stream, points in chunk.streams.items()}
        of_key: dict[tuple[int, str], list[Stretch]] = {}
        for number, stretch in streams.items():
            found = self._stream(number)
            if found is None:
                continue
            run, key = found
            if run not in wanted:
                self._passed.add(run)
            elif run in self.runs and self.view.waits(run, chunk):
                of_key.setdefault((run, key), []).append(stretch)
        for (run, key), stretches in of_key.items():
            stretch = stretches[0] if len(stretches) == 1 else _merged(stretches)
            drop_doubles(stretch)
            there = self.runs[run].points.setdefault(key, [])
            join_last(there)
            there.append(stretch)
        for frame, place in zip(chunk.frames, chunk.places, strict=True):
            self._take_frame(frame, place, chunk, wanted)

    def _stream(self, number: int) -> tuple[int, str] | None:
        """The run and the key of a stream; None where its registration is damaged. A damaged one is not looked for
        again until the registry has grown."""
        registry = self.view.reader.registry
        if number in self._unknown and self._unknown[number] == self.view.registered():
            return None
        found = registry.stream(number)
        if found is None:
            self._unknown[number] = self.view.registered()
            return None
        return found.run, found.key

    def _take_frame(self, frame: Any, place: int, chunk: Chunk, wanted: Collection[int]) -> None:
        try:
            run = run_of(frame)
            if run is None:
                return
            if run not in wanted:
                self._passed.add(run)
                return
            held = self.runs.get(run)
            if held is None:
                return
            if frame[0] == "artifact":
                if self.view.waits(-run, chunk):
                    upload_of(frame)
                    held.artifacts.add(place)
            elif self.view.waits(run, chunk):
                part = Part(place, place + 1)
                put_into(part, frame, place)
                held.parts[place] = part
        except ValueError:
            return  # it cannot be used, and whoever delivers the spool counts and reports it


def _merged(stretches: list[Stretch]) -> Stretch:
    """The points of one key that were logged as several streams, in order."""
    joined = stretches[0].columns.part(0)
    for stretch in stretches[1:]:
        joined.extend(stretch.columns)
    numbers = [number for stretch in stretches for number in stretch.numbers]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return Stretch(taken(joined, order), [numbers[index] for index in order])
