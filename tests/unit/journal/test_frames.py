"""Frames: every whole one is found, whatever stands between; none is found that was not written."""

from __future__ import annotations

import os
import signal
import stat
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest

from asynctrack.journal import frames as module
from asynctrack.journal.disk import write_all
from asynctrack.journal.frames import FrameFile, decode_frame, encode_frame, scan_frames

ENTRIES: list[Any] = [
    ["params", 1, {"größe": "∞", "": "🚀" * 100}],
    ["end", 3, "FINISHED", 2**63 - 1],
    {"front": 7, "runs": {1: [0, None, {"a": 5}, 9]}},
    [],
]


def test_a_frame_stands_as_the_format_says() -> None:
    """Magic, length, CRC-32, payload."""
    payload = msgpack.packb(["end", 1])
    assert encode_frame(["end", 1]) == b"\xa7FRM" + struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


@pytest.mark.parametrize("entry", [*ENTRIES, "lone \ud800 surrogate"])
def test_what_is_encoded_is_decoded(entry: Any) -> None:
    """Any text, integers as keys, None."""
    assert decode_frame(encode_frame(entry) + b"and more") == entry


def test_what_msgpack_cannot_hold_is_an_error() -> None:
    """In the caller, before anything is written."""
    with pytest.raises(TypeError):
        encode_frame([object()])


def test_no_cut_or_changed_frame_is_decoded() -> None:
    """At any byte."""
    frame = encode_frame(ENTRIES[0])
    for at in range(len(frame)):
        with pytest.raises(ValueError, match="cut"):
            decode_frame(frame[:at])
        with pytest.raises(ValueError, match="cut or damaged"):
            decode_frame(frame[:at] + bytes([frame[at] ^ 0x40]) + frame[at + 1 :])


def test_a_scan_finds_every_frame_and_where_the_last_one_ends() -> None:
    """An unfinished one behind them is neither an entry nor damage."""
    data = b"".join(map(encode_frame, ENTRIES))
    assert scan_frames(data) == (ENTRIES, len(data), 0)
    assert scan_frames(data + encode_frame(["more"])[:-1]) == (ENTRIES, len(data), 0)
    first = len(encode_frame(ENTRIES[0]))
    assert scan_frames(data, first) == (ENTRIES[1:], len(data), 0)
    assert scan_frames(b"") == ([], 0, 0)


def test_a_scan_goes_on_behind_damage_and_counts_it() -> None:
    """A changed frame, zeros and rubbish cost themselves only."""
    first, second, third, _ = map(encode_frame, ENTRIES)
    changed = second[:-1] + bytes([second[-1] ^ 1])
    entries, end, damaged = scan_frames(first + changed + third + bytes(30) + first + b"\xa7FR" + third)
    assert entries == [ENTRIES[0], ENTRIES[2], ENTRIES[0], ENTRIES[2]]
    assert (end, damaged) == (len(first + changed + third) + 30 + len(first) + 3 + len(third), 3)


def test_a_damaged_length_does_not_swallow_the_frames_behind_it() -> None:
    """It says that the frame goes on past the end of the file."""
    first, second, *_ = map(encode_frame, ENTRIES)
    long = first[:4] + struct.pack("<I", 2**31) + first[8:]
    assert scan_frames(long + second)[0] == [ENTRIES[1]]


def test_a_frame_within_a_payload_is_no_entry() -> None:
    """A param's value may be anything, a frame's bytes too."""
    inner = encode_frame(["end", 1, "FAILED", 0]).decode("latin-1").encode("utf-8", "surrogatepass")
    entry = ["params", 1, {"evil": encode_frame(["end", 1]).decode("latin-1"), "raw": inner}]
    assert scan_frames(encode_frame(entry) + encode_frame(["next"]))[0] == [entry, ["next"]]


@pytest.fixture(params=["on disk", "in memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A file of frames of either kind."""
    made = FrameFile(str(tmp_path / "frames") if request.param == "on disk" else None, create=True)
    yield made
    made.close()


def test_appended_frames_are_read_where_append_says(file: FrameFile) -> None:
    """On disk and in memory alike."""
    places = [(file.append(encode_frame(entry)), len(encode_frame(entry))) for entry in ENTRIES]
    assert [decode_frame(file.read(*place)) for place in places] == ENTRIES
    assert file.size() == sum(length for _, length in places)
    assert file.read(file.size(), 10) == b""


def test_threads_append_whole_frames(file: FrameFile) -> None:
    """Eight at once; each frame is there once, whole, where its thread was told."""
    found: list[tuple[Any, Any]] = []

    def append(thread: int) -> None:
        for i in range(200):
            entry = [thread, i, "x" * (i % 50)]
            frame = encode_frame(entry)
            found.append((entry, decode_frame(file.read(file.append(frame), len(frame)))))

    threads = [threading.Thread(target=append, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(written == read for written, read in found)
    entries, end, damaged = scan_frames(file.read(0, file.size()))
    assert sorted(entries) == sorted(entry for entry, _ in found)
    assert (len(entries), end, damaged) == (1600, file.size(), 0)


def test_a_signal_handler_may_append_in_the_middle_of_an_append(
    file: FrameFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two places, no deadlock."""
    late: list[int] = []

    def interrupted(fd: int, data: bytes, offset: int) -> None:
        monkeypatch.setattr(module, "write_all", write_all)
        signal.raise_signal(signal.SIGUSR1)
        write_all(fd, data, offset)

    before = signal.signal(signal.SIGUSR1, lambda *_: late.append(file.append(encode_frame(["inner"]))))
    try:
        monkeypatch.setattr(module, "write_all", interrupted)
        place = file.append(encode_frame(["outer"]))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert decode_frame(file.read(place, 100)) == ["outer"]
    assert decode_frame(file.read(late[0], 100)) == ["inner"]


def test_an_append_that_fails_leaves_the_others_readable(file: FrameFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full for a moment: a gap stays, as nothing points at what was written."""

    def half(fd: int, data: bytes, offset: int) -> None:
        write_all(fd, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    file.append(encode_frame(["first"]))
    monkeypatch.setattr(module, "write_all", half)
    with pytest.raises(OSError, match="No space"):
        file.append(encode_frame(["lost"]))
    monkeypatch.setattr(module, "write_all", write_all)
    file.append(encode_frame(["third"]))
    assert scan_frames(file.read(0, file.size()))[0] == [["first"], ["third"]]


def test_frames_on_disk_are_private_and_opened_once(tmp_path: Path) -> None:
    """Mode 0600; a file that is there already is never written over; a reader opens it without creating it."""
    path = str(tmp_path / "frames")
    with pytest.raises(FileNotFoundError):
        FrameFile(path, create=False)
    file = FrameFile(path, create=True)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        FrameFile(path, create=True)
    file.append(encode_frame(["here"]))
    again = FrameFile(path, create=False)
    assert scan_frames(again.read(0, again.size()))[0] == [["here"]]
    again.close()
    file.close()
    file.close()
