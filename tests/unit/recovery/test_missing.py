"""Runs that whoever was to create them never will: created by order, and once, however many give it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import anyio
import pytest

from asynctrack.constants import UID_TAG
from asynctrack.delivery.members import Standing
from asynctrack.entities import Run, RunData, RunInfo
from asynctrack.recovery import missing
from asynctrack.recovery.missing import create_missing_runs
from asynctrack.stores.base import AbstractStore, RunSpec
from tests.journals import new_journal, spool_path, uid


class Server:
    """A store that gives runs ids of its own. All who look for a run have looked before the first creates it."""

    uri = "server"
    chooses_run_ids = True

    def __init__(self, ids: str, together: int) -> None:
        self._ids = iter(ids)
        self._together = together
        self._all_have_looked: anyio.Event | None = None  # the oldest anyio makes one on a loop only
        self.runs: dict[str, Run] = {}

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        found = min(self.runs, default=None)
        self._all_have_looked = event = self._all_have_looked or anyio.Event()
        self._together -= 1
        if self._together == 0:
            event.set()
        await event.wait()
        return None if found is None else self.runs[found].info

    async def create_run(self, spec: RunSpec) -> RunInfo:
        info = RunInfo(next(self._ids), "0", spec.user_id, "RUNNING", spec.start_time, None, "active")
        self.runs[info.run_id] = Run(info, RunData(tags={**spec.tags, UID_TAG: spec.uid}))
        return info

    async def get_run(self, run_id: str) -> Run:
        return self.runs[run_id]

    async def delete_run(self, run_id: str) -> None:
        del self.runs[run_id]


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The spools of two ranks, each in a folder of its own."""
    monkeypatch.setattr(missing, "_SETTLES", 0.01)
    spools = []
    for rank in (1, 2):
        journal = new_journal(tmp_path / str(rank))
        tag = {f"mlflow.asynctrack.rank.{rank}": str(Standing("RUNNING", 0, 3, rank))}
        journal.register_run({**RunSpec(uid(1), start_time=rank, tags=tag)._asdict(), "attached": False})
        spools.append(spool_path(journal))
        journal.close()
    return spools


def order_on_each(hosts: list[Path], server: Server) -> None:
    async def order() -> None:
        async with anyio.create_task_group() as tasks:
            for spool in hosts:
                homes, store = [str(spool.parent)], cast("AbstractStore", server)
                tasks.start_soon(create_missing_runs, store, [str(spool)], homes, None, anyio.sleep)

    anyio.run(order)


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_orders_on_two_hosts_at_once_make_one_run(ids: str, hosts: list[Path]) -> None:
    """Neither sees the other's spools, and for a moment both see that there is no run."""
    server = Server(ids, together=2)
    order_on_each(hosts, server)
    assert list(server.runs) == ["a"], "which is the one that everybody finds"


@pytest.mark.parametrize("what", ["a metric", "a rank's tag"])
def test_one_that_somebody_uses_already_stays(what: str, hosts: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """It may be a living rank, which has found it while it was the only one."""

    class Used(Server):
        async def create_run(self, spec: RunSpec) -> RunInfo:
            info = await super().create_run(spec)
            data = self.runs[info.run_id].data
            if what == "a metric":
                data.metrics["loss"] = 0.5
            else:
                data.tags["mlflow.asynctrack.rank.7"] = "RUNNING 0 3 7 0 0"
            return info

    server = Used("ab", together=2)
    order_on_each(hosts, server)
    assert sorted(server.runs) == ["a", "b"]
    assert "run a was created twice, also as b, which is in use" in caplog.text
