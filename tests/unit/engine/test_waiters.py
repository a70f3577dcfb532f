"""Who waits is answered in time, and costs nothing meanwhile."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from asynctrack.delivery.receipts import Receipt
from asynctrack.engine.waiters import Request, Waiters
from asynctrack.errors import AsynctrackError


def asked(waiters: Waiters, run: int, mark: int | None) -> Request:
    receipt: Receipt[Any] = Receipt()
    request = Request(run, mark, receipt)
    waiters.ask(request)
    return request


def resolve(request: Request) -> bool:
    request.receipt.resolve(None)
    return True


def test_a_request_is_not_looked_at_before_its_mark_is_read() -> None:
    """However many there are: nobody walks them."""
    waiters, looked_at = Waiters(), []
    requests = [asked(waiters, run, mark) for run, mark in ((1, 50), (2, 30), (3, 40))]
    waiters.take()

    def note(request: Request) -> bool:
        looked_at.append(request)
        return resolve(request)

    waiters.answer(39, None, note)
    assert looked_at == [requests[1]]
    assert [request.receipt.done for request in requests] == [False, True, False]


def test_what_is_asked_during_a_look_waits_for_the_next_one() -> None:
    """The look may have passed what was logged before the asking."""
    waiters = Waiters()
    waiters.take()
    request = asked(waiters, 1, 10)
    waiters.answer(100, None, resolve)
    assert not request.receipt.done
    waiters.take()
    waiters.answer(100, None, resolve)
    assert request.receipt.done


def test_a_request_that_cannot_be_answered_yet_is_looked_at_when_its_run_has_moved() -> None:
    """A run's artifacts, whose number is its own below zero, are the run's."""
    waiters, looked_at = Waiters(), []

    def not_yet(request: Request) -> bool:
        looked_at.append(request.run)
        return False

    asked(waiters, 1, 10), asked(waiters, -2, 10), asked(waiters, 3, None)
    waiters.take()
    waiters.answer(10, (), not_yet)
    assert sorted(looked_at) == [-2, 1, 3]
    looked_at.clear()
    waiters.answer(10, (), not_yet)
    assert looked_at == []
    waiters.answer(10, (2, -3), not_yet)
    assert sorted(looked_at) == [-2, 3]
    assert waiters


def test_nobody_waits_once_all_are_answered() -> None:
    """And the engine may rest again."""
    waiters = Waiters()
    assert not waiters
    for run in range(1, 4):
        asked(waiters, run, run)
    assert waiters
    waiters.take()
    waiters.answer(3, None, resolve)
    assert not waiters


def test_whoever_waits_for_a_dead_engine_is_told() -> None:
    """Whether its request was taken in, read, or neither."""
    waiters = Waiters()
    requests = [asked(waiters, 1, 5), asked(waiters, 1, None)]
    waiters.take()
    requests.append(asked(waiters, 2, 50))
    waiters.fail(AsynctrackError("it has died"))
    for request in requests:
        with pytest.raises(AsynctrackError, match="it has died"):
            request.receipt.result()
    assert not waiters


def test_several_who_ask_a_dead_engine_at_once_are_all_answered() -> None:
    """Each answers for all, in the middle of another's answering: nobody takes what it does not answer."""
    waiters = Waiters()
    answered: list[Request] = []

    class Raced(deque[Request]):
        """Whenever somebody has seen that there is something, or has taken it, another one answers all the rest."""

        def __bool__(self) -> bool:
            found = len(self) > 0
            waiters.answer_all(answered.append)
            return found

        def popleft(self) -> Request:
            request = super().popleft()
            if request.run < 5:
                asked(waiters, request.run + 1, None)
            waiters.answer_all(answered.append)
            return request

    waiters._new = Raced()
    asked(waiters, 1, None)
    waiters.answer_all(answered.append)
    assert sorted(request.run for request in answered) == [1, 2, 3, 4, 5]
