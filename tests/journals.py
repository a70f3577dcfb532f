"""Journals, the damage done to them, and a store that keeps everything that reaches it, for the tests of all three."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asynctrack.delivery.sender import Sender
from asynctrack.delivery.source import Loaded, Source
from asynctrack.entities import DatasetInput, LoggedModelInput, LoggedModelOutput, RunInfo
from asynctrack.errors import RefusedError
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.inputs import dataset_entry, model_entry, output_entry
from asynctrack.journal.owner import read_owner
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import SLOT_SIZE
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import Batch, Limits, Refusal, RunSpec
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore

#: Something that was logged, in a form that compares (NaN too): ("metric", run, key, timestamp, step, bits),
#: ("param", run, key, value), ("tag", run, key, value), ("start", run), ("end", run, status, time)
Event = tuple[Any, ...]


def segment_bytes(slots: int) -> int:
    """The ``Settings.segment_bytes`` that make segments of so many slots."""
    return HEADER_SIZE + slots * SLOT_SIZE


def bits(value: float) -> bytes:
    """A float as its eight bytes, so that NaN equals itself and -0.0 does not equal 0.0."""
    return struct.pack("<d", value)


def uid(number: int) -> str:
    """The run id of the run with this number in these tests' journals."""
    return f"{number:032x}"


def ignore() -> None:
    """For a journal whose reader is the test itself."""


def new_journal(
    home: Path,
    *,
    slots: int | None = None,
    wake: Callable[[], None] = ignore,
    consumed: bool = True,
    **settings: Any,
) -> Journal:
    """A journal of its own in ``home``, with segments of ``slots`` slots."""
    if slots is not None:
        settings["segment_bytes"] = segment_bytes(slots)
    return Journal("memory:", Settings(spool_dir=str(home), **settings), ignore, wake, consumed=consumed)


def spool_path(journal: Journal) -> Path:
    """The folder of a journal that has one."""
    assert journal.spool.path is not None
    return Path(journal.spool.path)


def segments(head: Segment | None) -> Iterator[Segment]:
    """A chain of segments."""
    while head is not None:
        yield head
        head = head.next


def let_go(spool: Spool, head: Segment | None) -> None:
    """Close what a test has opened; the files stay as they are."""
    for segment in list(segments(head)):
        segment.close()
    spool.registry.close()
    spool.release()


@contextmanager
def journal_in(home: Path, **settings: Any) -> Iterator[Journal]:
    """`new_journal`, closed at the end."""
    journal = new_journal(home, **settings)
    try:
        yield journal
    finally:
        journal.close()
        let_go(journal.spool, journal.head)


def die(journal: Journal, to: Path) -> Path:
    """The spool as the journal's process would leave it if it were killed now: a copy, whose owner is dead."""
    return leave_behind(spool_path(journal), to)


def leave_behind(spool: str | Path, to: Path) -> Path:
    """A copy of a spool that does not know that it is one."""
    shutil.copytree(spool, to)
    owner = read_owner(str(to))
    assert owner is not None
    (to / "owner").write_bytes(encode_frame(owner._replace(path=os.path.realpath(to))))
    return to


def register(journal: Journal, run: int = 1, **spec: Any) -> int:
    """A new run with the run id ``uid(run)``."""
    return journal.register_run({**RunSpec(uid=uid(run), **spec)._asdict(), "attached": False})


def read_events(reader: JournalReader, start: int = 0, *, count: int = 1) -> list[Event]:
    """What a reader finds from ``start`` on. One slot at a time, by default, which keeps the order of all events."""
    events: list[Event] = []
    while True:
        chunk = reader.read(start, count)
        chunk.decode()
        for number, records in chunk.streams.items():
            stream = reader.registry.stream(number)
            if stream is not None:
                for timestamp, step, value, _ in records:
                    events.append(("metric", stream.run, stream.key, timestamp, step, bits(value)))
        for frame in chunk.frames:
            events += frame_events(frame)
        if chunk.end == start:
            return events
        start = chunk.end


def frame_events(frame: list[Any]) -> list[Event]:
    """The events in a frame."""
    kind, run, *rest = frame
    if kind in ("params", "tags"):
        return [(kind[:-1], run, key, value) for key, value in rest[0].items()]
    return [(kind, run, *rest)]


