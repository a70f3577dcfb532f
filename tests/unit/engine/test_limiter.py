"""How many requests a server is given at once, simulated: what it answers, and in what time."""

from __future__ import annotations

import pytest

from asynctrack.engine.limiter import Limiter
from asynctrack.errors import RefusedError, ServerFaultError, StoreError, UnavailableError


def settle(limiter: Limiter, work: float, workers: int, away: float = 0.0, requests: int = 400) -> list[int]:
    """What a server meets that does ``workers`` requests at once, each in ``work`` seconds, and is ``away`` seconds
    off: the limits of the later half."""
    limits = []
    for _ in range(requests):
        limits.append(limiter.limit)
        limiter.succeeded(1000, away + work * max(1.0, limiter.limit / workers), limiter.limit)
    return limits[requests // 2 :]


def test_it_begins_with_one_request() -> None:
    """Nothing is known of the server yet."""
    assert Limiter(16).limit == 1


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_it_finds_a_limit_at_which_every_worker_is_busy_and_few_requests_wait(workers: int) -> None:
    """Whatever the number of workers, and however long it goes on."""
    limits = settle(Limiter(16), 0.1, workers, requests=20_000)
    assert max(limits) <= workers + 3
    assert sum(limit >= workers for limit in limits) > 0.94 * len(limits), "now and then it measures with less"


def test_a_distant_server_is_given_more_at_once() -> None:
    """It would be idle while answers travel."""
    near, far = settle(Limiter(16), 0.02, 1), settle(Limiter(16), 0.02, 1, away=0.2)
    assert min(far) > max(near)


def test_it_never_gives_more_than_the_most() -> None:
    """Even to a server that does everything at once."""
    assert set(settle(Limiter(5), 0.01, 1000)) == {5}


def test_overload_halves_it_down_to_one() -> None:
    """429, 503, timeouts and lost connections say that it is too much; so do credentials that nobody knows."""
    limiter = Limiter(16)
    settle(limiter, 0.01, 1000)
    seen = []
    for _ in range(6):
        limiter.failed(UnavailableError("429"))
        seen.append(limiter.limit)
    assert seen == [8, 4, 2, 1, 1, 1]


@pytest.mark.parametrize("error", [RefusedError("400"), ServerFaultError("500")])
def test_a_poison_event_is_no_overload(error: StoreError) -> None:
    """It would fail as well alone."""
    limiter = Limiter(16)
    settle(limiter, 0.01, 1000)
    limiter.failed(error)
    assert limiter.limit == 16


def test_it_rises_only_while_it_is_what_holds_requests_back() -> None:
    """A program that logs little says nothing about what the server could take."""
    limiter = Limiter(16)
    for _ in range(100):
        limiter.succeeded(10, 0.01, in_flight=0)
    assert limiter.limit == 1


def test_a_server_that_has_become_slower_is_believed_after_a_while() -> None:
    """Its tables have grown: the fastest time of long ago does not hold it down to one for ever."""
    limiter = Limiter(16)
    settle(limiter, 0.05, 4)
    limits = settle(limiter, 0.2, 4, requests=4000)
    assert sum(limit >= 4 for limit in limits) > 0.94 * len(limits)


def test_small_and_large_batches_are_not_compared() -> None:
    """A batch of a thousand takes longer than one of ten, also where nobody waits."""
    limiter = Limiter(16)
    for _ in range(200):
        limiter.succeeded(10, 0.001, limiter.limit)
        limiter.succeeded(1000, 0.1, limiter.limit)
    assert limiter.limit == 16
