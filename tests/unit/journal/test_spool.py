"""The spool's folder: whose it is, whether that process lives, how far its consumer has come, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asynctrack.journal import locks
from asynctrack.journal.frames import FrameFile, decode_frame, encode_frame, scan_frames
from asynctrack.journal.homes import find_orphans, open_spool, spool_homes
from asynctrack.journal.owner import host_name, read_owner
from asynctrack.journal.segment import Segment
from asynctrack.journal.spool import Spool
from tests.fault import programs
from tests.journals import journal_in, let_go, new_journal, register, segments, spool_path

STORE = "file:///data/mlruns"

#: what the programs of these tests begin with
OWN = """
    import os, sys, time
    from asynctrack.journal.spool import Spool
    def make():
        spool = Spool.create(sys.stdin.readline().strip(), "file:///data/mlruns")
        print(spool.path, flush=True)
        return spool
"""


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "spools")


@pytest.fixture
def spool(home: str) -> Iterator[Spool]:
    """One of this process's own."""
    made = Spool.create(home, STORE)
    yield made
    made.registry.close()
    made.release()


def folder(spool: Spool) -> Path:
    assert spool.path is not None
    return Path(spool.path)


def owned(home: str, program: str) -> tuple[subprocess.Popen[str], str]:
    """A process that owns a spool, and where."""
    process = programs.start(textwrap.dedent(OWN) + textwrap.dedent(program), Path(home).parent)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(home + "\n")
    process.stdin.flush()
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def dead(home: str, store: str = STORE, **owner: Any) -> str:
    """A spool whose owner is dead."""
    made = Spool.create(home, store)
    made.registry.close()
    made.release()
    if owner:
        path = folder(made)
        entry = made.owner._replace(**owner)
        (path / "owner").write_bytes(encode_frame(entry))
        (path / "registry").write_bytes(encode_frame(["owner", *entry]))
    return str(made.path)


def adopted(path: str) -> Spool:
    spool = Spool.adopt(path)
    assert spool is not None
    return spool


def finish(spool: Spool) -> None:
    spool.registry.close()
    spool.release()


# ── whose it is


def test_a_spool_says_whose_it_is_twice(spool: Spool) -> None:
    """In a private folder, named for people, in a home that git ignores."""
    path = folder(spool)
    assert path.name.startswith(f"{host_name()}-{os.getpid()}-")
    modes = [stat.S_IMODE(item.stat().st_mode) for item in (path.parent, path, path / "owner", path / "registry")]
    assert modes == [0o700, 0o700, 0o600, 0o600]
    assert sorted(os.listdir(path)) == ["owner", "registry"]
    inode = os.stat(path / "owner").st_ino
    owner = [3, host_name(), os.getpid(), STORE, spool.owner.created, str(path), inode, True]
    assert decode_frame((path / "owner").read_bytes()) == owner
    assert scan_frames((path / "registry").read_bytes())[0] == [["owner", *owner]]
    assert (path.parent / ".gitignore").read_text("utf-8").endswith("*\n")


def test_a_gitignore_of_the_user_s_stays_as_it_is(tmp_path: Path) -> None:
    """Where the home is a folder that was there before."""
    (tmp_path / ".gitignore").write_text("mine\n")
    finish(Spool.create(str(tmp_path), STORE))
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("nth", [1, 2])
def test_a_spool_that_cannot_be_made_leaves_nothing(home: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at its first file, or at its second."""
    calls = 0

    def full(fd: int, data: bytes, offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.pwrite(fd, data, offset)

    monkeypatch.setattr("asynctrack.journal.spool.write_all", full)
    monkeypatch.setattr("asynctrack.journal.frames.write_all", full)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space"):
        Spool.create(home, STORE)
    assert os.listdir(home) == [".gitignore"]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_homes_are_the_configured_one_or_here_or_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A configured home is the only one: nobody wants data elsewhere than where he said."""
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert spool_homes("~/spools") == ["/home/ann/spools"]
    assert spool_homes(None) == [str(tmp_path / ".asynctrack"), "/home/ann/.local/state/asynctrack"]
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert spool_homes(None)[1] == "/state/asynctrack"


def test_a_spool_stands_here_only_where_it_is_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here, state = str(tmp_path / ".asynctrack"), "/state/asynctrack"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    inside = [f"file://{tmp_path}/of%20runs/mlruns", f"sqlite:///{tmp_path}/mlflow.db"]
    elsewhere = ["file:///data/mlruns", f"file://{tmp_path}-2/mlruns", "sqlite:////data/mlflow.db"]
    assert {tuple(spool_homes(None, store)) for store in [*inside, "http://host:5000"]} == {(here, state)}
    assert {tuple(spool_homes(None, store)) for store in elsewhere} == {(state, here)}

    monkeypatch.setenv("TMPDIR", str(tmp_path.parent))  # a temporary folder, as Ray's actors are started in
    assert {tuple(spool_homes(None, store)) for store in inside} == {(here, state)}
    assert spool_homes(None, "http://host:5000") == [state, here]

    monkeypatch.setenv("ASYNCTRACK_MLFLOW", "1")
    assert {tuple(spool_homes(None, store)) for store in inside} == {(state, here)}
    assert spool_homes("spools", inside[0]) == [str(tmp_path / "spools")]

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os.path, "expanduser", str)  # a user without a home
    assert spool_homes(None, inside[0]) == [here]