class ExactStore(MemoryStore):
    """Keeps every event that reaches it, doubles too, in order; of a batch that may be stored in part already it
    adds what is missing behind the bookmark, as the file store does.

    ``before_batch`` may raise instead of, or after, storing a part of a batch: it gets the batch and a function that
    stores so many of its events.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        if limits is not None:
            self.limits = limits
        #: (run id, kind, key) → values, metrics as (timestamp, step, bits)
        self.kept: dict[tuple[str, str, str], list[Any]] = {}
        self.started: list[str] = []
        self.ended: list[tuple[str, str | None, int | None]] = []
        self.sent: list[Batch] = []
        self.before_batch: Callable[[str, Batch, Callable[[int], None]], None] | None = None
        #: values that are never accepted, and whether the store says which event it is
        self.refused_values: set[Any] = set()
        self.says_which = False

    async def create_run(self, spec: RunSpec) -> RunInfo:
        self.started.append(spec.uid)
        return await super().create_run(spec)

    async def bookmark(self, run_id: str, batch: Batch) -> Any:
        return {f"{kind}:{key}": len(kept) for (run, kind, key), kept in self.kept.items() if run == run_id}

    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        self.sent.append(batch)
        if self.before_batch is not None:
            self.before_batch(run_id, batch, lambda count: self._keep(run_id, list(batch.items())[:count], bookmark))
        bad = [item for item in batch.items() if self.is_refused(item)]
        if bad and not self.says_which:
            raise RefusedError("something in it is refused")
        self._keep(run_id, [item for item in batch.items() if item not in bad], bookmark)
        return [Refusal(*item, reason="refused") for item in bad]

    async def log_inputs(
        self, run_id: str, datasets: Sequence[DatasetInput] = (), models: Sequence[LoggedModelInput] = ()
    ) -> None:
        for used in datasets:
            entry = dataset_entry(used.dataset.to_dictionary(), {tag.key: tag.value for tag in used.tags})
            self._keep(run_id, [("input", *entry)], None)
        self._keep(run_id, [("input", *model_entry(model.model_id)) for model in models], None)

    async def log_outputs(self, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
        self._keep(run_id, [("input", *output_entry(model.model_id, model.step)) for model in models], None)

    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        self.ended.append((run_id, status, end_time))
        # Created here, where a test shows this store the second half of what another one got the first half of.
        info: RunInfo = await super().create_run(RunSpec(uid=run_id))
        return info

    def is_refused(self, item: tuple[str, str, Any]) -> bool:
        """Whether one of a batch's `items` is never accepted."""
        return (item[2][2] if item[0] == "metric" else item[2]) in self.refused_values

    def _keep(self, run_id: str, items: Iterable[tuple[str, str, Any]], bookmark: Any) -> None:
        rest: dict[tuple[str, str, str], list[Any]] = {}
        for kind, key, value in items:
            where = run_id, kind, key
            kept = self.kept.setdefault(where, [])
            comparable = (value[0], value[1], bits(value[2])) if kind == "metric" else value
            if bookmark is not None:
                there = rest.setdefault(where, kept[bookmark.get(f"{kind}:{key}", 0) :])
                if comparable in there:
                    there.remove(comparable)
                    continue
            kept.append(comparable)

    def events(self) -> list[Event]:
        """Everything kept, in order within each metric, param and tag; without the runs' starts."""
        found: list[Event] = []
        for (run_id, kind, key), kept in self.kept.items():
            for value in kept:
                found.append((kind, int(run_id, 16), key, *(value if kind == "metric" else (value,))))
        return found + [("end", int(run_id, 16), status, time) for run_id, status, time in self.ended]


class Recovered:
    """What came of a dead process's spool: events in a store, and the problems that were reported."""

    def __init__(self, path: Path, store: ExactStore | None = None) -> None:
        self.store = store or ExactStore(Limits(entities=5))
        spool = Spool.adopt(str(path))
        assert spool is not None
        head = spool.segments.look(None, living=False)
        source = Source(spool, head, self.store.limits, adopted=True)
        delivery = Sender(self.store)
        while not source.end_orphans(set()):
            if source.load() is not Loaded.MORE:
                assert source.drained or any(lane.parts for lane in source.lanes.values())
            for lane in list(source.lanes.values()):
                lane.backoff.retry_at = 0.0
            for _, lane, work in delivery.due((source, lane) for lane in list(source.lanes.values())):
                drive(delivery.step(source, lane, work))
        self.problems: dict[str, int] = source.reader.problems
        let_go(spool, source.reader.head)
        self.events = self.store.events()

    def by_metric(self) -> dict[tuple[Any, ...], list[Event]]:
        return by_metric(self.events)


def by_metric(events: Iterable[Event]) -> dict[tuple[Any, ...], list[Event]]:
    """Events of each metric (param, tag) of each run, in order: between those no order is kept."""
    found: dict[tuple[Any, ...], list[Event]] = {}
    for event in events:
        found.setdefault(event[:3], []).append(event)
    return found


def files_of(spool: Path) -> dict[str, bytes]:
    """Every file of a spool and what stands in it."""
    return {name: (spool / name).read_bytes() for name in sorted(os.listdir(spool))}
