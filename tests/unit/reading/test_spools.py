"""Whatever stands in a spool home: what can be read of it is shown, and one bad spool hides no other."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.current import store_for
from asynctrack.journal.frames import encode_frame
from asynctrack.journal.header import HEADER_SIZE
from asynctrack.journal.slots import FRAME, PACK, SLOT_SIZE
from asynctrack.journal.survey import read_spool
from asynctrack.journal.writer import Journal
from asynctrack.reading import points
from asynctrack.reading.follower import Follower
from asynctrack.reading.looking import Look, look
from asynctrack.reading.pending import Pending
from asynctrack.reading.runs import find_runs
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore
from tests.journals import files_of, journal_in, leave_behind, register, spool_path, uid
from tests.servers import free_port


@pytest.fixture
def spool() -> Path:
    """The spool of an open run with 20 points of "loss"."""
    asynctrack.configure(mode="offline")
    run = asynctrack.start_run(run_name="good")
    for step in range(20):
        run.log_metric("loss", step * 0.5, step)
    return Path(run._state.engine.journal.spool.path or "")


def good_run() -> str:
    run = asynctrack.active_run()
    assert run is not None
    return run.run_id


def seen(run_id: str, **arguments: Any) -> Look:
    return drive(look(store_for(), run_id, **arguments))


def steps(found: Look) -> list[int]:
    return list(found["loss"].columns.steps) if "loss" in found else []


NO_ENTRIES: list[Any] = [
    *(["run", 1], ["run", 1, {"uid": 7}], ["run", -5, {}], ["run", 1 << 63, {"uid": "x", "tags": []}]),
    *(["stream", 1, "x", 5], [], {}, None, "run"),
]
BAD = (
    "pipe for an owner", "pipe for a registry", "pipe for a cursor", "pipe for a segment", "folder for a segment",
    "link to a spool", "link that leads nowhere", "link to itself", "socket", "empty owner", "torn owner",
    "newer format", "torn registry", "lost registry", "torn frames", "torn segment", "damaged header", "damaged slots",
    "cursor of noise", "cursor of something else", "cursor with lists for numbers", "registry of no entries",
    "name of control characters",
)  # fmt: skip


def make_bad(what: str, path: Path) -> None:
    """A spool, or something else, at ``path``, beside a good one."""
    if what.startswith(("cursor", "torn", "damaged", "registry", "newer", "lost", "folder")) or what in (
        "pipe for a registry", "pipe for a cursor", "pipe for a segment",
    ):  # fmt: skip
        make_copy(path)
    match what:
        case "pipe for an owner":
            path.mkdir()
            os.mkfifo(path / "owner")
        case "pipe for a registry":
            (path / "registry").unlink()
            os.mkfifo(path / "registry")
        case "pipe for a cursor":
            os.mkfifo(path / "cursor")
        case "pipe for a segment":
            os.mkfifo(path / "000009.slots")
        case "folder for a segment":
            (path / "000009.slots").mkdir()
        case "link to a spool":
            path.symlink_to(first(path))
        case "link that leads nowhere":
            path.symlink_to(path.parent / "nowhere")
        case "link to itself":
            path.symlink_to(path)
        case "socket":
            bind(path)
        case "empty owner":
            path.mkdir()
            (path / "owner").touch()
        case "torn owner":
            cut(path / "owner")
            cut(path / "registry")
        case "newer format":
            newer(path)
        case "torn registry":
            cut(path / "registry")
        case "lost registry":
            (path / "registry").unlink()
        case "torn frames":
            cut(path / "000001.frames")
        case "torn segment":
            cut(path / "000001.slots")
        case "damaged header":
            overwrite(path / "000001.slots", 0, bytes(HEADER_SIZE))
        case "damaged slots":
            overwrite(path / "000001.slots", HEADER_SIZE, os.urandom(4096))
        case "cursor of noise":
            (path / "cursor").write_bytes(os.urandom(100))
        case "cursor of something else":
            (path / "cursor").write_bytes(encode_frame([1]))
        case "cursor with lists for numbers":
            wrong = {"front": [], "known_runs": {}, "pending": 1, "runs": [1]}
            (path / "cursor").write_bytes(encode_frame(wrong))
        case "registry of no entries":
            append(path / "registry", NO_ENTRIES)
        case "name of control characters":
            make_copy(path.with_name("\udcff\n\x1b[31m"))
        case _:
            raise ValueError(what)


def first(path: Path) -> Path:
    return next(other for other in sorted(path.parent.iterdir()) if other.is_dir() and (other / "registry").exists())


def make_copy(path: Path) -> None:
    leave_behind(first(path), path)


def bind(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket has 107 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def append(path: Path, entries: list[Any]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(encode_frame, entries)))


def newer(path: Path) -> None:
    from asynctrack.journal.owner import read_owner

    owner = read_owner(str(path))
    assert owner is not None
    (path / "owner").write_bytes(encode_frame(owner._replace(version=99)))


@pytest.mark.parametrize("what", BAD)
def test_a_bad_spool_hides_no_other_and_stays_as_it_is(spool: Path, what: str) -> None:
    """Its points are those of the good one, as far as they can be read: none is shown twice."""
    bad = spool.parent / "0-first-in-the-list"
    make_bad(what, bad)
    before = files_of(bad) if bad.is_dir() and not bad.is_symlink() and not has_pipes(bad) else None
    found = seen(good_run())
    assert steps(found) == list(range(20))
    assert found["loss"].waiting == 20
    assert [run.run.info.run_name for run in drive(find_runs(store_for()))][:1] == ["good"]
    follower = Follower(store_for(), good_run())
    for _ in range(2):
        drive(follower.look())
        assert steps(Look(follower.series)) == list(range(20))
    assert before is None or files_of(bad) == before


def has_pipes(path: Path) -> bool:
    return any(not entry.is_file() or entry.is_symlink() for entry in path.iterdir())


def test_random_damage_to_a_spool_is_survived(spool: Path) -> None:
    """Any byte of any file may be another: what is shown was logged, and the good spool is shown whole."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bad = spool.parent / "0-first-in-the-list"
    for _ in range(60):
        leave_behind(spool, bad)
        for name in ("registry", "000001.slots", "000001.frames", "owner"):
            path = bad / name
            if not path.exists() or chance.random() < 0.4:
                continue
            size = min(path.stat().st_size, 4096)
            for _ in range(chance.randrange(1, 9)):
                overwrite(path, chance.randrange(size), bytes([chance.randrange(256)]))
        assert sorted(steps(seen(good_run()))) == list(range(20))
        drive(find_runs(store_for()))
        shutil.rmtree(bad)


