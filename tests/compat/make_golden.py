"""Writes the golden journal of format version 3, and what a reader must find in it::

    python -m tests.compat.make_golden

What it wrote is committed and stays as it is: later versions must read it. It is run again only to make the journal
of a later format (into a folder of its own), so it is deterministic, down to clock, host and process id.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from asynctrack.journal.frames import decode_frame, encode_frame, scan_frames
from asynctrack.journal.inputs import dataset_entry, model_entry, output_entry
from asynctrack.journal.measured import MeasuredOn
from asynctrack.journal.segment import HEADER_SIZE, Segment
from asynctrack.journal.slots import PACK, SLOT_SIZE
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import RunSpec

FOLDER = Path(__file__).with_name("golden") / "v3"
SLOTS = 8
NOW = 1_700_000_000_000
BIG = 2**63 - 1


def uid(run: int) -> str:
    """The run id of the run with this number."""
    return f"{run:032x}"


class Program:
    """Logs, and writes down what it has logged, by sequence number."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.events: dict[int, list[Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self.streams: dict[tuple[int, str | MeasuredOn], int] = {}
        self.void: list[int] = []
        self._next = 0

    def run(self, name: str | None, *, start: bool = True, attached: bool = False, **spec: Any) -> int:
        number = len(self.runs) + 1
        given = {"uid": uid(number), "run_name": name, "user_id": "ann", "start_time": NOW + number, **spec}
        self.runs[number] = {**RunSpec(**given)._asdict(), "attached": attached}
        assert self.journal.register_run(self.runs[number]) == number
        if start:
            self.frame("start", number)
        return number

    def frame(self, kind: str, run: int, *rest: Any) -> None:
        assert self.journal.write_frame([kind, run, *rest])
        self._logged([kind, run, *rest])

    def point(self, run: int, key: str | MeasuredOn, timestamp: int, step: int, value: float) -> None:
        assert self.journal.write(timestamp, step, value, self.stream(run, key))
        self._logged(_point(run, key, timestamp, step, value))

    def stream(self, run: int, key: str | MeasuredOn) -> int:
        if (run, key) not in self.streams:
            stream = self.journal.register_stream(run, key)
            assert stream is not None
            self.streams[run, key] = stream
        return self.streams[run, key]

    def claim(self) -> tuple[int, int]:
        """Claim a slot and write nothing: its sequence number and its place in the segment."""
        claim, _, segment = self.journal.current
        at = claim()
        assert at < segment.size
        self._next += 1
        return self._next - 1, at

    def late(self, claimed: tuple[int, int], run: int, key: str, timestamp: int, step: int, value: float) -> None:
        """Write into a slot claimed before."""
        number, at = claimed
        stream = self.stream(run, key)
        slots = self.journal.current[1]
        PACK(slots, at, timestamp, step, value, stream, timestamp, step, value, stream, at)
        self.events[number] = _point(run, key, timestamp, step, value)

    def mark(self) -> None:
        """A slot that holds no event, as flush() leaves them."""
        assert self.journal.mark() == self._next
        self.void.append(self._next)
        self._next += 1

    def _logged(self, event: list[Any]) -> None:
        self.events[self._next] = event
        self._next += 1


def _point(run: int, key: str | MeasuredOn, timestamp: int, step: int, value: float) -> list[Any]:
    name = key if isinstance(key, str) else key.key
    return ["point", run, name, timestamp, step, struct.pack("<d", value).hex()]


