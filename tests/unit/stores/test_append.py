"""Appending to metric files: once, whole, beside others, after crashes and on failing disks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pathlib
import tempfile
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack.errors import UnavailableError
from asynctrack.stores.file import append as module
from asynctrack.stores.file import files
from asynctrack.stores.file.append import Tail, append, whole_size
from asynctrack.stores.file.lines import WINDOW, Block, identity, parse_lines

OURS = Block([(1000 + i, i, i / 4) for i in range(4)])
FOREIGN = b"900 7.0 7\n901 8.0 8\n"


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    """A metric file that is not there yet."""
    return str(tmp_path / "metrics" / "a" / "b")


def put(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pathlib.Path(path).write_bytes(data)


def content(path: str) -> bytes:
    return pathlib.Path(path).read_bytes()


def test_a_new_file_appears_with_its_lines(path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never there and empty, not even for a moment, and nothing is left beside it."""
    sizes = []
    write = os.write

    def watch(fd: int, data: Any) -> int:
        sizes.append(os.path.exists(path))
        return write(fd, data[:5])

    monkeypatch.setattr(os, "write", watch)
    tail = append(path, OURS, str(tmp_path))
    assert content(path) == OURS.data
    assert not any(sizes)
    assert os.listdir(tmp_path) == ["metrics"]
    assert os.listdir(tmp_path / "metrics" / "a") == ["b"]
    assert tail == Tail(len(OURS.data), OURS.lines, True)