def test_a_spool_that_goes_while_it_is_read_was_delivered(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two calls of the system. Nothing raises; what is not seen any more, the store has."""
    home, name = spool.parent, "1-goes"
    calls = ["open", "listdir", "scandir", "stat", "preadv", "fstat", "pread"]
    for call in calls:
        for number in range(12):
            leave_behind(spool, home / name)
            left = [number]
            real = getattr(os, call)

            def goes(*arguments: Any, **more: Any) -> Any:
                found = real(*arguments, **more)  # noqa: B023  # called before the next one is made
                left[0] -= 1  # noqa: B023
                if left[0] == 0:  # noqa: B023
                    shutil.rmtree(home / name, ignore_errors=True)
                return found

            pending = Pending(store_for())
            with monkeypatch.context() as patch:
                patch.setattr(os, call, goes)
                pending.refresh()
                pending.walk()
                pending.settle()
            held = pending.run({good_run()})
            assert held is not None
            assert {len(columns) for columns in held.points.values()} <= {20, 40}  # of one spool, or of both
            pending.close()
            shutil.rmtree(home / name, ignore_errors=True)


def test_another_users_spool_is_passed_over(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    pending = Pending(store_for())
    pending.refresh()
    assert not pending.watches
    assert "belongs to another user" in pending.problems[os.path.realpath(spool)]


def test_looking_takes_no_lock_and_loses_none(spool: Path) -> None:
    for _ in range(3):
        seen(good_run())
    asked = (
        "import sys; from asynctrack.journal.locks import is_held; from asynctrack.journal.spool import Spool; "
        "print(is_held(sys.argv[1])[0], Spool.adopt(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", asked, str(spool)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "None"], "another process may have it"


# ── slots that are written late


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journal_in(tmp_path / "spools", slots=16) as made:
        yield made


class Reading:
    """Somebody who looks at run 1 of a journal."""

    def __init__(self, journal: Journal) -> None:
        self.store = MemoryStore()
        self.follower = Follower(self.store, uid(1), folder=str(spool_path(journal).parent))

    def steps(self) -> list[int]:
        drive(self.follower.look())
        return steps(Look(self.follower.series))


def test_a_slot_that_is_written_late_is_shown_when_it_is_there(journal: Journal) -> None:
    run = register(journal)
    journal.write_frame(["start", run])
    stream = journal.register_stream(run, "loss")
    assert stream is not None
    reading = Reading(journal)
    claim, slots, _ = journal.current
    hole = claim()
    for step in range(3):
        journal.write(step, step, 1.0, stream)
    assert reading.steps() == [0, 1, 2]
    PACK(slots, hole, 7, 7, 1.0, stream, 7, 7, 1.0, stream, hole)
    assert reading.steps() == [0, 1, 2, 7]
    assert reading.steps() == [0, 1, 2, 7]
    for step in range(100, 130):  # on to further segments
        journal.write(step, step, 1.0, stream)
    assert reading.steps() == [0, 1, 2, 7, *range(100, 130)]


def test_a_tag_that_is_set_late_is_shown_in_its_place(journal: Journal) -> None:
    run = register(journal)
    journal.write_frame(["start", run])
    claim, slots, segment = journal.current
    hole = claim()
    journal.write_frame(["tags", run, {"same": "later"}])
    reading = Reading(journal)
    drive(reading.follower.look())
    frame = encode_frame(["tags", run, {"same": "earlier", "other": "here"}])
    offset = segment.append_frame(frame)
    PACK(slots, hole, offset, len(frame), 0.0, FRAME, offset, len(frame), 0.0, FRAME, hole)
    drive(reading.follower.look())
    assert reading.follower.run is not None
    tags = reading.follower.run.data.tags
    assert (tags["same"], tags["other"]) == ("later", "here")


def test_a_spool_that_is_listed_counts_what_was_written_late(journal: Journal) -> None:
    """Its consumer has passed the slot, and the cursor says so."""
    run = register(journal)
    journal.write_frame(["start", run])
    stream = journal.register_stream(run, "loss")
    assert stream is not None
    claim, slots, segment = journal.current
    hole = claim()
    journal.write(1, 1, 1.0, stream)
    number = segment.first + (hole - HEADER_SIZE) // SLOT_SIZE
    runs = {run: [number + 2, uid(1), None, 0, False, []]}
    cursor = {"front": number + 2, "known_runs": 1, "pending": [number], "runs": runs}
    (spool_path(journal) / "cursor").write_bytes(encode_frame(cursor))
    found = read_spool(str(spool_path(journal)))
    assert found is not None
    assert found.events == 0
    PACK(slots, hole, 7, 7, 1.0, stream, 7, 7, 1.0, stream, hole)
    found = read_spool(str(spool_path(journal)))
    assert found is not None
    assert found.events == 1
    assert Reading(journal).steps() == [7]


def test_what_the_cursor_is_past_is_shown_no_more_but_for_what_it_excepts(journal: Journal) -> None:
    """The store of this test has none of it: so it was refused."""
    run = register(journal)
    journal.write_frame(["start", run])
    stream = journal.register_stream(run, "loss")
    assert stream is not None
    for step in range(1, 8):
        journal.write(step, step, 1.0, stream)
    reading = Reading(journal)
    assert reading.steps() == [1, 2, 3, 4, 5, 6, 7]
    runs = {run: [6, uid(1), None, 0, False, []]}
    cursor = {"front": 8, "known_runs": 1, "pending": [3], "runs": runs}
    (spool_path(journal) / "cursor").write_bytes(encode_frame(cursor))
    assert reading.steps() == [3, 6, 7]
    assert Reading(journal).steps() == [6, 7, 3]
    (spool_path(journal) / "cursor").write_bytes(encode_frame({**cursor, "pending": []}))
    assert reading.steps() == [6, 7]


def test_what_waits_behind_deleted_segments_is_shown_and_counted(journal: Journal) -> None:
    """The cursor stands in the middle of the first segment that is left; a reader had seen one of the others."""
    run = register(journal)
    stream = journal.register_stream(run, "loss")
    assert stream is not None
    reading = Reading(journal)
    journal.write(0, 0, 1.0, stream)
    assert reading.steps() == [0]
    for step in range(1, 60):
        journal.write(step, step, 1.0, stream)
    files = sorted(spool_path(journal).glob("*.slots"))
    assert len(files) >= 4
    for path in files[:2]:
        path.unlink()
    cursor = {"front": 50, "known_runs": 1, "pending": [], "runs": {run: [40, uid(1), None, 0, False, []]}}
    (spool_path(journal) / "cursor").write_bytes(encode_frame(cursor))
    assert reading.steps() == list(range(40, 60))
    assert Reading(journal).steps() == list(range(40, 60))
    found = read_spool(str(spool_path(journal)))
    assert found is not None
    assert found.events == 20


def test_a_cursor_that_is_just_being_written_changes_nothing(journal: Journal) -> None:
    run = register(journal)
    stream = journal.register_stream(run, "loss")
    assert stream is not None
    for step in range(4):
        journal.write(step, step, 1.0, stream)
    reading = Reading(journal)
    cursor = encode_frame({"front": 4, "known_runs": 1, "pending": [], "runs": {run: [2, uid(1), None, 0, False]}})
    path = spool_path(journal) / "cursor"
    path.write_bytes(cursor)
    assert reading.steps() == [2, 3]
    path.write_bytes(cursor + cursor[:-3])
    assert reading.steps() == [2, 3]


# ── with NumPy and without


def test_points_are_the_same_with_numpy_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    for kind in ("one stream", "many", "with frames", "damaged", "empty"):
        slots = bytearray(64 * SLOT_SIZE)
        for index in range(64):
            stream = 5 if kind == "one stream" else chance.randrange(1, 5)
            if kind in ("with frames", "damaged") and index % 7 == 0:
                stream = FRAME
            if kind != "empty":
                value = 0.0 if stream == FRAME else chance.choice([float("nan"), float("inf"), -0.0, 0.5])
                PACK(slots, index * SLOT_SIZE, index, -index, value, stream, index, -index, value, stream, 0)
        if kind == "damaged":
            slots[3 * SLOT_SIZE + 8] ^= 1
            slots[4 * SLOT_SIZE : 5 * SLOT_SIZE] = bytes(SLOT_SIZE)
            slots[5 * SLOT_SIZE + 32 : 6 * SLOT_SIZE] = bytes(32)
        found = []
        for numpy in (None, pytest.importorskip("numpy")):
            monkeypatch.setattr(points, "_numpy", lambda: numpy)  # noqa: B023  # called in this round
            streams = points.points_in(bytes(slots), 1000)
            found.append({stream: (each.columns, list(each.numbers)) for stream, each in streams.items()})
        assert found[0] == found[1], kind
        assert bool(found[0]) == (kind != "empty")


def test_a_program_that_changes_its_working_directory_still_sees_what_it_has_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spool stands in the one where it began."""
    monkeypatch.chdir(tmp_path)
    asynctrack.configure(mode="offline", spool_dir="spools")
    uri = f"http://127.0.0.1:{free_port()}"
    run = asynctrack.start_run(tracking_uri=uri)
    run.log_metric("loss", 0.5, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(asynctrack.history([run.run_id], tracking_uri=uri)) == 1
