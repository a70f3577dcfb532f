"""One saved cursor for whatever finishes at about the same time: each is acknowledged by it, or told that it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import anyio
import pytest

from asynctrack.delivery import saving
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.saving import CursorSaver
from asynctrack.delivery.source import Source
from asynctrack.delivery.uploads import Upload
from asynctrack.delivery.work import Work

LANE = cast(Lane, object())


class Spool:
    """Stands for a source: remembers what was saved together."""

    def __init__(self) -> None:
        self.saved: list[list[Work]] = []
        self.error: OSError | None = None

    def done(self, works: Sequence[tuple[Lane, Work]]) -> list[list[Upload]]:
        if self.error is not None:
            raise self.error
        self.saved.append([work for _, work in works])
        return [[cast(Upload, work)] for _, work in works]


def works(count: int) -> list[Work]:
    return [cast(Work, f"work {number}") for number in range(count)]


@pytest.fixture
def spool(monkeypatch: pytest.MonkeyPatch) -> Spool:
    monkeypatch.setattr(saving, "_CHEAP", -1.0)  # however fast this machine is, others are waited for
    return Spool()


async def save_all(saver: CursorSaver, spool: Spool, wanted: list[Work], found: dict[Any, Any]) -> None:
    async def save(work: Work) -> None:
        try:
            found[work] = await saver.save(cast(Source, spool), LANE, work, waits=True)
        except OSError as error:
            found[work] = error

    async with anyio.create_task_group() as tasks:
        for work in wanted:
            tasks.start_soon(save, work)


def test_a_hundred_that_finish_together_cost_one_save(spool: Spool) -> None:
    """And each gets what is its own."""
    found: dict[Any, Any] = {}
    wanted = works(100)
    anyio.run(save_all, CursorSaver(), spool, wanted, found)
    assert [set(each) for each in spool.saved] == [set(wanted)]
    assert found == {work: [work] for work in wanted}


def test_each_is_told_that_the_cursor_cannot_be_written(spool: Spool) -> None:
    spool.error = OSError(28, "No space left on device")
    found: dict[Any, Any] = {}
    wanted = works(10)
    saver = CursorSaver()
    anyio.run(save_all, saver, spool, wanted, found)
    assert set(found) == set(wanted)
    assert all(error is spool.error for error in found.values())
    spool.error = None
    anyio.run(save_all, saver, spool, wanted, found)
    assert found == {work: [work] for work in wanted}


def test_those_who_have_joined_one_that_is_cancelled_do_it_without_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_LONGEST", 60.0)
    first, *others = works(4)
    saver = CursorSaver()
    found: dict[Any, Any] = {}

    async def cancelled(scope: anyio.CancelScope) -> None:
        with scope:
            await saver.save(cast(Source, spool), LANE, first, waits=True)

    async def main() -> None:
        saver._took = 60.0  # the first one would wait so long for others
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled, scope)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(save_all, saver, spool, others, found)
            await anyio.wait_all_tasks_blocked()
            saver._took = 0.0
            scope.cancel()

    anyio.run(main)
    assert [work for saved in spool.saved for work in saved] == others
    assert found == {work: [work] for work in others}


def test_where_there_is_no_loop_nobody_is_waited_for(spool: Spool) -> None:
    found = saving.CursorSaver().save(cast(Source, spool), LANE, works(1)[0], waits=False)
    with pytest.raises(StopIteration) as stopped:
        found.send(None)
    assert stopped.value.value == works(1)