def write(journal: Journal) -> dict[str, Any]:
    """Log for a while and die; what a reader must find, as far as it is known while the program lives."""
    program = Program(journal)
    # 0 to 7, segment 1: a run that is over and delivered; its segment has been deleted.
    gone = program.run("gone")
    program.frame("params", gone, {"a": "1"})
    for step in range(5):
        program.point(gone, "m", NOW, step, step / 2)
    program.frame("end", gone, "FINISHED", NOW + 50)

    # 8 to 15, segment 2: partly delivered; two holes, of which one is filled after the cursor was written.
    base = program.run("Grundlinie ✓", tags={"team": "видение", "mlflow.note.content": "eins\nzwei"})
    program.frame("params", base, {"optimizer.name": "adam", "größe": "∞", "lone": "\ud800", "empty": ""})
    resumed = program.run(None, uid="c" * 32, run_id=uid(3), user_id="")
    never_filled = program.claim()
    filled_late = program.claim()
    program.point(base, "loss/train", NOW + 1, 0, 0.1 + 0.2)
    program.frame("tags", base, {"stage": "warm-up", "🚀": "a" * 300})
    runs = {base: [8, None, None, 0, False], resumed: [10, None, None, 0, False]}
    journal.spool.save_cursor({"front": 13, "known_runs": 3, "pending": [11, 12], "runs": runs})
    program.point(resumed, "acc", NOW + 2, -3, 1.0)
    # From here on the store has what stands before 14 of run 2, and was being sent the rest.
    cursor: dict[str, Any] = {
        "front": 16,
        "known_runs": 3,
        "pending": [never_filled[0], filled_late[0]],
        "runs": {2: [14, uid(2), {"metric:loss/train": 1}, 16, False], 3: [15, uid(3), None, 0, False]},
    }
    journal.spool.save_cursor(cursor)
    program.late(filled_late, base, "loss/train", NOW + 3, 1, 5e-324)

    # 16 to 23, segment 3: every kind of value.
    for step, value in enumerate([math.nan, math.inf, -math.inf, -0.0, 1.7976931348623157e308]):
        program.point(base, "loss/train", NOW + 4, -step, value)
    program.point(resumed, "acc", BIG, BIG, 0.25)
    program.point(resumed, "acc", 0, -BIG - 1, 0.5)
    program.mark()

    # 24 to 31, segment 4: a metric that could not be registered at first, an attached run, a run after the cursor.
    with mock.patch("asynctrack.journal.frames.write_all", side_effect=OSError("no space")):
        assert journal.register_stream(base, "not registered") is None
    journal.room_made()
    attached = program.run("child", start=False, attached=True, run_id=uid(4), uid="d" * 32)
    program.frame("params", attached, {"from": "the child"})
    last = program.run("last", experiment_name="vision/2", start_time=NOW + 90)
    journal.current[2].append_frame(encode_frame(["params", last, {"no slot": "points here"}]))
    program.point(last, "時間", NOW + 5, 7, 12.5)
    program.frame("end", last, "FAILED", NOW + 99)
    program.frame("end", resumed, "FINISHED", NOW + 60)
    program.point(base, "loss/train", NOW + 6, 10, 0.0)
    # Slots 30 and 31; the first is damaged afterwards.
    program.point(base, MeasuredOn("loss/train", None, "größe 1", "d1"), NOW + 6, 11, 1 / 8)
    program.point(base, MeasuredOn("loss/train", MODEL), NOW + 6, 12, 2 / 8)

    # 32 to 36, segment 5: the process was killed here.
    program.point(last, "時間", NOW + 7, 8, 13.5)  # behind its run's end
    program.frame("inputs", base, dict(INPUTS))
    for step, on in enumerate((None, MeasuredOn("loss/train", MODEL, "größe 1", "d1"), None)):
        program.point(base, on or "loss/train", NOW + 8, 20 + step, step / 16)
    journal.spool.reject([REJECTED])
    events = {number: event for number, event in program.events.items() if number >= SLOTS}
    copied_over, flipped, unfinished = 29, 30, 36
    del events[copied_over], events[flipped], events[unfinished]
    return {
        "owner": list(journal.spool.owner)[:5],
        "runs": {str(run): spec for run, spec in program.runs.items()},
        "streams": {str(number): [run, *_entry(key)] for (run, key), number in program.streams.items()},
        "segments": [{"first": first, "capacity": SLOTS, "sealed": first < 32} for first in range(8, 48, 8)],
        "events": [[number, *events[number]] for number in sorted(events)],
        "void": program.void,
        "empty": [never_filled[0]],
        "unfinished": [unfinished],
        "damaged": [copied_over, flipped],
        "cursor": {**cursor, "runs": {str(run): entry for run, entry in cursor["runs"].items()}},
        "to_deliver": [number for number in sorted(events) if _to_deliver(number, events[number][1], cursor)],
        "rejected": [REJECTED],
    }


