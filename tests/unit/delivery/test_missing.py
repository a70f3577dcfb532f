"""Events of a run that the store does not know yet wait for whoever brings it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asynctrack.constants import MEMBER_TAG, PARENT_RUN_TAG, UID_TAG
from asynctrack.delivery import missing as module
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.members import Standing
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Source
from asynctrack.entities import RunInfo
from asynctrack.errors import NotFoundError
from asynctrack.journal.spool import Spool
from asynctrack.journal.writer import Journal
from asynctrack.settings import Settings
from asynctrack.stores.base import AbstractStore, RunSpec
from asynctrack.stores.file import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.memory import MemoryStore
from tests.journals import die, journal_in, uid


class Server(MemoryStore):
    """Gives ids of its own, and keeps a run's uid in a tag, as MLflow's server does."""

    chooses_run_ids = True
    uid_tag = UID_TAG

    async def create_run(self, spec: RunSpec) -> RunInfo:
        if spec.run_id is not None:
            return await super().create_run(spec)
        tags = {**spec.tags, self.uid_tag: spec.uid}
        return await super().create_run(spec._replace(uid=f"server-{spec.uid}", tags=tags))

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        return await super().find_run(spec._replace(uid=f"server-{spec.uid}"))


class Home:
    """A folder of spools that programs have left, and who delivers them."""

    def __init__(self, folder: Path, store: AbstractStore) -> None:
        self.folder = folder
        self.store = store
        self.pump = Pump(store, Settings())

    def left(self, name: str, *, run: int, ends: int = 0, status: str = "FINISHED", **spec: object) -> Path:
        """The spool of a dead program that has logged a point to one run, and maybe ended it at ``ends``."""
        with journal_in(self.folder / "made") as journal:
            number = self._log(journal, run, **spec)
            if ends:
                journal.write_frame(["end", number, status, ends])
            return die(journal, self.folder / "left" / name)

    def _log(self, journal: Journal, run: int, **spec: object) -> int:
        attached = bool(spec.pop("attached", False))
        entry = {**RunSpec(uid=uid(run))._replace(**spec)._asdict(), "attached": attached}  # type: ignore[arg-type]
        number = journal.register_run(entry)
        if not attached:
            journal.write_frame(["start", number])
        stream = journal.register_stream(number, "m")
        assert stream is not None
        assert journal.write(1, run, float(run), stream)
        return number

    def take(self, path: Path) -> Source:
        spool = Spool.adopt(str(path))
        assert spool is not None
        source = self.pump.add(spool)
        assert source is not None
        return source

    def deliver(self) -> None:
        for _ in range(20):
            self.pump.load()
            for source in self.pump.sources:
                for lane in source.active:
                    lane.backoff.retry_at = 0.0
            for due in list(self.pump.due()):
                drive(self.pump.step(*due))

    def points(self, run_id: str) -> set[float]:
        return {point.value for point in drive(self.store.get_metric_history(run_id, "m"))}


class ServerOf01(Server):
    """Its runs were created by asynctrack 0.1."""

    uid_tag = "asynctrack.uid"


@pytest.fixture(params=[MemoryStore, Server, ServerOf01])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, request.param())
    yield home
    for source in list(home.pump.sources):
        home.pump.let_go(source)


def id_of(home: Home, run: int) -> str:
    return f"server-{uid(run)}" if home.store.chooses_run_ids else uid(run)


@pytest.mark.parametrize("attached", [True, False])
def test_events_wait_for_a_start_that_lies_in_another_spool(home: Home, attached: bool) -> None:
    """A worker's, or a later program's, that was given the run's uid as its id: none is refused."""
    creator = home.left("a", run=1, ends=2)
    follower = home.take(home.left("b", run=2, run_id=uid(1), attached=attached))
    home.deliver()
    assert str(creator) in str(home.pump.trouble_of(follower))
    assert follower.rejected == 0
    home.take(creator)
    home.deliver()
    assert home.points(id_of(home, 1)) == {1.0, 2.0}
    assert home.pump.sources == []


