"""Each time another run comes first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from asynctrack.delivery.lane import Lane
from asynctrack.delivery.turns import InFlight, Waiting, in_turn
from asynctrack.delivery.work import Part, Work
from asynctrack.stores.base import RunSpec

if TYPE_CHECKING:
    from asynctrack.delivery.source import Source


def test_every_run_comes_first_in_its_turn_and_none_is_left_out() -> None:
    sources = [cast("Source", SimpleNamespace(active=list(names))) for names in ("ab", "", "cde")]
    orders = ["".join(map(str, (lane for _, lane in in_turn(sources, turn)))) for turn in range(5)]
    assert orders == ["abcde", "bcdea", "cdeab", "deabc", "eabcd"]
    assert {lane: source for source, lane in in_turn(sources, 7)} == {
        lane: source for source in sources for lane in source.active
    }


def test_of_no_runs_none_comes() -> None:
    assert list(in_turn([], 3)) == []


def test_the_next_retry_is_that_of_the_first_lane_that_still_waits() -> None:
    waiting, lanes = Waiting(), [Lane(number, RunSpec(uid=f"u{number}"), attached=False) for number in range(1, 5)]
    for lane in lanes:
        lane.add(Part(0, 1))
        waiting.add(lane)
    lanes[0].backoff.retry_at, lanes[1].disk.retry_at, lanes[2].backoff.retry_at = 12.0, 11.0, 9.0
    assert waiting.next_retry(now=10.0) == 11.0, "the third's time has come, and the fourth waits for nothing"
    lanes[1].disk.bring_forward()
    assert waiting.next_retry(now=10.0) == 12.0
    assert waiting.next_retry(now=13.0) == float("inf")
    lanes[3].backoff.retry_at = 15.0
    waiting.add(lanes[3])
    assert waiting.next_retry(now=13.0) == 15.0, "it has failed again"


def test_a_lane_that_waits_with_nothing_to_send_wakes_nobody() -> None:
    waiting, lane = Waiting(), Lane(1, RunSpec(uid="u"), attached=False)
    lane.backoff.retry_at = 12.0
    waiting.add(lane)
    assert waiting.next_retry(now=10.0) == float("inf")
    lane.add(Part(0, 1))
    assert waiting.next_retry(now=10.0) == 12.0


def test_only_works_that_take_long_are_looked_at() -> None:
    flight, lanes = InFlight(), [Lane(number, RunSpec(uid=f"u{number}"), attached=False) for number in range(3)]
    works = [Work(Part(0, 1)) for _ in range(5)]
    for work, begun, lane in zip(works, (1.0, 2.0, 2.0, 9.0, 9.0), (0, 1, 0, 1, 2), strict=True):
        work.begun = begun
        flight.add(lanes[lane], work)
    assert flight.stuck(now=8.0) == {lanes[0]: 2, lanes[1]: 1}
    flight.gone(works[0])
    assert flight.stuck(now=8.0) == {lanes[1]: 1, lanes[0]: 1}
    works[1].begun = 10.0  # it is begun again
    flight.gone(works[1])
    flight.add(lanes[1], works[1])
    assert flight.stuck(now=14.5) == {lanes[0]: 1, lanes[1]: 1, lanes[2]: 1}
    flight.clear()
    assert flight.stuck(now=20.0) == {}
