"""Processes that share a run: when it has ended, and how."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrack.constants import MEMBER_TAG
from asynctrack.delivery.members import NotBegunError, Standing, begin_part, end_of, end_part, is_member, standings_in
from asynctrack.delivery.work import EndOfRun
from asynctrack.stores.base import RunSpec
from asynctrack.stores.io import drive
from asynctrack.stores.memory import MemoryStore

UID = "ab" * 16


def standing(status: str, *, attempt: int = 0, size: int = 2, begun: int = 1, ended: int = 0) -> Standing:
    return Standing(status, attempt, size, begun, ended)


TABLE: dict[str, tuple[dict[str, Standing], tuple[str, int] | None]] = {
    "nobody": ({}, None),
    "one of two goes on": ({"0": standing("FINISHED", ended=5), "1": standing("RUNNING")}, None),
    "one of two has not begun": ({"0": standing("FINISHED", ended=5)}, None),
    "one has failed, and the other may never come": ({"0": standing("FAILED", ended=5)}, ("FAILED", 5)),
    "the worst, and the last": (
        {"0": standing("FINISHED", ended=9), "1": standing("KILLED", ended=7)},
        ("KILLED", 9),
    ),
    "failed is worse than killed": (
        {"0": standing("FAILED", ended=3), "1": standing("KILLED", ended=7)},
        ("FAILED", 7),
    ),
    "an earlier attempt does not count": (
        {"0": standing("FINISHED", attempt=1, begun=8, ended=9), "1": standing("KILLED", ended=7)},
        None,
    ),
    "nor a rank that is no more": (
        {"0": standing("FINISHED", size=1, begun=8, ended=9), "1": standing("RUNNING", size=2)},
        ("FINISHED", 9),
    ),
    "nobody knows how many there are": (
        {"node-1": standing("FINISHED", size=0, ended=4), "node-2": standing("FINISHED", size=0, ended=6)},
        ("FINISHED", 6),
    ),
    "one without a number beside ranks": (
        {"0": standing("FINISHED", size=1, ended=4), "node-2": standing("RUNNING", size=0, begun=0)},
        None,
    ),
}


@pytest.mark.parametrize(("members", "expected"), TABLE.values(), ids=TABLE)
def test_the_run_ends_with_the_last_and_like_the_worst(
    members: dict[str, Standing], expected: tuple[str, int] | None
) -> None:
    assert end_of(members) == expected


@pytest.mark.parametrize("text", ["", "RUNNING", "RUNNING 0 4 1 2", "RUNNING 0 4 1 2 x", "RUNNING 0 4 1 2 0 9"])
def test_a_tag_that_no_member_has_written_is_none(text: str) -> None:
    assert standings_in({f"{MEMBER_TAG}0": text}) == {}
    assert not is_member(RunSpec(UID, tags={f"{MEMBER_TAG}0": text}))


def test_a_standing_is_read_as_it_was_written() -> None:
    written = Standing("KILLED", 1, 4, 10, 20, creates=True)
    assert Standing.read(str(written)) == written


def spec_of(rank: int, begun: int = 1, *, attempt: int = 0, size: int = 2) -> RunSpec:
    tag = str(Standing("RUNNING", attempt, size, begun, 0, creates=rank == 0))
    return RunSpec(UID, start_time=begun, tags={f"{MEMBER_TAG}{rank}": tag})


def begin(store: MemoryStore, spec: RunSpec, *, adopted: bool = False) -> str:
    lane: Any = SimpleNamespace(spec=spec, run_id=None, attached=False)
    source: Any = SimpleNamespace(adopted=adopted)
    return drive(begin_part(store, source, lane, spec)).run_id


def state(store: MemoryStore) -> tuple[str, int | None]:
    info = drive(store.get_run_info(UID))
    return info.status, info.end_time


def test_only_the_first_rank_creates_the_run() -> None:
    store = MemoryStore()
    with pytest.raises(NotBegunError, match=UID):
        begin(store, spec_of(1))
    assert begin(store, spec_of(0)) == begin(store, spec_of(1)) == UID


def test_a_forked_child_of_a_rank_leaves_that_to_its_parent_where_the_store_chooses_ids() -> None:
    store = MemoryStore()
    store.chooses_run_ids = True
    lane: Any = SimpleNamespace(spec=spec_of(0), run_id=None, attached=True)
    with pytest.raises(NotBegunError):
        drive(begin_part(store, SimpleNamespace(adopted=False), lane, lane.spec))  # type: ignore[arg-type]  # a stand-in


def test_what_a_dead_rank_has_left_changes_nothing_for_one_that_was_started_again() -> None:
    store = MemoryStore()
    begin(store, spec_of(0, size=1))
    begin(store, spec_of(0, begun=9, size=1))
    drive(end_part(store, UID, spec_of(0, begun=9, size=1), EndOfRun("FINISHED", 12)))
    begin(store, spec_of(0, size=1), adopted=True)
    drive(end_part(store, UID, spec_of(0, size=1), EndOfRun("KILLED", 8, assumed=True)))
    assert state(store) == ("FINISHED", 12)


def test_an_end_that_was_delivered_before_a_crash_stays_what_it_was() -> None:
    """The end was stored, and the cursor was not: whoever delivers the spool supposes that the program was killed."""
    store = MemoryStore()
    begin(store, spec_of(0, size=1))
    for end in (EndOfRun("FINISHED", 5), EndOfRun("KILLED", 6, assumed=True)):
        drive(end_part(store, UID, spec_of(0, size=1), end))
    assert state(store) == ("FINISHED", 5)


def test_a_rank_that_was_offline_counts_beside_those_that_were_not() -> None:
    """In a job that another launcher has begun anew, which counts its attempts from 0 again. An earlier one had got to
    1; the rank's own begin was never told, as it was delivered after its end: the run stayed RUNNING."""
    store = MemoryStore()
    begin(store, spec_of(0, size=1))
    begin(store, spec_of(0, begun=5, attempt=1, size=1))
    drive(end_part(store, UID, spec_of(0, begun=5, attempt=1, size=1), EndOfRun("FAILED", 6)))
    begin(store, spec_of(0, begun=10))
    drive(end_part(store, UID, spec_of(0, begun=10), EndOfRun("FINISHED", 12)))
    begin(store, spec_of(1, begun=11), adopted=True)
    drive(end_part(store, UID, spec_of(1, begun=11), EndOfRun("FINISHED", 13)))
    assert state(store) == ("FINISHED", 13)