def test_the_first_home_that_can_be_written_is_taken(tmp_path: Path) -> None:
    """Why the others could not is said; after the last one, memory."""
    (tmp_path / "file").write_text("")
    bad, good = str(tmp_path / "file" / "spools"), str(tmp_path / "good")
    spool, segment, problems = open_spool([bad, good], STORE, 4)
    assert folder(spool).parent == Path(good)
    assert segment.path == spool.segment_path(1)
    assert len(problems) == 1
    assert problems[0].startswith(bad)
    let_go(spool, segment)
    spool, segment, problems = open_spool([bad], STORE, 4)
    assert (spool.path, segment.path, len(problems)) == (None, None, 1)
    let_go(spool, segment)


# ── whether its owner lives


def test_a_spool_is_not_adopted_while_its_owner_lives(home: str) -> None:
    """Looking at it changes nothing; once the owner is killed it is free."""
    process, path = owned(home, "spool = make(); time.sleep(600)")
    try:
        for _ in range(2):
            assert Spool.adopt(path) is None
            owner = read_owner(path)
            assert owner is not None
            assert owner.pid == process.pid
        assert list(find_orphans(home, STORE)) == []
    finally:
        end(process)
    (found,) = find_orphans(home, STORE)
    assert (found.path, found.owner.pid) == (path, process.pid)
    finish(found)


def test_a_forked_child_does_not_make_a_dead_parent_look_alive(home: str) -> None:
    """Although it has inherited every open file."""
    program = """
    spool = make()
    begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun[1], b"x")  # on a busy machine its parent might be dead before it has let go of anything
        time.sleep(600)
    os.read(begun[0], 1)
    print(child, flush=True)
    os._exit(0)
    """
    process, path = owned(home, program)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.wait(programs.LIMIT)
        os.kill(child, 0)  # it is there
        finish(adopted(path))
    finally:
        os.kill(child, 9)
        process.communicate()


def test_a_forked_child_can_adopt_what_its_parent_holds_no_more(home: str) -> None:
    """What the parent has locked, the child does not take for its own."""
    program = """
    spool = make()
    to_child, to_parent = os.pipe(), os.pipe()
    if os.fork() == 0:
        while_held = Spool.adopt(spool.path)
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)
        released = Spool.adopt(spool.path)
        os.write(1, f"{while_held} {type(released).__name__}\\n".encode())
        os._exit(0)
    os.read(to_parent[0], 1)
    spool.release()
    os.write(to_child[1], b"x")
    os.wait()
    """
    process, _ = owned(home, program)
    output, errors = process.communicate(timeout=programs.LIMIT)
    assert process.returncode == 0, errors
    assert output.split() == ["None", "Spool"]


def test_this_process_s_own_spool_is_no_orphan(spool: Spool, home: str) -> None:
    """A record lock does not keep its own process out. And even opening the owner file would drop the lock: another
    process must find it held after this one has looked."""
    path = str(spool.path)
    assert Spool.adopt(path) is None
    assert Spool.adopt(os.path.join(home, "..", "spools", os.path.basename(path))) is None
    read_owner(path)
    assert list(find_orphans(home, STORE)) == []
    code = f"from asynctrack.journal.spool import Spool\nprint(Spool.adopt({path!r}))"
    assert programs.run(code, Path(home)).stdout.strip() == "None"


