"""What numbers of runs and metrics stand for: found whenever they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asynctrack.journal import registered as module
from asynctrack.journal.frames import FrameFile, encode_frame
from asynctrack.journal.registered import RegistryReader, Stream


@pytest.fixture
def registry() -> Iterator[FrameFile]:
    file = FrameFile(None, create=True)
    yield file
    file.close()


def test_streams_are_found_when_they_are_needed(registry: FrameFile) -> None:
    """Registered since the last look too; None for one whose entry is damaged."""
    reader = RegistryReader(registry)
    registry.append(encode_frame(["stream", 1, 7, "loss"]))
    assert reader.stream(1) == Stream(7, "loss")
    assert reader.stream(2) is None
    registry.append(encode_frame(["stream", 2, 7, "acc"]))
    assert reader.stream(2) == Stream(7, "acc")


def test_an_entry_that_another_thread_was_writing_is_found_later(registry: FrameFile) -> None:
    """It stands before entries that have been read already."""
    slow, fast = encode_frame(["stream", 1, 7, "slow"]), encode_frame(["stream", 2, 7, "fast"])
    registry.append(bytes(len(slow)))
    registry.append(fast)
    reader = RegistryReader(registry)
    assert (reader.stream(2), reader.stream(1)) == (Stream(7, "fast"), None)
    registry._end = 0
    registry.append(slow)
    assert reader.stream(1) == Stream(7, "slow")


def test_a_forgotten_run_is_read_again(registry: FrameFile) -> None:
    """Memory does not grow with the number of runs; an event behind a run's end still finds it."""
    registry.append(encode_frame(["run", 1, {"uid": "a"}]))
    registry.append(encode_frame(["stream", 1, 1, "loss"]))
    registry.append(encode_frame(["unknown kind", 5]))
    reader = RegistryReader(registry)
    reader.refresh()
    assert reader.runs == {1: {"uid": "a"}}
    reader.forget(1)
    assert reader.runs == {}
    assert reader.run(1) == {"uid": "a"}
    assert reader.stream(1) == Stream(1, "loss")
    assert reader.run(2) is None


@pytest.mark.parametrize("window", [1, 30, 100, 1 << 20])
def test_a_registry_is_read_a_window_at_a_time(
    window: int, registry: FrameFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands at a window's border, an entry larger than one too, and damage."""
    monkeypatch.setattr(module, "_WINDOW", window)
    for number in range(1, 30):
        registry.append(encode_frame(["run", number, {"uid": "x" * number}]))
        registry.append(b"\xa7FRM" + bytes(number))
    reader = RegistryReader(registry)
    reader.refresh()
    assert reader.new_runs() == list(range(1, 30))
    assert reader.new_runs() == []
    registry.append(encode_frame(["run", 30, {"uid": "x"}]))
    reader.refresh()
    assert reader.new_runs() == [30]


@pytest.mark.parametrize(
    "entry", [5, None, [], ["run"], ["run", "1", {}], ["run", 1, []], ["stream", 1, 1], ["stream", 1, 1, 5], {"run": 1}]
)
def test_an_entry_that_nobody_has_written_like_that_is_skipped(entry: object, registry: FrameFile) -> None:
    """A registry is input: its checksum says nothing about who wrote it."""
    registry.append(encode_frame(entry))
    registry.append(encode_frame(["run", 7, {"uid": "a"}]))
    reader = RegistryReader(registry)
    reader.refresh()
    assert reader.runs == {7: {"uid": "a"}}