def _entry(key: str | MeasuredOn) -> list[Any]:
    return [key] if isinstance(key, str) else list(key)


MODEL = "m-" + 32 * "5"
DATASET: dict[str, str | None] = {
    "name": "größe 1",
    "digest": "d1",
    "source_type": "local",
    "source": '{"uri": "data.csv"}',
    "schema": None,
    "profile": '{"num_rows": 2}',
}
INPUTS = dataset_entry(DATASET, {"mlflow.data.context": "train"}), model_entry(MODEL), output_entry(MODEL, -3)
REJECTED = {
    "run_id": uid(2),
    "kind": "metric",
    "key": "loss/train",
    "reason": "größer als erlaubt",
    "refused_at": NOW + 9,
    "slots_from": 13,
    "value": "nan",
    "timestamp": NOW,
    "step": -1,
}


def _to_deliver(number: int, run: int, cursor: Any) -> bool:
    acknowledged = cursor["runs"].get(run, [cursor["front"]])[0]
    return number in cursor["pending"] or bool(number >= acknowledged)


def forget_place(spool: Path) -> None:
    """Where it was made, which is another place each time: without that, it is the spool and no copy of one."""
    entries, _, _ = scan_frames((spool / "registry").read_bytes())
    entries = [entry[:6] if entry[0] == "owner" else entry for entry in entries]
    (spool / "registry").write_bytes(b"".join(map(encode_frame, entries)))
    (spool / "owner").write_bytes(encode_frame(decode_frame((spool / "owner").read_bytes())[:5]))


def damage(spool: Path) -> None:
    """What the writer's death and its disk have done to slots 29, 30 and 36; and a file of a version to come."""
    for first, number, apply in ((24, 29, _copy_over), (24, 30, _flip), (32, 36, _halve)):
        path = spool / f"{first // SLOTS + 1:06d}.slots"
        data = bytearray(path.read_bytes())
        apply(data, HEADER_SIZE + (number - first) * SLOT_SIZE)
        path.write_bytes(data)
    (spool / "something.else").write_bytes(b"to be ignored")


def _flip(data: bytearray, at: int) -> None:
    data[at + 40] ^= 0x10


def _copy_over(data: bytearray, at: int) -> None:
    """The slot before it stands there once more."""
    data[at : at + SLOT_SIZE] = data[at - SLOT_SIZE : at]


def _halve(data: bytearray, at: int) -> None:
    data[at + SLOT_SIZE // 2 : at + SLOT_SIZE] = bytes(SLOT_SIZE // 2)


def main() -> None:
    """Replace the golden journal."""
    ticks = itertools.count(NOW * 1_000_000, 1_000_000)
    with (
        tempfile.TemporaryDirectory() as home,
        mock.patch("asynctrack.journal.spool.host_name", return_value="golden.example"),
        mock.patch("os.getpid", return_value=4242),
        mock.patch("os.urandom", return_value=b"\x01\x23\x45\x67"),
        mock.patch("time.time_ns", side_effect=lambda: next(ticks)),
    ):
        settings = Settings(spool_dir=home, segment_bytes=HEADER_SIZE + SLOTS * SLOT_SIZE)
        journal = Journal("file:///data/mlruns", settings, lambda: None, lambda: None)
        expected = write(journal)
        journal.prepare()
        # Prepared, and overtaken: the writer has made another one for the same place.
        Segment.create(journal.spool.segment_path(7), 32, SLOTS).close()
        assert journal.spool.path is not None
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(journal.spool.path, FOLDER / "spool")
        journal.close()
    for name in ("000001.slots", "000001.frames"):
        (FOLDER / "spool" / name).unlink()
    forget_place(FOLDER / "spool")
    damage(FOLDER / "spool")
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    (FOLDER / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
