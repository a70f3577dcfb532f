"""What a fork does to signals and their handlers, seen from its middle and from behind it. No process is made: the
hooks are called as `os.fork` calls them where the kernel makes none."""

from __future__ import annotations

import _imp
import asyncio
import ctypes
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from asynctrack import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="nothing forks here")

#: seconds after which what a test waits for counts as never coming
LIMIT = 30


class CameError(Exception):
    """What the handler of these tests raises."""


def raises(number: int, frame: FrameType | None) -> None:
    raise CameError


@pytest.fixture(autouse=True)
def handled() -> Iterator[None]:
    """A signal with a handler of the user's own."""
    before = signal.signal(signal.SIGUSR1, raises)
    yield
    signal.signal(signal.SIGUSR1, before)


def mask() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in sorted(signal.valid_signals())]


def fork_in_vain() -> None:
    ctypes.pythonapi.PyOS_BeforeFork()
    ctypes.pythonapi.PyOS_AfterFork_Parent()


@pytest.fixture
def in_its_middle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has a function called in the middle of a fork."""
    under_way = forks._under_way

    def have_called(function: Callable[[], object]) -> None:
        def called() -> frozenset[int]:
            function()
            return under_way()

        monkeypatch.setattr(forks, "_under_way", called)

    return have_called


@pytest.mark.parametrize("blocked", [set(), {signal.SIGUSR1}, {signal.SIGUSR2, signal.SIGINT}])
def test_everything_is_as_it_was_behind_a_fork_that_fails(
    blocked: set[int], in_its_middle: Callable[[Callable[[], object]], None]
) -> None:
    seen: list[set[int]] = []
    in_its_middle(lambda: seen.append(mask()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        as_it_was = mask(), handlers(), gc.isenabled()
        fork_in_vain()
        assert (mask(), handlers(), gc.isenabled()) == as_it_was
        assert not _imp.lock_held()
        assert seen[0] >= blocked | {signal.SIGINT, signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("gets_it", ["the thread that forks", "another"])
def test_a_signal_is_handled_by_whoever_has_forked(
    number: int, gets_it: str, in_its_middle: Callable[[Callable[[], object]], None]
) -> None:
    if gets_it == "another":
        go_on = threading.Event()

        def send() -> None:
            go_on.wait(LIMIT)
            signal.raise_signal(number)

        def have_it_sent() -> None:
            go_on.set()
            thread.join(LIMIT)

        thread = threading.Thread(target=send)
        thread.start()
        in_its_middle(have_it_sent)
    else:
        in_its_middle(lambda: signal.raise_signal(number))
    ctypes.pythonapi.PyOS_BeforeFork()
    with pytest.raises((CameError, KeyboardInterrupt)):
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    assert not _imp.lock_held()
    assert gc.isenabled()
    assert number not in mask()


def test_another_thread_that_forks_blocks_them_for_itself_alone(
    in_its_middle: Callable[[Callable[[], object]], None],
) -> None:
    seen: list[set[int]] = []
    in_its_middle(lambda: seen.append(mask()))
    usual = handlers()

    def forks_in_vain() -> None:
        fork_in_vain()
        seen.append(mask())

    thread = threading.Thread(target=forks_in_vain)
    thread.start()
    thread.join(LIMIT)
    assert handlers() == usual
    assert signal.SIGUSR1 in seen[0]
    assert signal.SIGUSR1 not in seen[1]
    with pytest.raises(CameError):
        signal.raise_signal(signal.SIGUSR1)


def test_a_handler_of_asyncios_is_left_alone(in_its_middle: Callable[[Callable[[], object]], None]) -> None:
    """It raises nothing, and has the kernel go on with interrupted calls, which nobody could ask for afterwards."""
    seen: list[object] = []
    in_its_middle(lambda: seen.append(signal.getsignal(signal.SIGUSR2)))

    async def main() -> object:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, bool)
        try:
            fork_in_vain()
            return signal.getsignal(signal.SIGUSR2)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)

    assert asyncio.run(main()) is seen[0]
    assert seen[0].__module__.startswith("asyncio.")


def test_an_import_is_not_waited_for_once_ctrl_c_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    def another_imports() -> frozenset[int]:
        signal.raise_signal(signal.SIGINT)
        return frozenset({1})

    monkeypatch.setattr(forks, "_under_way", another_imports)
    monkeypatch.setattr(forks, "_PATIENCE", LIMIT * 100)
    monkeypatch.setattr("asynctrack.interrupts._signal.pthread_sigmask", lambda *_: set())  # or it would be pending
    ctypes.pythonapi.PyOS_BeforeFork()
    with pytest.raises(KeyboardInterrupt):
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    assert not _imp.lock_held()
