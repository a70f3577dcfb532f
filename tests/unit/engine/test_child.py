"""The shipper process as its owner sees it."""

from __future__ import annotations

import os
from pathlib import Path

from asynctrack.engine.child import Tail


def append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def test_lines_are_read_once_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    tail = Tail(str(path))
    assert list(tail.lines()) == []
    append(path, "one\ntw")
    assert list(tail.lines()) == [b"one"]
    append(path, "o\nthree\n")
    assert list(tail.lines()) == [b"two", b"three"]
    tail.close()


def test_lines_that_a_replaced_file_had_before_are_not_read_again(tmp_path: Path) -> None:
    """As after `asynctrack spool retry`, which leaves those that were refused once more, and others come behind."""
    path = tmp_path / "rejected.jsonl"
    append(path, "one\ntwo\ntwo\n")
    tail = Tail(str(path))
    assert list(tail.lines()) == [b"one", b"two", b"two"]
    append(path, "three\n")
    (tmp_path / "new").write_text("two\nthree\nfour\n")
    os.replace(tmp_path / "new", path)
    assert list(tail.lines()) == [b"three"]
    assert list(tail.lines()) == [b"four"]
    append(path, "two\n")
    assert list(tail.lines()) == [b"two"]
    tail.close()
