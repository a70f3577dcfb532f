"""When a failed delivery is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.delivery.retry import Backoff, retry_delay
from asynctrack.errors import AuthenticationError, UnavailableError

DOWN = UnavailableError("down")
LOCKED_OUT = AuthenticationError("401")


@pytest.mark.parametrize(("failing", "longest"), [(0, 0.5), (0.4, 0.5), (2, 2), (29, 29), (31, 30), (10_000, 30)])
def test_the_wait_is_no_longer_than_the_trouble_has_been_nor_than_half_a_minute(failing: float, longest: float) -> None:
    """After an outage everybody is back within its time again; however long it is, the store is asked."""
    assert retry_delay(DOWN, failing, 1.0) == longest


@pytest.mark.parametrize("failing", [0, 7, 100])
def test_the_wait_is_anywhere_below_that_but_never_nothing(failing: float) -> None:
    """Full jitter spreads the clients of a server that comes back; a tenth is always waited."""
    longest = retry_delay(DOWN, failing, 1.0)
    assert retry_delay(DOWN, failing, 0.0) == pytest.approx(longest / 10)
    assert retry_delay(DOWN, failing, 0.5) == pytest.approx(longest * 0.55)


@pytest.mark.parametrize(("failing", "longest"), [(0, 5), (10, 10), (80, 80), (130, 120), (10_000, 120)])
def test_what_the_user_has_to_mend_is_tried_more_slowly(failing: float, longest: float) -> None:
    """Credentials do not mend themselves, and too many attempts lock an account."""
    assert retry_delay(LOCKED_OUT, failing, 1.0) == longest


@pytest.mark.parametrize("failing", [0, 4, 50])
def test_what_the_server_asks_for_is_never_undercut(failing: float) -> None:
    """Retry-After; but it does not shorten a wait either."""
    assert retry_delay(UnavailableError("429", retry_after=300), failing, 0.0) == 300
    asked = UnavailableError("429", retry_after=0.001)
    assert retry_delay(asked, failing, 1.0) == retry_delay(DOWN, failing, 1.0)


def test_a_long_outage_costs_few_attempts() -> None:
    """An hour: some twenty while the wait grows, and then four a minute."""
    failing, attempts = 0.0, 0
    while failing < 3600:
        failing += retry_delay(DOWN, failing, 0.5)
        attempts += 1
    assert attempts < 240


@given(st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(-10, 1e5), st.floats(0, 1), st.booleans())))
def test_a_retry_always_lies_in_the_future(failures: list[tuple[float, float | None, float, bool]]) -> None:
    """Whatever failed before, however long ago, and whatever the store asks for."""
    backoff, now = Backoff(), 0.0
    for passed, asked, random, held in failures:
        now += passed
        error = AuthenticationError("401") if held else UnavailableError("503", retry_after=asked)
        backoff.put_off(error, begun=now, now=now, random=random)
        assert backoff.waits(now)
        assert backoff.retry_at >= now + (error.retry_after or 0.0)
        backoff.bring_forward()
        assert backoff.retry_at >= now + (error.retry_after or 0.0)
