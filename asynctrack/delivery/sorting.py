"""Sorting a chunk of the journal by run. Changes nothing, so that a chunk that could not be sorted is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asynctrack.delivery.entries import put_into, run_of, upload_of
from asynctrack.delivery.work import Part
from asynctrack.journal.reader import Chunk, JournalReader
from asynctrack.journal.slots import Slots, shares
from asynctrack.stores.base import Point, RecordBlock

__all__ = ["Sorted", "sort"]


class Sorted:
    """The parts of each run, by its number; an artifact's, of which each has one of its own, by the negative number."""

    def __init__(self, chunk: Chunk) -> None:
        self.parts: dict[int, Part] = {}
        self.uploads: list[tuple[int, Part]] = []
        #: what cannot be used, in words, and how many events that is
        self.problems: dict[str, int] = {}
        self._chunk = chunk
        self._late = () if chunk.late is None else (chunk.late,)

    def part(self, run: int) -> Part:
        """The part of a run."""
        if run not in self.parts:
            self.parts[run] = Part(self._chunk.start, self._chunk.end, late=self._late)
        return self.parts[run]

    def add_upload(self, run: int, place: int) -> Part:
        """A new part for an artifact. Acknowledged one by one: each may be gigabytes, and is deleted when it is."""
        part = Part(place, place + 1, late=self._late)
        self.uploads.append((-run, part))
        return part

    def lost(self, what: str, events: int) -> None:
        """Count what cannot be used."""
        self.problems[what] = self.problems.get(what, 0) + events


def sort(chunk: Chunk, reader: JournalReader, known: Callable[[int], bool], wanted: Callable[[int], bool]) -> Sorted:
    """What each run has in a chunk. ``known``: whether a run's registration is there; ``wanted``: whether its events
    are to be given out, those of its artifacts by the negative number. Raises OSError."""
    found = Sorted(chunk)
    if chunk.plain is not None:
        keys = _keys(chunk.plain, reader)
        if keys is None or not all(known(run) for run in keys):
            chunk.decode()
        else:
            _sort_points(chunk, keys, {run for run in keys if wanted(run)}, found)
    for number, records in chunk.streams.items():
        stream = reader.registry.stream(number)
        if stream is None or not known(stream.run):
            found.lost("metric values whose registration is damaged", len(records))
        elif wanted(stream.run):
            points: Sequence[Point] = records
            if stream.on is not None:
                points = [(*record, stream.on) for record in records]
            found.part(stream.run).batch.add(stream.key, points)
    for frame, place in zip(chunk.frames, chunk.places, strict=True):
        try:
            _sort_frame(frame, place, known, wanted, found)
        except ValueError as error:
            found.lost(str(error), 1)
    return found


def _keys(streams: set[int], reader: JournalReader) -> dict[int, dict[int, str]] | None:
    """The metrics behind some stream numbers, by run; None where a registration is damaged, or says more than a key."""
    keys: dict[int, dict[int, str]] = {}
    for number in streams:
        stream = reader.registry.stream(number)
        if stream is None or stream.on is not None:
            return None
        keys.setdefault(stream.run, {})[number] = stream.key
    return keys


def _sort_points(chunk: Chunk, keys: dict[int, dict[int, str]], wanted: set[int], found: Sorted) -> None:
    """A chunk of nothing but points goes to the store undecoded; of one run alone, as most do, as it is."""
    if len(keys) == 1:
        data: Mapping[int, Slots] = dict.fromkeys(wanted, chunk.data)
    else:
        data = shares(chunk.data, {number: run for run in wanted for number in keys[run]})
    for run, block in data.items():
        found.part(run).batch.add_block(RecordBlock(block, keys[run]))


def _sort_frame(
    frame: object, place: int, known: Callable[[int], bool], wanted: Callable[[int], bool], found: Sorted
) -> None:
    run = run_of(frame)
    if run is None:
        return
    assert isinstance(frame, list)
    if not known(run):
        raise ValueError("events of runs whose registration is damaged")
    if frame[0] != "artifact":
        if wanted(run):
            put_into(found.part(run), frame, place)
    elif wanted(-run):
        upload = upload_of(frame)
        found.add_upload(run, place).upload = upload
