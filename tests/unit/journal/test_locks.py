"""Locks that end with their process, and what forks and other processes do to them."""

from __future__ import annotations

import errno
import fcntl
import os
import textwrap
import threading
from pathlib import Path

import pytest

from asynctrack.journal import locks
from asynctrack.journal.locks import is_held
from asynctrack.journal.refusals import RefusalLog
from tests.fault import programs

FORKED_IN_THE_MIDDLE = """
    import os, sys, threading
    from asynctrack.journal import locks
    from asynctrack.journal.spool import Spool

    home = sys.argv[1]
    {prepare}
    locked, forking = threading.Event(), threading.Event()
    take = locks.SpoolLock.take

    def taken(self, part):
        got = take(self, part)
        locked.set()
        assert forking.wait(30)  # another thread forks between the lock and its entry
        return got

    locks.SpoolLock.take = taken
    thread = threading.Thread(target=lambda: {have})
    thread.start()
    assert locked.wait(30)
    os.register_at_fork(before=forking.set)  # before those that were registered earlier
    begun = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun[1], b"x")
        sys.stdin.readline()  # a worker that lives on
        os._exit(0)
    os.read(begun[0], 1)  # on a busy machine the parent might be dead before the child has let go of anything
    thread.join()
    print(child, os.listdir(home), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(
    ("prepare", "have"),
    [
        ("", "Spool.create(home, 'file:///nowhere')"),
        ("made = Spool.create(home, 'file:///nowhere'); made.leave()", "Spool.adopt(made.path)"),
    ],
)
def test_a_worker_forked_while_a_spool_is_being_had_does_not_make_its_dead_parent_look_alive(
    prepare: str, have: str, tmp_path: Path
) -> None:
    """The fork waits until it is known what the child has to close."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitignore").touch()
    code = textwrap.dedent(FORKED_IN_THE_MIDDLE).format(prepare=prepare, have=have)
    code = code.replace("sys.argv[1]", repr(str(home)))
    process = programs.start(code, tmp_path)
    assert process.stdout is not None
    child = int(process.stdout.readline().split()[0])
    try:
        process.wait(programs.LIMIT)
        (spool,) = [path for path in home.iterdir() if path.is_dir()]
        os.kill(child, 0)  # it is there
        assert is_held(str(spool)) == (False, False)
    finally:
        os.kill(child, 9)
        process.communicate()


def test_a_child_forked_while_a_file_is_locked_does_not_keep_it_locked(tmp_path: Path) -> None:
    """It has the file open for as long as it lives; the next refused event does not wait for that."""
    code = """
        import os
        from asynctrack.journal.locks import locked_file

        reading, writing = os.pipe()
        with locked_file("rejected.jsonl", create=True):
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
        with locked_file("rejected.jsonl", create=True) as fd:
            os.write(fd, b"x")
        os.close(writing)
        os.waitpid(child, 0)
    """
    done = programs.run(textwrap.dedent(code), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rejected.jsonl").read_bytes() == b"x"


def test_nobody_waits_without_limit_for_a_file_that_somebody_keeps_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error that is tried again later; meanwhile other runs are delivered."""
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    log = RefusalLog(str(tmp_path))
    with open(log.path, "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TimeoutError) as raised:
            log.append([{"key": "loss"}])
        assert raised.value.errno == errno.ETIMEDOUT
        assert len(os.listdir("/proc/self/fd")) == before
    log.append([{"key": "loss"}])
    assert Path(log.path).read_bytes() == b'{"key": "loss"}\n'


def test_two_threads_that_fork_at_once_let_go_of_the_owner_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one has not got them in time: each lets go of what it has, and of nothing else."""
    owner_files = threading.RLock()
    monkeypatch.setattr(locks, "_owner_files", owner_files)
    monkeypatch.setattr(locks, "_FORK_PATIENCE", 0.01)
    forking, forked = threading.Event(), threading.Event()

    def fork() -> None:
        locks._before_fork()
        forking.set()
        assert forked.wait(30)
        locks._after_fork_in_parent()

    locks._before_fork()
    thread = threading.Thread(target=fork)
    thread.start()
    assert forking.wait(30)
    locks._after_fork_in_parent()
    forked.set()
    thread.join(30)
    taken: list[bool] = []
    another = threading.Thread(target=lambda: taken.append(owner_files.acquire(timeout=1)))
    another.start()
    another.join(30)
    assert taken == [True]