@pytest.mark.parametrize("back", [False, True], ids=["gone", "back by now"])
def test_a_rank_s_end_is_not_refused_where_its_store_was_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, back: bool
) -> None:
    """A rank's end asks for the tags of the run first."""
    root, away = tmp_path / "mlruns", tmp_path / "away"
    home = Home(tmp_path, FileStore(root, InlineIO()))
    tag = str(Standing("RUNNING", 0, 1, 1, 0, creates=True))
    left = home.left("rank", run=1, ends=2, start_time=1, tags={f"{MEMBER_TAG}0": tag})
    really_read, asked = FileStore.get_tags, 0

    async def read(self: FileStore, run_id: str) -> dict[str, str]:
        nonlocal asked
        asked += 1
        if asked > 1:
            return await really_read(self, run_id)
        root.rename(away)
        try:
            return await really_read(self, run_id)
        finally:
            if back:
                away.rename(root)

    monkeypatch.setattr(FileStore, "get_tags", read)
    source = home.take(left)
    home.deliver()
    assert not (left / "rejected.jsonl").exists()
    if not back:
        away.rename(root)
        home.deliver()
    assert asked > 1
    assert source.rejected == 0
    assert drive(home.store.get_run_info(uid(1))).status == "FINISHED"
    assert not left.exists()


@pytest.mark.parametrize("attached", [True, False])
def test_they_find_a_run_that_another_consumer_has_created_meanwhile(home: Home, attached: bool) -> None:
    """By its uid, where the store has given it an id of its own."""
    home.take(home.left("a", run=1, ends=2))
    home.deliver()
    assert home.pump.sources == []
    home.take(home.left("b", run=2, run_id=uid(1), attached=attached, ends=not attached))
    home.deliver()
    assert home.points(id_of(home, 1)) == {1.0, 2.0}
    assert home.pump.sources == []


