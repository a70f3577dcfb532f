"""A journal of each released format is read, by asynctrack and by a reader that knows nothing but `FORMAT.md`.

Everything down to the line of dashes is written from that page alone: it is the proof that the page suffices.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest

from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.owner import read_owner
from asynctrack.journal.reader import JournalReader
from asynctrack.journal.registered import Stream
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from tests.journals import Recovered, let_go, segments

POINTS, FRAME, VOID = range(1, 0xFFFFFFFE), 0xFFFFFFFE, 0xFFFFFFFF


def frames(data: bytes) -> Iterator[tuple[int, Any]]:
    """The entries of a file of frames, each with the offset behind it."""
    at = data.find(b"\xa7FRM")
    while at >= 0:
        length, checksum = struct.unpack("<II", data[at + 4 : at + 12].ljust(8, b"\0"))
        payload = data[at + 12 : at + 12 + length]
        whole = len(data) >= at + 12 + length and zlib.crc32(payload) == checksum
        if whole:
            yield at + 12 + length, msgpack.unpackb(payload, strict_map_key=False, unicode_errors="surrogatepass")
        at = data.find(b"\xa7FRM", at + 12 + length if whole else at + 1)


class Header(NamedTuple):
    """A segment's."""

    first: int
    capacity: int
    sealed: bool


def header(data: bytes) -> tuple[Header, int, int]:
    """The header of a segment's file, the version, and how many slots were used at least. Raises ValueError."""
    marks = [struct.unpack_from("<I", data, at + 60)[0] for at in (0, 64)]
    for at in (0, 64):
        copy = data[at : at + 44]
        magic, version, size, first, capacity, _, checksum = struct.unpack("<8sIIQQQI", copy)
        if magic == b"ATRKSLOT" and zlib.crc32(copy[:40]) == checksum:
            if version not in (1, 2, 3) or size != 64:
                raise ValueError(f"version {version}")
            counts = [struct.unpack_from("<II", data, at + 44) for at in (0, 64)]
            used = max((count for count, check in counts if count ^ check == 0xFFFFFFFF), default=0)
            return Header(first, capacity, 0x5EA1ED01 in marks), version, used
    raise ValueError("no header")


class Reader:
    """Reads a spool whose owner is dead."""

    def __init__(self, spool: Path) -> None:
        self.owner: list[Any] = next(entry for _, entry in frames((spool / "owner").read_bytes()))
        self.runs: dict[int, dict[str, Any]] = {}
        self.streams: dict[int, list[Any]] = {}
        for _, (kind, *entry) in frames((spool / "registry").read_bytes()):
            if kind == "run":
                self.runs[entry[0]] = entry[1]
            elif kind == "stream":
                self.streams[entry[0]] = entry[1:]
        self.events: dict[int, list[Any]] = {}
        self.lacking: dict[str, list[int]] = {"void": [], "empty": [], "unfinished": [], "damaged": []}
        self.segments: list[Header] = []
        for path in self._in_order(spool):
            self._read_segment(path)
        cursor = (spool / "cursor").read_bytes()
        *_, (end, self.cursor) = frames(cursor)
        assert end == len(cursor)

    def _in_order(self, spool: Path) -> list[Path]:
        files: dict[int, Path] = {}
        for path in spool.glob("*.slots"):
            data = path.read_bytes()
            first = header(data)[0].first
            if any(data[128:]) or first not in files:
                files[first] = path
        return [files[first] for first in sorted(files)]

    def _read_segment(self, path: Path) -> None:
        data = path.read_bytes()
        head, version, used = header(data)
        self.segments.append(head)
        first = head.first
        empty: list[int] = []
        for index in range(head.capacity):
            number = first + index
            slot = data[128 + 64 * index : 192 + 64 * index]
            half, other = slot[:32], slot[32:]
            if version > 1 and any(other):
                (place,) = struct.unpack("<I", other[28:])
                other = other[:28] + (b"\0\0\0\0" if place == 128 + 64 * index else b"\xff\xff\xff\xfe")
            timestamp, step, value, stream = struct.unpack("<qqdI4x", half)
            if not any(slot):
                empty.append(number)
                continue
            # Whatever is empty and stands before this one is a hole; what is empty at the end was never used.
            self.lacking["empty"] += empty
            empty = []
            if half == other and stream in POINTS:
                bits = struct.pack("<d", value).hex()
                run, key, *_ = self.streams[stream]
                self.events[number] = ["point", run, key, timestamp, step, bits]
            elif half == other and stream == FRAME:
                frame = path.with_suffix(".frames").read_bytes()[timestamp : timestamp + step]
                self.events[number] = next(entry for _, entry in frames(frame))
            elif half == other and stream == VOID and not any(half[:24]):
                self.lacking["void"].append(number)
            else:
                self.lacking["damaged" if any(other) else "unfinished"].append(number)

        # But of those which the header counts as used.
        self.lacking["empty"] += [number for number in empty if number < first + used]

    def to_deliver(self) -> list[int]:
        """The events that the store does not have."""
        found = []
        for number, (kind, run, *_) in sorted(self.events.items()):
            lane = -run if kind == "artifact" else run
            acknowledged = self.cursor["runs"].get(lane, [self.cursor["front"]])[0]
            if number >= acknowledged or number in self.cursor["pending"]:
                found.append(number)
        return found


# ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=sorted(path.name for path in Path(__file__).with_name("golden").iterdir() if path.is_dir()))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A golden journal, in a folder where it may be written to, and what is in it."""
    folder = Path(__file__).with_name("golden") / request.param
    spool = shutil.copytree(folder / "spool", tmp_path / "spool")
    return spool, json.loads((folder / "expected.json").read_text("utf-8"))


def test_a_reader_written_from_the_format_s_description_finds_everything(golden: tuple[Path, dict[str, Any]]) -> None:
    """Owner, runs, metrics, segments, every event to the last bit, what is not there, and what is still to be sent."""
    spool, expected = golden
    reader = Reader(spool)
    assert reader.owner == expected["owner"]
    assert reader.runs == by_number(expected["runs"])
    assert reader.streams == by_number(expected["streams"])
    assert [segment._asdict() for segment in reader.segments] == expected["segments"]
    assert reader.events == numbered(expected["events"])
    assert reader.lacking == {kind: expected[kind] for kind in reader.lacking}
    assert reader.cursor == {**expected["cursor"], "runs": by_number(expected["cursor"]["runs"])}
    assert reader.to_deliver() == expected["to_deliver"]
    lines = (spool / "rejected.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == expected["rejected"]


def test_asynctrack_reads_every_event_of_it(golden: tuple[Path, dict[str, Any]]) -> None:
    """Its own reader, from the oldest slot on, whatever the cursor says; and what is missing is reported."""
    path, expected = golden
    owner = read_owner(str(path))
    assert owner is not None
    assert list(owner)[: len(expected["owner"])] == expected["owner"]
    spool = Spool.adopt(str(path))
    assert spool is not None
    head = spool.segments.look(None, living=False)
    problems = list(spool.segments.problems)
    reader = JournalReader(spool.registry, head)
    try:
        assert not problems
        assert read_by_slot(reader, head) == numbered(expected["events"])
        assert sum(reader.problems.values()) == sum(len(expected[kind]) for kind in ("empty", "unfinished", "damaged"))
        assert spool.load_cursor() == {**expected["cursor"], "runs": by_number(expected["cursor"]["runs"])}
        assert reader.registry.runs == by_number(expected["runs"])
        for number, (run, key, *more) in by_number(expected["streams"]).items():
            on = MeasuredOn(key, *more) if more else None
            assert reader.registry.stream(number) == Stream(run, key, on)
    finally:
        let_go(spool, head)


def test_recovery_delivers_the_rest_of_it_once(golden: tuple[Path, dict[str, Any]]) -> None:
    """What the cursor says is acknowledged is not sent again; everything else is, and the runs are ended."""
    path, expected = golden
    recovered = Recovered(path)
    events = numbered(expected["events"])
    wanted: dict[tuple[Any, ...], list[Any]] = {}
    ends: dict[int, str] = {}
    for number in expected["to_deliver"]:
        kind, run, *rest = events[number]
        if kind == "point":
            wanted.setdefault(("metric", run, rest[0]), []).append((*rest[1:3], bytes.fromhex(rest[3])))
        elif kind in ("params", "tags", "inputs"):
            for key, value in rest[0].items():
                wanted.setdefault((kind[:-1], run, key), []).append((value,))
        elif kind == "end":
            ends[run] = rest[0]
    found: dict[tuple[Any, ...], list[Any]] = {}
    for event in recovered.events:
        if event[0] != "end":
            found.setdefault(event[:3], []).append(event[3:])
    # The event written late, into a hole, comes when it is found, behind those that stand after it.
    assert {key: sorted(points) for key, points in found.items()} == {key: sorted(p) for key, p in wanted.items()}
    assert {int(run_id, 16): status for run_id, status, _ in recovered.store.ended} == {**ends, 2: "KILLED"}
    assert recovered.store.started == [expected["runs"]["5"]["uid"]]


def read_by_slot(reader: JournalReader, head: Segment | None) -> dict[int, list[Any]]:
    """Every event by its sequence number."""
    events: dict[int, list[Any]] = {}
    for segment in segments(head):
        for number in range(segment.first, segment.first + segment.capacity):
            chunk = reader.read(number, 1)
            chunk.decode()
            for stream_number, records in chunk.streams.items():
                stream = reader.registry.stream(stream_number)
                assert stream is not None
                for timestamp, step, value, _ in records:
                    events[number] = ["point", *stream[:2], timestamp, step, struct.pack("<d", value).hex()]
            for frame in chunk.frames:
                events[number] = frame
    return events


def numbered(events: list[list[Any]]) -> dict[int, list[Any]]:
    """Events by sequence number."""
    return {event[0]: event[1:] for event in events}


def by_number(entries: dict[str, Any]) -> dict[int, Any]:
    """JSON has no numbers as keys."""
    return {int(number): entry for number, entry in entries.items()}
