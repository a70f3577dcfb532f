"""What fails for one spool is said once and tried again later, and is nobody else's trouble."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from asynctrack.delivery.supervision import Supervision


class Unit:
    """Something that things are done to."""


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(error: Exception) -> int:
    raise error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyError("a bug"), MemoryError()])
def test_a_trouble_is_said_once_and_tried_again_after_growing_pauses(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A system's error as it is, a bug with its traceback; nothing is raised."""
    clock = Time()
    supervision, unit, tried = Supervision(clock), Unit(), list[float]()

    def attempt() -> int:
        tried.append(clock.now)
        raise error

    for _ in range(6000):
        supervision.attempt(unit, "cannot read it", attempt, 0)
        assert supervision.next_retry() > clock.now
        clock.now += 0.1
    pauses = [after - before for before, after in pairwise(tried)]
    assert 15 < len(tried) < 200, "in ten minutes"
    assert max(pauses) > 15
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert bool(caplog.records[0].exc_info) is not isinstance(error, OSError)
    assert "cannot read it" in str(supervision.in_trouble(unit))


def test_what_is_well_again_is_forgotten_and_said_anew() -> None:
    clock = Time()
    supervision, unit, other = Supervision(clock), Unit(), Unit()
    assert supervision.attempt(unit, "reading", lambda: fail(OSError(5, "EIO")), 7) == 7
    assert supervision.attempt(unit, "reading", lambda: 1, 7) == 7, "too early"
    assert supervision.attempt(unit, "writing", lambda: 1, 7) == 1, "another thing"
    assert supervision.attempt(other, "reading", lambda: 1, 7) == 1, "another spool"
    clock.now += 1.0
    assert supervision.attempt(unit, "reading", lambda: 1, 7) == 1
    assert supervision.in_trouble(unit) is None
    assert supervision.next_retry() == float("inf")