@pytest.mark.parametrize("store", [MemoryStore(), Server()])
def test_a_run_that_is_created_between_the_request_and_the_look_at_the_spools_is_found(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start waits no more, and so nothing is waited for; but nothing is refused either."""

    def created_just_now(_source: object, name: str) -> None:
        drive(store.create_run(RunSpec(uid=name)))

    monkeypatch.setattr(module, "start_waits_in", created_just_now)
    lane = Lane(1, RunSpec(uid(2), run_id=uid(1)), attached=True)
    source = cast("Source", SimpleNamespace(adopted=False, followed=False))
    assert drive(module.look_for(store, source, lane, NotFoundError("no run"))) is None
    assert drive(store.get_run_info(str(lane.run_id))).run_id == lane.run_id


def test_a_neighbour_that_cannot_be_read_now_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no file descriptors at the moment. One that somebody has just deleted is one."""
    with journal_in(tmp_path):
        assert module.start_waits_below(str(tmp_path), uid(1)) is None
        for number in (errno.EMFILE, errno.EIO):
            monkeypatch.setattr(module, "owner_of", raises(OSError(number, "as told")))
            with pytest.raises(OSError, match="as told"):
                module.start_waits_below(str(tmp_path), uid(1))
        monkeypatch.setattr(module, "owner_of", raises(FileNotFoundError(errno.ENOENT, "gone")))
        assert module.start_waits_below(str(tmp_path), uid(1)) is None


def raises(error: Exception) -> Callable[..., Any]:
    def function(*_: object) -> None:
        raise error

    return function


def test_what_a_dead_program_has_logged_to_a_run_that_is_nowhere_to_be_seen_waits(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Its start may lie on another machine: the user is told once, nothing is refused, and it arrives later."""
    follower = home.take(home.left("b", run=2, run_id=uid(1), attached=True))
    home.deliver()
    assert follower.rejected == 0
    assert len([record for record in caplog.records if "another machine" in record.getMessage()]) == 1
    drive(home.store.create_run(RunSpec(uid=uid(1))))
    home.deliver()
    assert home.points(id_of(home, 1)) == {2.0}


def test_a_run_nested_in_one_of_another_program_names_its_parent_s_id(tmp_path: Path) -> None:
    """Not the uid by which its own program knows it; it waits for that one's creation."""
    home = Home(tmp_path, Server())
    parent = home.left("a", run=1, ends=2)
    waiting = home.take(home.left("b", run=2, ends=2, tags={PARENT_RUN_TAG: uid(1)}))
    home.take(home.left("c", run=3, run_id=uid(1), attached=True))
    home.deliver()
    assert waiting in home.pump.sources
    assert str(parent) in str(home.pump.trouble_of(waiting))
    other = Home(tmp_path, home.store)
    other.take(parent)
    other.deliver()
    home.deliver()
    assert home.pump.sources == []
    nested = drive(home.store.get_run(f"server-{uid(2)}"))
    assert nested.data.tags[PARENT_RUN_TAG] == f"server-{uid(1)}"


class Knowing(Server):
    """Answers to a run's uid as to its id, as `asynctrack.stores.rest` does."""

    async def get_run_info(self, run_id: str) -> RunInfo:
        try:
            return await super().get_run_info(run_id)
        except NotFoundError:
            return await super().get_run_info(f"server-{run_id}")


def test_a_nested_run_has_its_parent_s_id_where_the_store_answers_to_the_uid(tmp_path: Path) -> None:
    home = Home(tmp_path, Knowing())
    drive(home.store.create_run(RunSpec(uid=uid(1), start_time=1)))
    home.take(home.left("b", run=2, ends=2, tags={PARENT_RUN_TAG: uid(1)}))
    home.deliver()
    nested = drive(home.store.get_run(f"server-{uid(2)}"))
    assert nested.data.tags[PARENT_RUN_TAG] == f"server-{uid(1)}"


def test_an_earlier_program_s_death_does_not_undo_a_later_one_s_end(home: Home) -> None:
    """It was killed with something in its spool; the run was taken up again and ended; then the spool is delivered."""
    drive(home.store.create_run(RunSpec(uid=uid(1), start_time=1)))
    name = id_of(home, 1)
    earlier = home.left("a", run=2, run_id=name, start_time=10)
    drive(home.store.update_run(name, status="FINISHED", end_time=20))
    home.take(earlier)
    home.deliver()
    assert home.pump.sources == []
    assert home.points(name) == {2.0}
    info = drive(home.store.get_run_info(name))
    assert (info.status, info.end_time) == ("FINISHED", 20)


@pytest.mark.parametrize(("ends", "expected"), [(30, ("FAILED", 30)), (15, ("FINISHED", 20))])
def test_the_later_word_on_a_run_s_end_counts_whoever_is_delivered_first(
    home: Home, ends: int, expected: tuple[str, int]
) -> None:
    """Two programs had the run at the same time, and the one that was offline is delivered last."""
    drive(home.store.create_run(RunSpec(uid=uid(1), start_time=1)))
    name = id_of(home, 1)
    offline = home.left("a", run=2, run_id=name, start_time=10, ends=ends, status="FAILED")
    drive(home.store.update_run(name, status="FINISHED", end_time=20))
    home.take(offline)
    home.deliver()
    info = drive(home.store.get_run_info(name))
    assert (info.status, info.end_time) == expected
    assert home.points(name) == {2.0}


def test_a_run_that_a_dead_program_had_taken_up_again_is_killed(home: Home) -> None:
    """Although it had ended before that."""
    drive(home.store.create_run(RunSpec(uid=uid(1), start_time=1)))
    name = id_of(home, 1)
    drive(home.store.update_run(name, status="FINISHED", end_time=5))
    home.take(home.left("a", run=2, run_id=name, start_time=10))
    home.deliver()
    assert drive(home.store.get_run_info(name)).status == "KILLED"


def test_a_run_that_a_later_program_still_runs_is_not_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """That one ends it."""
    drive(home.store.create_run(RunSpec(uid=uid(1), start_time=1)))
    name = id_of(home, 1)
    earlier = home.left("a", run=2, run_id=name, start_time=10)
    later = home.left("b", run=3, run_id=name, start_time=20)
    monkeypatch.setattr(module, "is_held", lambda path: (path == str(later), False))
    home.take(earlier)
    home.deliver()
    assert home.pump.sources == []
    assert drive(home.store.get_run_info(name)).status == "RUNNING"
