"""When a failed delivery is tried again."""

from __future__ import annotations

import pytest

from asynctrack.engine.retry import retry_delay
from asynctrack.errors import AuthenticationError, UnavailableError

DOWN = UnavailableError("down")
LOCKED_OUT = AuthenticationError("401")


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (8, 30), (10_000, 30)])
def test_the_wait_doubles_up_to_half_a_minute(attempt: int, longest: float) -> None:
    """However long the store is away, it is never asked less often than that."""
    assert retry_delay(DOWN, attempt, 1.0) == longest


@pytest.mark.parametrize("attempt", [1, 5, 100])
def test_the_wait_is_anywhere_below_that_but_never_nothing(attempt: int) -> None:
    """Full jitter spreads the clients of a server that comes back; a tenth is always waited."""
    longest = retry_delay(DOWN, attempt, 1.0)
    assert retry_delay(DOWN, attempt, 0.0) == pytest.approx(longest / 10)
    assert retry_delay(DOWN, attempt, 0.5) == pytest.approx(longest * 0.55)


@pytest.mark.parametrize(("attempt", "longest"), [(1, 5), (2, 10), (5, 80), (6, 120), (1000, 120)])
def test_what_the_user_has_to_mend_is_tried_more_slowly(attempt: int, longest: float) -> None:
    """Credentials do not mend themselves, and too many attempts lock an account."""
    assert retry_delay(LOCKED_OUT, attempt, 1.0) == longest


@pytest.mark.parametrize("attempt", [1, 4, 50])
def test_what_the_server_asks_for_is_never_undercut(attempt: int) -> None:
    """Retry-After; but it does not shorten a wait either."""
    assert retry_delay(UnavailableError("429", retry_after=300), attempt, 0.0) == 300
    asked = UnavailableError("429", retry_after=0.001)
    assert retry_delay(asked, attempt, 1.0) == retry_delay(DOWN, attempt, 1.0)