def test_only_one_adopts(home: str) -> None:
    """Eight threads at once, as two engines of a process may be; and no other process after that."""
    path = dead(home)
    start = threading.Barrier(8)
    found: list[Spool | None] = []

    def adopt() -> None:
        start.wait(30)
        read_owner(path)
        found.append(Spool.adopt(path))
        read_owner(path)

    threads = [threading.Thread(target=adopt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (spool,) = [spool for spool in found if spool is not None]
    code = f"from asynctrack.journal.spool import Spool\nprint(Spool.adopt({path!r}))"
    assert programs.run(code, Path(home)).stdout.strip() == "None"
    finish(spool)
    finish(adopted(path))


def test_a_spool_in_the_making_is_left_alone(home: str) -> None:
    """It has no owner file yet; nor has a folder that is none."""
    for name in ("making", "other"):
        os.makedirs(os.path.join(home, name))
    Path(home, "making", "owner.new").write_bytes(b"")
    Path(home, "a file").write_bytes(b"")
    assert Spool.adopt(os.path.join(home, "making")) is None
    assert list(find_orphans(home, STORE)) == []
    assert list(find_orphans(os.path.join(home, "nowhere"), STORE)) == []


def test_a_spool_that_was_just_delivered_is_not_adopted(home: str) -> None:
    """Between the look and the lock another process has delivered it; refused events are still there."""
    path = dead(home)
    os.unlink(os.path.join(path, "registry"))
    Path(path, "rejected.jsonl").touch()
    assert Spool.adopt(path) is None
    assert sorted(os.listdir(path)) == ["owner", "rejected.jsonl"]


def test_what_could_not_be_deleted_of_a_delivered_spool_is_deleted_later(home: str) -> None:
    """By whoever looks for orphans next."""
    path = dead(home)
    os.unlink(os.path.join(path, "registry"))
    Path(path, "cursor").touch()
    assert list(find_orphans(home, STORE)) == []
    assert not os.path.exists(path)


def test_orphans_are_those_of_this_store_and_this_host(home: str) -> None:
    """A lock on a shared file system proves nothing about a process elsewhere."""
    mine = dead(home)
    dead(home, "http://elsewhere:5000")
    dead(home, host="another-host")
    dead(home, version=4)
    (found,) = find_orphans(home, STORE)
    assert found.path == mine
    finish(found)


# ── damage to it


def damage(path: str, file: str) -> None:
    data = bytearray(Path(path, file).read_bytes())
    data[-1] ^= 1
    Path(path, file).write_bytes(data)


def test_a_damaged_owner_is_read_from_its_second_copy(home: str) -> None:
    """So one damaged byte costs nothing."""
    path = dead(home)
    damage(path, "owner")
    owner = read_owner(path)
    assert owner is not None
    assert owner.store == STORE
    (found,) = find_orphans(home, STORE)
    assert found.owner == owner
    finish(found)


def test_a_spool_whose_owner_is_damaged_twice_is_left_as_it_is(home: str) -> None:
    """Where its events should go is not known; and its lock is not kept."""
    path = dead(home)
    damage(path, "owner")
    damage(path, "registry")
    for _ in range(2):
        with pytest.raises(ValueError, match="both copies of the spool's owner are damaged"):
            Spool.adopt(path)
    assert read_owner(path) is None
    assert list(find_orphans(home, STORE)) == []
    assert sorted(os.listdir(path)) == ["owner", "registry"]


def test_a_spool_of_another_format_is_refused(home: str) -> None:
    """With what to do about it."""
    path = dead(home, version=4)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"format 4 is not known here; use a newer asynctrack"):
            Spool.adopt(path)


def test_segments_are_put_in_order_and_what_is_missing_is_said(home: str) -> None:
    """By their place in the journal, not by their names; unreadable files and gaps are reported."""
    path = dead(home)
    for number, first in ((1, 8), (2, 4), (4, 20)):
        Segment.create(os.path.join(path, f"{number:06d}.slots"), first, 4).close()
    Path(path, "000003.slots").write_bytes(b"rubbish")
    spool = adopted(path)
    head = spool.segments.look(None, living=False)
    problems = list(spool.segments.problems)
    assert [(segment.first, segment.sealed) for segment in segments(head)] == [(4, True), (8, True), (20, True)]
    assert len(problems) == 2
    assert "000003.slots: both copies of the segment's header are damaged" in problems[0]
    assert "a segment is missing, with up to 8 records" in problems[1]
    let_go(spool, head)


@pytest.mark.parametrize("used", [1, 2])
def test_of_two_segments_of_one_place_the_used_one_counts(home: str, used: int) -> None:
    """The other was made in advance, and overtaken."""
    path = dead(home)
    for number in (1, 2):
        segment = Segment.create(os.path.join(path, f"{number:06d}.slots"), 0, 4)
        if number == used:
            segment.void(segment.claim())
        segment.close()
    spool = adopted(path)
    head = spool.segments.look(None, living=False)
    problems = list(spool.segments.problems)
    assert head is not None
    assert (os.path.basename(str(head.path)), head.next, head.begun, problems) == (f"{used:06d}.slots", None, 1, [])
    let_go(spool, head)


def test_a_journal_without_segments_is_an_empty_one(home: str) -> None:
    """Its process was killed right after it had made the spool."""
    spool = adopted(dead(home))
    assert spool.segments.look(None, living=False) is None
    assert not spool.segments.problems
    assert spool.load_cursor() is None
    finish(spool)


# ── the cursor


def test_the_last_cursor_saved_is_the_one_that_is_loaded(spool: Spool) -> None:
    """None before the first."""
    assert spool.load_cursor() is None
    for front in range(5):
        cursor = {"front": front, "runs": {1: [front, "id", {"a": 7}, 9]}, "pending": [1, 2]}
        spool.save_cursor(cursor)
        assert spool.load_cursor() == cursor


def test_a_cursor_that_has_grown_is_replaced_in_one_go(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each moment there is a whole one, the new or the one before."""
    monkeypatch.setattr("asynctrack.journal.cursor._CURSOR_BYTES", 300)
    replace = os.replace
    seen: list[tuple[Any, Any]] = []

    def watch(source: str, target: str) -> None:
        if target.endswith("cursor"):
            new = scan_frames(Path(source).read_bytes())[0][-1]
            old = scan_frames(Path(target).read_bytes())[0][-1] if os.path.exists(target) else None
            seen.append((old and old["front"], new["front"]))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    for front in range(40):
        spool.save_cursor({"front": front, "padding": "x" * 50})
        assert spool.load_cursor() == {"front": front, "padding": "x" * 50}
    assert len(seen) > 5
    assert seen[0] == (None, 0)
    assert all(new == old + 1 for old, new in seen[1:])
    assert os.stat(folder(spool) / "cursor").st_size < 500
    assert not (folder(spool) / "cursor.new").exists()


def test_a_consumer_that_died_while_replacing_the_cursor_changes_nothing(home: str) -> None:
    """The next one starts with the old cursor, and writes over what is left."""
    path = dead(home)
    first = adopted(path)
    first.save_cursor({"front": 1})
    finish(first)
    Path(path, "cursor.new").write_bytes(encode_frame({"front": 2})[:-3])
    second = adopted(path)
    assert second.load_cursor() == {"front": 1}
    second.save_cursor({"front": 3})
    assert second.load_cursor() == {"front": 3}
    finish(second)


def test_a_torn_cursor_is_reported_and_an_older_one_not_taken_for_it(spool: Spool) -> None:
    """Cut or changed anywhere in its last frame: what was sent since the older one, nobody knows."""
    spool.save_cursor({"front": 1})
    first = os.stat(folder(spool) / "cursor").st_size
    spool.save_cursor({"front": 2})
    whole = (folder(spool) / "cursor").read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(first, len(whole))]
    for data in [whole[:size] for size in range(first + 1, len(whole))] + changed + [b""]:
        (folder(spool) / "cursor").write_bytes(data)
        with pytest.raises(ValueError, match="cursor is damaged"):
            spool.load_cursor()


def test_a_cursor_that_cannot_be_written_is_an_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next that can is read."""
    spool.save_cursor({"front": 1})

    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("asynctrack.journal.frames.write_all", full)
        for cursor in ({"front": 2}, {"front": 3}):
            with pytest.raises(OSError, match="No space"):
                spool.save_cursor(cursor)
    assert spool.load_cursor() == {"front": 1}
    spool.save_cursor({"front": 4})
    assert spool.load_cursor() == {"front": 4}


def test_a_cursor_is_synced_where_that_is_asked_for(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`durability="system"`."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    spool.save_cursor({"front": 1})
    assert synced == []
    spool.save_cursor({"front": 2}, sync=True)
    assert synced == ["cursor"]


# ── refused events


def test_refused_events_are_lines_of_json(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended, readable by people, whatever text stands in them, and whole although the system writes in pieces."""
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    spool.reject([{"key": "größe", "value": "nan"}, {"key": "lone \ud800"}])
    spool.reject([])
    spool.reject([{"key": "third", "value": 3}])
    monkeypatch.undo()
    lines = Path(spool.rejected_path()).read_text("utf-8").splitlines()
    assert lines[0] == '{"key": "größe", "value": "nan"}'
    assert [json.loads(line)["key"] for line in lines] == ["größe", "lone ?", "third"]


# ── its end


def test_a_delivered_spool_is_deleted(tmp_path: Path) -> None:
    """Every file of it, and the folder; whoever looks finds no spool, and its lock is free."""
    with journal_in(tmp_path, slots=2) as journal:
        register(journal)
        for n in range(5):
            journal.write_frame(["tags", 1, {"n": str(n)}])
        journal.spool.save_cursor({"front": 5})
        path = spool_path(journal)
        journal.close()
        journal.spool.remove(journal.spool.segments.account(journal.head, 5))
        assert os.listdir(tmp_path) == [".gitignore"]
        assert read_owner(str(path)) is None
        assert str(path) not in locks._held_here


def test_refused_events_outlive_the_spool(spool: Spool) -> None:
    """They and the owner stay, and are no orphan."""
    spool.reject([{"key": "loss"}])
    spool.save_cursor({"front": 5})
    spool.remove()
    assert sorted(os.listdir(folder(spool))) == ["owner", "rejected.jsonl"]
    assert Spool.adopt(str(spool.path)) is None


def test_a_spool_that_cannot_be_deleted_lets_go_of_its_lock(spool: Spool) -> None:
    """Somebody has put a file there. It is not ours, and stays."""
    (folder(spool) / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        spool.remove()
    assert os.listdir(folder(spool)) == ["notes.txt"]
    assert str(spool.path) not in locks._held_here


def test_a_spool_that_the_user_has_deleted_is_gone(spool: Spool) -> None:
    """No error, and nothing of it comes back."""
    where = folder(spool)
    for path in where.iterdir():
        path.unlink()
    where.rmdir()
    spool.remove()
    assert not where.exists()


def test_a_released_spool_can_be_adopted(spool: Spool) -> None:
    """As when its owner gave up waiting for the store: the rest goes to whoever comes next."""
    spool.registry.append(encode_frame(["run", 1, {}]))
    spool.release()
    again = adopted(str(spool.path))
    assert scan_frames(again.registry.read(0, 999))[0][1:] == [["run", 1, {}]]
    with pytest.raises(FileExistsError):
        FrameFile(str(folder(spool) / "owner"), create=True)
    finish(again)


def test_where_there_is_no_disk_there_is_nothing_to_do() -> None:
    """A spool in memory keeps no cursor and no refused events, and its end deletes nothing."""
    spool = Spool.in_memory(STORE)
    spool.save_cursor({"front": 1})
    spool.reject([{"key": "loss"}])
    assert spool.load_cursor() is None
    assert spool.segments.look(None, living=False) is None
    assert not spool.segments.problems
    assert spool.segment_path(1) is None
    spool.remove()


# ── followed


@pytest.mark.parametrize("here", [True, False])
def test_a_machine_that_gets_another_name_still_sees_whether_an_owner_lives(
    here: bool, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool that was followed on this machine, or whose owner is known to be here, is taken over when its owner is
    dead; one of another host never is, for its lock proves nothing."""
    path = dead(home, host=host_name() if here else "another-host")
    followed = Spool.follow(path)
    assert followed is not None
    monkeypatch.setattr("asynctrack.journal.spool.host_name", lambda: "renamed")
    assert followed.take_over() == here
    finish(followed)
    by_its_shipper = Spool.follow(path, here=True)
    assert by_its_shipper is not None
    assert by_its_shipper.take_over()
    finish(by_its_shipper)


def test_a_program_that_has_closed_all_its_files_lets_go_of_its_spool(tmp_path: Path) -> None:
    """One that becomes a daemon does: what ends the spool goes on."""
    journal = new_journal(tmp_path)
    assert journal.spool.lock is not None
    os.close(journal.spool.lock.fd)
    (spare,) = journal.chain.supply._spare
    os.close(spare.fd)
    del spare
    journal.close()
    journal.spool.release()
    assert (journal.spool.lock.fd, journal.chain.supply._spare) == (-1, [])


def test_a_program_that_has_closed_all_its_files_keeps_its_spool(tmp_path: Path) -> None:
    """Nobody else takes it for a dead one's and delivers it; and what has the number by now stays open."""
    spool = Spool.create(str(tmp_path), STORE)
    assert spool.path is not None
    assert spool.lock is not None
    number = spool.lock.fd
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, number)
    os.close(other)
    os.unlink(tmp_path / "other")
    try:
        with open(os.path.join(spool.path, "owner"), "rb+") as owner:
            held = [locks._is_locked(owner.fileno(), part) for part in (locks.OWNER, locks.CONSUMER)]
            assert (held, spool.deleted) == ([True, True], False)
            spool.leave()
            assert not locks._is_locked(owner.fileno(), locks.OWNER)
        assert os.fstat(number).st_nlink == 0
    finally:
        os.close(number)
