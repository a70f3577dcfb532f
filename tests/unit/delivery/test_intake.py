"""Other programs' spools are delivered a few at a time, and each has its turn."""

from __future__ import annotations

import errno
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from asynctrack.delivery.intake import Courtesy, Intake, Orphans, TakenError
from asynctrack.delivery.queues import RunQueues
from asynctrack.journal.spool import Spool as JournalSpool
from tests.journals import die, new_journal

if TYPE_CHECKING:
    from asynctrack.delivery.source import Source


class Spool:
    """What the intake asks a source for."""

    followed, drained, busy = False, False, False
    directory = SimpleNamespace(put_back=lambda: None)


class Home:
    """A supply of so many spools."""

    def __init__(self, count: int) -> None:
        self.left = deque(Spool() for _ in range(count))
        self.taken: list[Spool] = []

    def take(self) -> Source | None:
        spool = self.left.popleft()
        self.taken.append(spool)
        return cast("Source", spool)

    def put_back(self, source: Source) -> None:
        self.left.append(cast("Spool", source))

    def take_again(self, path: str) -> None:
        self.left.append(Spool())


class Room:
    """An intake, and what was let go of."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left: list[Source] = []
        self.intake = Intake(self.let_go, lambda: self.now)

    def let_go(self, source: Source) -> None:
        self.left.append(source)
        self.intake.gone(source)


@pytest.fixture
def room() -> Room:
    return Room()


def test_a_few_are_taken_and_the_next_when_one_is_finished(room: Room) -> None:
    """However many there are, so many descriptors are enough."""
    home = Home(400)
    room.intake.add(home)
    room.intake.fill()
    room.intake.fill()
    assert len(home.taken) == 16
    finished = 0
    while room.intake.more:
        room.intake.gone(cast("Source", home.taken[finished]))
        finished += 1
        room.intake.fill()
        assert len(home.taken) - finished <= 16
    assert len(home.taken) == 400


def test_one_that_does_not_get_on_makes_room_and_has_its_turn_again(room: Room) -> None:
    """Sixteen runs that are held do not keep the seventeenth spool from being delivered."""
    home = Home(17)
    room.intake.add(home)
    room.intake.fill()
    last = home.left[0]
    room.now += 5.0
    for spool in home.taken[1:]:
        room.intake.moved(cast("Source", spool))
    room.intake.fill()
    assert room.left == []
    room.now += 5.1
    room.intake.fill()
    assert room.left == [cast("Source", home.taken[0])]
    assert home.taken[-1] is last
    assert list(home.left) == [home.taken[0]], "it is taken again"


def test_what_is_being_sent_is_not_interrupted(room: Room) -> None:
    """A large artifact may take minutes."""
    home = Home(17)
    room.intake.add(home)
    room.intake.fill()
    for spool in home.taken:
        spool.busy = True
    room.now += 1000.0
    room.intake.fill()
    assert room.left == []


def test_a_living_program_that_has_nothing_new_takes_no_room(room: Room) -> None:
    """Any number of them may be watched."""
    home = Home(100)
    for spool in home.left:
        spool.followed = spool.drained = True
    room.intake.add(home)
    room.intake.fill()
    assert len(home.taken) == 100


def test_a_supply_that_fails_does_not_stop_the_others(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is wrong in one folder of spools."""

    class Broken(Home):
        def take(self) -> Source | None:
            raise PermissionError(13, "Permission denied")

    home = Home(3)
    room.intake.add(Broken(1))
    room.intake.add(home)
    room.intake.fill()
    assert len(home.taken) == 3
    assert not room.intake.more
    assert len(caplog.records) == 1


def test_one_that_was_put_back_and_cannot_be_had_again_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the others that were put back, nor what is younger and waits for it."""
    paths = [str(die(new_journal(tmp_path / name), tmp_path / f"dead-{name}")) for name in "ab"]
    given_up: list[str] = []
    taken: list[str | None] = []

    def add(spool: JournalSpool) -> Source:
        taken.append(spool.path)
        spool.leave()
        return cast("Source", Spool())

    orphans = Orphans([], "", add, given_up.append)
    for path in paths:
        orphans.put_back(cast("Source", SimpleNamespace(spool=SimpleNamespace(path=path))))
    adopts = JournalSpool.adopt

    def adopt(path: str) -> JournalSpool | None:
        if path == paths[0]:
            raise OSError(errno.EMFILE, "too many open files")
        return adopts(path)

    monkeypatch.setattr(JournalSpool, "adopt", adopt)
    assert orphans.take() is None
    assert orphans.take() is not None
    with pytest.raises(IndexError):
        orphans.take()
    assert (given_up, taken) == (paths[:1], paths[1:])
    assert "too many open files" in caplog.text


def test_one_that_another_process_has_taken_is_asked_for_again(room: Room) -> None:
    """That one may leave it undelivered. Until then others have their turns, and nothing waits for it alone."""
    asked: list[str] = []

    class Shared(Home):
        def take(self) -> Source | None:
            if not asked:
                asked.append("path")
                raise TakenError("path")
            return super().take()

    home = Shared(2)
    room.intake.add(home)
    room.intake.fill()
    assert (len(home.taken), room.intake.more) == (2, False)
    room.now += 4.9
    room.intake.fill()
    assert len(home.taken) == 2
    room.now += 0.2
    room.intake.fill()
    assert len(home.taken) == 3


def test_one_that_was_put_back_waits_while_another_process_has_it(tmp_path: Path) -> None:
    """It is neither given up nor forgotten: what is younger waits for it."""
    path = str(die(new_journal(tmp_path / "a"), tmp_path / "dead"))
    given_up: list[str] = []
    taken: list[str | None] = []

    def add(spool: JournalSpool) -> Source:
        taken.append(spool.path)
        spool.leave()
        return cast("Source", Spool())

    orphans = Orphans([], "", add, given_up.append)
    others = JournalSpool.adopt(path)
    assert others is not None
    orphans.take_again(path)
    with pytest.raises(TakenError):
        orphans.take()
    others.leave()
    orphans.take_again(path)
    assert orphans.take() is not None
    assert (given_up, taken) == ([], [path])


def test_one_that_another_process_has_delivered_is_not_asked_for_again(tmp_path: Path) -> None:
    given_up: list[str] = []
    orphans = Orphans([], "", lambda _spool: None, given_up.append)
    orphans.take_again(str(tmp_path / "gone"))
    assert orphans.take() is None
    assert given_up == [str(tmp_path / "gone")]


def test_a_spool_that_is_given_up_is_waited_for_no_more() -> None:
    queues = RunQueues()
    queue = queues.queue(["a"])
    queues.put_back.add((1, "path"))
    queue.put_back.add((1, "path"))
    queues.wait_no_more_for("other")
    assert queue.put_back
    queues.wait_no_more_for("path")
    assert (queue.put_back, queues.put_back) == (set(), set())


def test_at_the_end_everything_is_left_to_whoever_comes_next(room: Room) -> None:
    home = Home(20)
    room.intake.add(home)
    room.intake.fill()
    room.intake.leave_all()
    assert len(room.left) == 16
    assert not room.intake.more


def test_the_end_of_a_program_waits_for_others_where_that_will_be_enough() -> None:
    """Ten seconds at most; two where what is left would take longer."""
    now = [0.0]
    for rate, over in ((4000, 10.1), (500, 2.1), (0, 2.1)):
        courtesy, begun = Courtesy(lambda: now[0]), now[0]
        while not courtesy.is_over(max(int(30_000 - rate * (now[0] - begun)), 1)):
            now[0] += 0.05
        assert now[0] - begun == pytest.approx(over, abs=0.11)