def test_a_file_system_without_links_gets_its_file_too(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network and FUSE file systems refuse hard links."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    append(path, OURS, str(tmp_path))
    assert content(path) == OURS.data
    assert os.listdir(tmp_path) == ["metrics"]


def test_the_second_append_needs_no_reading(path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody else writes, the tail is known."""
    tail = append(path, OURS, str(tmp_path))
    monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("the file was read"))
    more = Block([(2000, 9, 1.0), (1003, 3, 0.75)])
    append(path, more, str(tmp_path), tail)
    assert content(path) == OURS.data + b"2000 1.0 9\n"


def test_points_of_another_writer_are_seen(path: str, tmp_path: pathlib.Path) -> None:
    """The file grew since our last append, so its tail is read again."""
    tail = append(path, OURS, str(tmp_path))
    with open(path, "ab") as file:
        file.write(FOREIGN)
    append(path, Block([(901, 8, 8.0), (902, 9, 9.0)]), str(tmp_path), tail)
    assert content(path) == OURS.data + FOREIGN + b"902 9.0 9\n"


def test_points_that_another_writer_spells_otherwise_are_the_same(path: str, tmp_path: pathlib.Path) -> None:
    """MLflow writes an int as it is, and wrote two fields before 1.0; also once the tail is known."""
    put(path, b"1 2 1\n2 10 2\n3 0.5\n")
    tail = append(path, OURS, str(tmp_path))
    expected = content(path)
    for known in (tail, None):
        append(path, Block([(1, 1, 2.0), (2, 2, 10.0), (3, 0, 0.5)]), str(tmp_path), known)
        assert content(path) == expected


@pytest.mark.parametrize("keep_tail", [True, False])
def test_the_window_is_256_lines(path: str, tmp_path: pathlib.Path, keep_tail: bool) -> None:
    """A point is not written again within the window; behind it only a bookmark helps."""
    many = Block([(i, i, float(i)) for i in range(WINDOW + 1)])
    tail = append(path, many, str(tmp_path))
    append(path, Block([(1, 1, 1.0)]), str(tmp_path), tail if keep_tail else None)
    assert content(path) == many.data
    if keep_tail:
        append(path, Block([(0, 0, 0.0)]), str(tmp_path), tail)
        assert content(path) == many.data + b"0 0.0 0\n"


def test_a_torn_line_of_a_dead_writer_is_cut_with_a_warning(
    path: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow cannot read an experiment with a torn line; its owner will deliver the point again."""
    put(path, FOREIGN + b"902 9.")
    with caplog.at_level(logging.WARNING, "asynctrack"):
        append(path, OURS, str(tmp_path))
    assert content(path) == FOREIGN + OURS.data
    assert len(caplog.records) == 1
    assert path in caplog.text
    assert "902 9." in caplog.text


def test_a_torn_tail_of_nul_bytes_is_cut(path: str, tmp_path: pathlib.Path) -> None:
    """Some file systems leave them after a power cut."""
    put(path, FOREIGN + bytes(100))
    append(path, OURS, str(tmp_path), mark=len(FOREIGN))
    assert content(path) == FOREIGN + OURS.data


def test_an_empty_file_is_filled(path: str, tmp_path: pathlib.Path) -> None:
    """Another program died between creating it and writing to it."""
    put(path, b"")
    append(path, OURS, str(tmp_path))
    assert content(path) == OURS.data


@settings(max_examples=150, deadline=None)
@given(
    before=st.sampled_from([b"", FOREIGN, FOREIGN[:-4]]),
    cut=st.integers(0, len(OURS.data)),
    between=st.sampled_from([b"", b"1003 0.75 30\n", FOREIGN]),
    torn_mark=st.booleans(),
)
def test_an_append_cut_anywhere_is_completed_once(before: bytes, cut: int, between: bytes, torn_mark: bool) -> None:
    """Each of our lines once, none torn, every whole line of other writers kept, wherever we died."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "metrics", "m")
        put(path, before)
        mark = whole_size(path)
        # What a locked append of ours leaves when it dies at any byte; then another writer, which locks too.
        head = before[:mark] if not torn_mark or cut else before
        put(path, head + OURS.data[:cut])
        if between:
            append(path, Block(parse_lines(between)[0]), folder)
        append(path, OURS, folder, mark=mark)
        points, damaged = parse_lines(content(path))
    marks = [identity(*point) for point in points]
    expected = {identity(*point) for text in (before[:mark], between, OURS.data) for point in parse_lines(text)[0]}
    assert damaged == 0
    assert set(marks) == expected
    assert len(marks) == len(set(marks))


def test_a_bookmark_reaches_behind_the_window(path: str, tmp_path: pathlib.Path) -> None:
    """A batch longer than the window, stored whole, behind a mark within a line: nothing is added."""
    many = Block([(i, i, float(i)) for i in range(5 * WINDOW)])
    put(path, FOREIGN)
    append(path, many, str(tmp_path))
    append(path, many, str(tmp_path), mark=len(FOREIGN) + 3)
    assert content(path) == FOREIGN + many.data


def test_whole_size_does_not_count_a_torn_line(path: str) -> None:
    """The line will be cut, and our append begins where it began."""
    assert whole_size(path) == 0
    put(path, FOREIGN + b"902 9")
    assert whole_size(path) == len(FOREIGN)
    put(path, b"9" * 50_000)
    assert whole_size(path) == 0
    put(path, b"1 1.0 1\n" + b"9" * 50_000)
    assert whole_size(path) == 8


@pytest.mark.parametrize("written", [0, 7])
@pytest.mark.parametrize("before", [b"", FOREIGN])
def test_a_full_disk_leaves_the_file_as_it_was(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, written: int, before: bytes
) -> None:
    """A part that was written is taken back; a file that was not there is not there."""
    if before:
        put(path, before)
    write = os.write
    calls = []

    def fill(fd: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) == 1 and written:
            return write(fd, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fill)
    kind: type[Exception] = UnavailableError if before else OSError
    with pytest.raises(kind) as caught:
        append(path, OURS, str(tmp_path))
    if before:
        assert path in str(caught.value)
        assert "No space left on device" in str(caught.value)
        assert not caught.value.ambiguous  # type: ignore[attr-defined]  # of UnavailableError
        assert content(path) == before
    else:
        assert not os.path.exists(path)
        assert os.listdir(tmp_path) == ["metrics"]


def test_a_file_that_cannot_be_taken_back_is_ambiguous(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the engine must complete it with the bookmark."""
    put(path, FOREIGN)
    write = os.write

    def fill(fd: int, data: Any) -> int:
        if len(data) < len(OURS.data):
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, data[:7])

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fill)
        broken.setattr(os, "ftruncate", fail)
        with pytest.raises(UnavailableError) as caught:
            append(path, OURS, str(tmp_path))
    assert caught.value.ambiguous
    append(path, OURS, str(tmp_path), mark=len(FOREIGN))
    assert content(path) == FOREIGN + OURS.data


def test_a_lock_that_is_never_released_is_reported(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process may hold it: the engine goes on with other runs."""
    put(path, FOREIGN)
    monkeypatch.setattr(files, "_LOCK_TIMEOUT", 0.0)
    fd = os.open(path, os.O_RDWR)
    try:
        with files.locked(fd, path), pytest.raises(UnavailableError, match="lock"):
            append(path, OURS, str(tmp_path))
    finally:
        os.close(fd)


def test_a_file_system_without_locks_is_written_with_one_warning(
    path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some cluster file systems are mounted without flock."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_unlockable", set())
    put(path, FOREIGN)
    append(path, OURS, str(tmp_path))
    append(path, Block([(3000, 1, 1.0)]), str(tmp_path))
    assert content(path) == FOREIGN + OURS.data + b"3000 1.0 1\n"
    assert len(caplog.records) == 1


def test_two_writers_share_a_file(path: str, tmp_path: pathlib.Path) -> None:
    """No line is lost, doubled or torn when two append at once."""

    def write(first: int) -> None:
        tail = None
        for i in range(first, first + 400, 4):
            tail = append(path, Block([(i + j, i + j, 0.1) for j in range(4)]), str(tmp_path), tail)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 10_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points, damaged = parse_lines(content(path))
    assert damaged == 0
    assert sorted(step for _, step, _ in points) == [*range(400), *range(10_000, 10_400)]