def test_a_run_that_has_ended_goes_on_with_a_rank_that_was_offline() -> None:
    """The others have yet to come; it kept the end of the attempt before."""
    store = MemoryStore()
    begin(store, spec_of(0, size=1))
    drive(end_part(store, UID, spec_of(0, size=1), EndOfRun("FAILED", 6)))
    begin(store, spec_of(0, attempt=1, begun=7), adopted=True)
    drive(end_part(store, UID, spec_of(0, attempt=1, begun=7), EndOfRun("FINISHED", 9)))
    assert state(store) == ("RUNNING", None)
    begin(store, spec_of(1, attempt=1, begun=8), adopted=True)
    drive(end_part(store, UID, spec_of(1, attempt=1, begun=8), EndOfRun("FINISHED", 10)))
    assert state(store) == ("FINISHED", 10)


@pytest.mark.parametrize("first", [0, 1])
def test_attempts_of_an_earlier_launcher_that_are_told_late_do_not_outrank_the_job_begun_anew(first: int) -> None:
    """A rank was offline in them, and is delivered between the begins of the ranks of the new job."""
    store = MemoryStore()
    begin(store, spec_of(0, size=1))
    drive(end_part(store, UID, spec_of(0, size=1), EndOfRun("FINISHED", 2)))
    begin(store, spec_of(first, begun=20))
    late = spec_of(0, attempt=1, begun=10, size=1)
    begin(store, late, adopted=True)
    drive(end_part(store, UID, late, EndOfRun("FINISHED", 12)))
    begin(store, spec_of(1 - first, begun=21))
    for rank, begun in ((first, 20), (1 - first, 21)):
        drive(end_part(store, UID, spec_of(rank, begun=begun), EndOfRun("FINISHED", begun + 10)))
    assert state(store) == ("FINISHED", 31)


#: a rank, and what happens to it
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["begin", "FINISHED", "FAILED", "KILLED", "die", "found"])),
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_however_ranks_begin_end_die_and_begin_again(steps: list[tuple[int, str]]) -> None:
    """Three ranks. While one lives, or has died unnoticed, the run goes on; at the end the last lives count, whoever
    delivers what the earlier ones have left, and when."""
    store = MemoryStore()
    begin(store, first := spec_of(0, begun=1, size=3))
    living: dict[int, RunSpec] = {0: first}
    dead: list[tuple[int, RunSpec]] = []
    last: dict[int, tuple[int, str, int]] = {}
    now = 1

    def end(rank: int, spec: RunSpec, what: EndOfRun) -> None:
        drive(end_part(store, UID, spec, what))
        if spec.start_time >= last.get(rank, (0, "", 0))[0]:
            last[rank] = spec.start_time, what.status, what.end_time

    def find(rank: int, spec: RunSpec) -> None:
        begin(store, spec, adopted=True)
        end(rank, spec, EndOfRun("KILLED", spec.start_time, assumed=True))

    for rank, what in steps:
        now += 1
        if what == "begin" and rank not in living:
            living[rank] = spec_of(rank, begun=now, size=3)
            begin(store, living[rank])
        elif what == "die" and rank in living:
            dead.append((rank, living.pop(rank)))
        elif what == "found" and dead:
            find(*dead.pop(rank % len(dead)))
        elif what in ("FINISHED", "FAILED", "KILLED") and rank in living:
            end(rank, living.pop(rank), EndOfRun(what, now))
        if living:
            assert state(store)[0] == "RUNNING"
    for rank in range(3):
        if rank not in living and rank not in last and all(rank != other for other, _ in dead):
            living[rank] = spec_of(rank, begun=now, size=3)
            begin(store, living[rank])
    while dead:
        find(*dead.pop())
    for rank, spec in living.items():
        now += 1
        end(rank, spec, EndOfRun("FINISHED", now))
    worst = next(status for status in ("FAILED", "KILLED", "FINISHED") if status in {one[1] for one in last.values()})
    assert state(store) == (worst, max(one[2] for one in last.values()))
