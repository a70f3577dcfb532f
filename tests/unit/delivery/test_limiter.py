"""How many requests a server is given at once, simulated: what it answers, and in what time."""

from __future__ import annotations

from random import Random

import pytest

from asynctrack.delivery.limiter import Limiter
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


def test_a_server_that_writes_for_one_at_a_time_is_given_one_mostly() -> None:
    """Two would only wait for one another, and MLflow on SQLite gets slower by that."""
    limits = settle(Limiter(16), 0.1, 1, requests=2000)
    assert sum(limit == 1 for limit in limits) > 0.9 * len(limits)


def test_what_cannot_pay_whatever_comes_is_over_at_once() -> None:
    """Two requests that took twice as long say enough; when one was as quick as ever, more are waited for."""
    for second, most in (0.2, 2), (0.1, 4):
        limiter = Limiter(16)
        while limiter.limit == 1:
            limiter.succeeded(1000, 0.1, 1)
        asked = 0
        while limiter.limit == 2:
            limiter.succeeded(1000, (0.2, second, 0.2, 0.2)[max(asked - 2, 0) % 4], 2)
            asked += 1
        assert limiter.limit == 1
        assert asked - 2 == most, "two had begun before"


@pytest.mark.parametrize("seed", range(10))
def test_single_slow_answers_do_not_hide_that_more_at_once_pays(seed: int) -> None:
    """One in ten takes three times as long, as servers' answers do."""
    random, limiter, limits = Random(seed), Limiter(16), []
    for _ in range(4000):
        limits.append(limiter.limit)
        slow = 3.0 if random.random() < 0.1 else random.uniform(0.9, 1.2)
        limiter.succeeded(1000, 0.1 * max(1.0, limiter.limit / 4) * slow, limiter.limit)
    assert sum(limit >= 3 for limit in limits[400:]) > 0.7 * len(limits[400:])


def test_a_server_that_does_less_when_it_is_asked_for_more_is_given_less_again() -> None:
    """It took two at once well, but now they lock one another out."""
    limiter = Limiter(16)
    settle(limiter, 0.1, 2)
    limits = []
    for _ in range(1000):
        limits.append(limiter.limit)
        limiter.succeeded(1000, 0.1 if limiter.limit == 1 else 0.15 * limiter.limit, limiter.limit)
    assert sum(limit == 1 for limit in limits) > 0.7 * len(limits)
