"""Somebody reads while programs log, are killed, and are delivered: every point is shown once, at each look."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from asynctrack.clock import monotonic
from asynctrack.current import store_for
from asynctrack.reading.follower import Follower
from asynctrack.reading.looking import look
from asynctrack.stores.io import drive
from tests.fault import programs
from tests.fault.programs import Lab

if TYPE_CHECKING:
    from asynctrack.reading.series import Series
    from asynctrack.stores.base import AbstractStore

KEYS = ("m0", "m1", "m2", "m3")
#: the steps of one program's life begin at a multiple of this
LIFE = 1_000_000

#: takes a run up, or starts one, and logs to it until it is killed; it delivers what the one before has left
TRAIN = """
life = int(os.environ["LIFE"])
returned = counted(f"life{life}")
asynctrack.configure(flush_interval=0.05)  # kills come between deliveries, and in the middle of one
run = asynctrack.start_run(run_id=os.environ.get("RUN") or None)
print(run.run_id, flush=True)
log = run.log_metric
for step in range(1 << 40):
    log(f"m{step % 4}", step * 0.25, 1000000 * life + step)
    returned[0] = step + 1
    if step % 500 == 0:
        time.sleep(0.01)
    if step >= 4 * int(os.environ["CALLS"]):
        time.sleep(600)  # whoever reads is slower, and kills it
"""


class Reader:
    """Looks at one run, and checks what it sees."""

    def __init__(self, lab: Lab, store: AbstractStore, run_id: str) -> None:
        self._lab, self._store = lab, store
        self.run_id = run_id
        self.follower = Follower(store, run_id)
        #: how many log calls of each life that is over had returned
        self.lives: list[int] = []
        self.looks = self.with_waiting = self.with_stored = 0

    def look(self, *, living: bool) -> None:
        """With the reader that has looked all the time, and now and then with a new one."""
        logged = [*self.lives, self._lab.acknowledged(f"life{len(self.lives)}")] if living else self.lives
        drive(self.follower.look())
        assert self.follower.trouble is None
        self._check(self.follower.series, logged, living=living)
        if self.looks % 4 == 0:
            self._check(drive(look(self._store, self.run_id)), logged, living=living)
        self.looks += 1

    def _check(self, series: dict[str, Series], logged: list[int], *, living: bool) -> None:
        assert set(series) <= set(KEYS)
        self.with_waiting += any(line.waiting for line in series.values())
        self.with_stored += any(line.stored for line in series.values())
        for number in range(len(KEYS)):
            self._check_key(self._points(series, number), number, logged, living=living)

    def _check_key(self, seen: np.ndarray, number: int, logged: list[int], *, living: bool) -> None:
        """Each once, none left out: the calls that had returned before the look, and maybe some later ones."""
        seen.sort()
        lives, steps = np.divmod(seen, LIFE)
        assert set(lives.tolist()) <= set(range(len(logged)))
        for life, returned in enumerate(logged):
            here = steps[lives == life]
            where = f"life {life}, {KEYS[number]}, {len(here)} shown, {returned} logged"
            assert len(np.unique(here)) == len(here), f"doubled: {where}"
            assert np.array_equal(here[here < returned], np.arange(number, returned, len(KEYS))), f"lost: {where}"
            if not (living and life == len(logged) - 1):
                assert len(here) <= len(range(number, returned + 1, len(KEYS))), f"invented: {where}"

    def _points(self, series: dict[str, Series], number: int) -> np.ndarray:
        if KEYS[number] not in series:
            return np.empty(0, np.int64)
        columns = series[KEYS[number]].columns
        steps, values = np.array(columns.steps, np.int64), np.array(columns.values)
        assert (steps % LIFE % len(KEYS) == number).all()
        assert (values == steps % LIFE * 0.25).all()
        return steps


#: kills, and log calls of each life at least
EFFORT = {"file": (20, 8000), "sqlite": (20, 8000), "server": (8, 800), "postgres": (8, 2000)}


@pytest.mark.parametrize("lab", ["file", "sqlite", "server"], indirect=True)
def test_every_point_is_shown_once_while_its_program_is_killed_and_the_next_one_delivers(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    kills, calls = EFFORT[request.node.callspec.params["lab"]]
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    store = store_for(lab.environment["MLFLOW_TRACKING_URI"])
    reader: Reader | None = None
    for life in range(kills):
        process = lab.start(TRAIN, LIFE=str(life), CALLS=str(calls), RUN=reader.run_id if reader is not None else "")
        try:
            run_id = programs.line_for(process)
            reader = reader or Reader(lab, store, run_id)
            enough, deadline = moments.randrange(calls), monotonic() + programs.LIMIT
            while lab.acknowledged(f"life{life}") < enough:
                assert monotonic() < deadline, "it does not log"
                reader.look(living=True)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        reader.lives.append(lab.acknowledged(f"life{life}"))
        reader.look(living=False)
    assert reader is not None
    assert not reader.follower.series or reader.with_waiting, "nothing was ever read from a spool"
    lab.recover()
    assert lab.spools() == []
    end = Reader(lab, store, reader.run_id)
    end.lives = reader.lives
    for each in (reader, end):
        each.look(living=False)
        assert not any(line.waiting for line in each.follower.series.values())
    assert end.follower.ended
    print(f"{reader.looks} looks, {reader.with_waiting} with points that waited, {reader.with_stored} with stored ones")
