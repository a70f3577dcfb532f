"""Numbers of runs: given out and written in one order, whoever asks in between."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from asynctrack.journal import registry as module
from asynctrack.journal.frames import FrameFile, encode_frame, scan_frames
from asynctrack.journal.registry import Registry


def runs(path: Path) -> list[int]:
    return [entry[1] for entry in scan_frames(path.read_bytes())[0] if entry[0] == "run"]


def test_no_run_is_written_before_one_with_a_smaller_number(tmp_path: Path) -> None:
    """By eight threads at once: whoever reads 5 has seen 1 to 4."""
    registry = Registry(FrameFile(str(tmp_path / "registry"), create=True))
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(30)
        for _ in range(100):
            registry.add_run({"uid": "a"})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(tmp_path / "registry") == list(range(1, 801))


@pytest.mark.parametrize("where", ["before the number", "behind the number"])
def test_a_signal_handler_that_starts_a_run_in_the_middle_of_a_start_keeps_the_order(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the entry that it has interrupted before its own; that one may stand there twice."""
    file = FrameFile(str(tmp_path / "registry"), create=True)
    registry = Registry(file)
    numbers: list[int] = []
    append = file.append

    def interrupt() -> None:
        if not numbers:
            numbers.append(0)
            numbers.append(registry.add_run({"uid": "handler"}))

    before = signal.signal(signal.SIGUSR1, lambda *_: interrupt())
    if where == "before the number":

        def interrupted_encode(entry: object) -> bytes:
            signal.raise_signal(signal.SIGUSR1)
            return encode_frame(entry)

        monkeypatch.setattr(module, "encode_frame", interrupted_encode)
    else:

        def interrupted_append(frame: bytes) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return append(frame)

        monkeypatch.setattr(file, "append", interrupted_append)
    try:
        mine = registry.add_run({"uid": "a"})
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted([mine, numbers[1]]) == [1, 2]
    written = runs(tmp_path / "registry")
    assert written.index(1) < written.index(2)


def test_a_run_that_could_not_be_written_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is written, and nothing of the other."""
    file = FrameFile(str(tmp_path / "registry"), create=True)
    registry = Registry(file)

    def fail(frame: bytes) -> int:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(file, "append", fail)
        with pytest.raises(OSError, match="no space"):
            registry.add_run({"uid": "a"})
    number = registry.add_run({"uid": "b"})
    assert runs(tmp_path / "registry") == [number]
