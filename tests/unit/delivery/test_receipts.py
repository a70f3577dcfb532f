"""A promise of the engine: settled once, waited for by anybody."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import anyio
import pytest

from asynctrack.delivery.receipts import Receipt

LIMIT = 30

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def run(backend: str, main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main, backend=backend)


def later(receipt: Receipt[int], value: int) -> threading.Thread:
    """Another thread that resolves the receipt, as the engine does."""
    thread = threading.Thread(target=receipt.resolve, args=(value,))
    thread.start()
    return thread


def test_a_resolved_receipt_gives_its_value() -> None:
    """And is done; before that it is not, and waiting for it ends in time."""
    receipt: Receipt[int] = Receipt()
    assert [receipt.done, receipt.wait(0.01)] == [False, False]
    receipt.resolve(7)
    assert [receipt.done, receipt.wait(0)] == [True, True]
    assert receipt.result() == 7


def test_a_failed_receipt_raises_in_every_waiter() -> None:
    """Waiting itself does not: result() says why."""
    receipt: Receipt[int] = Receipt()
    receipt.fail(OSError("the engine has died"))
    for _ in range(2):
        assert receipt.wait()
        with pytest.raises(OSError, match="the engine has died"):
            receipt.result()


def test_a_receipt_is_settled_once() -> None:
    """Whatever comes second changes nothing."""
    first: Receipt[int] = Receipt()
    first.resolve(1)
    first.resolve(2)
    first.fail(OSError())
    assert first.result() == 1
    second: Receipt[int] = Receipt()
    second.fail(OSError("first"))
    second.resolve(3)
    with pytest.raises(OSError, match="first"):
        second.result()


def test_many_threads_wait_for_one_receipt() -> None:
    """All of them get the value."""
    receipt: Receipt[int] = Receipt()
    found: list[int] = []

    def wait() -> None:
        assert receipt.wait(LIMIT)
        found.append(receipt.result())

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    receipt.resolve(7)
    for thread in threads:
        thread.join()
    assert found == [7] * 8


@BACKENDS
def test_tasks_wait_without_blocking_their_loop(backend: str) -> None:
    """On asyncio and trio; the engine's thread wakes them."""
    receipt: Receipt[int] = Receipt()
    found: list[int] = []

    async def wait() -> None:
        await receipt.wait_async()
        found.append(receipt.result())

    async def main() -> None:
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                assert found == []
                thread = later(receipt, 7)
            thread.join()

    run(backend, main)
    assert found == [7] * 5


@BACKENDS
def test_waiting_for_what_is_settled_already_returns(backend: str) -> None:
    """There is nobody left to wake the task."""
    receipt: Receipt[int] = Receipt()
    receipt.resolve(7)

    async def main() -> None:
        with anyio.fail_after(LIMIT):
            await receipt.wait_async()

    run(backend, main)
    assert receipt.result() == 7


@BACKENDS
def test_a_wait_can_be_cancelled(backend: str) -> None:
    """The receipt does not mind, and the others who wait for it get it."""
    receipt: Receipt[int] = Receipt()

    async def main() -> bool:
        with anyio.move_on_after(0.01) as scope:
            await receipt.wait_async()
        with anyio.fail_after(LIMIT):
            thread = later(receipt, 7)
            await receipt.wait_async()
        thread.join()
        return scope.cancelled_caught

    assert run(backend, main) is True
    assert receipt.result() == 7


@BACKENDS
def test_a_loop_that_has_ended_does_not_hinder_the_others(backend: str) -> None:
    """Its task was given up; the engine's thread, which settles the receipt later, does not fail for it."""
    receipt: Receipt[int] = Receipt()

    async def give_up() -> None:
        with anyio.move_on_after(0.01):
            await receipt.wait_async()

    run(backend, give_up)
    woken: list[int] = []
    receipt.when_done(lambda: woken.append(1))
    receipt.resolve(7)
    assert woken == [1]
    assert receipt.result() == 7


def test_two_loops_wait_for_one_receipt() -> None:
    """Each in a thread of its own."""
    receipt: Receipt[int] = Receipt()
    found: list[int] = []

    async def main() -> None:
        await asyncio.wait_for(receipt.wait_async(), LIMIT)
        found.append(receipt.result())

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    receipt.resolve(7)
    for thread in threads:
        thread.join()
    assert found == [7, 7]


def test_the_engine_is_asked_once_and_only_when_somebody_wants_to_know() -> None:
    """A receipt that nobody looks at costs nothing."""
    asked: list[Receipt[int]] = []
    receipt: Receipt[int] = Receipt(asked.append)
    assert asked == []
    assert not receipt.done
    assert not receipt.wait(0.01)
    assert asked == [receipt]
    receipt.resolve(7)
    assert receipt.done


def test_waiting_again_and_again_leaves_nothing_behind() -> None:
    """A progress line asks ten times a second, for as long as it takes."""
    receipt: Receipt[int] = Receipt()
    for _ in range(10):
        assert not receipt.wait(0.001)
    assert receipt._callbacks == []


def test_a_signal_handler_may_wait_for_the_receipt_that_its_thread_waits_for() -> None:
    """Wherever it interrupts the waiting: there is no lock that the interrupted thread holds."""
    receipt: Receipt[int] = Receipt()
    handled = 0

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal handled
        receipt.wait(0.0001)
        receipt.resolve(7)
        handled += 1

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while handled < 200:
            receipt = Receipt()
            assert receipt.wait(LIMIT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
