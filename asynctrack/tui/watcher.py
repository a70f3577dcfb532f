"""The thread that looks at the store while `asynctrack top` is shown, so that keys never wait for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from asynctrack.clock import monotonic
from asynctrack.ui.board import Board, News

if TYPE_CHECKING:
    from asynctrack.reading.runs import FoundRun
    from asynctrack.ui.tapes import Points

__all__ = ["Shot", "Watcher"]

#: seconds between two looks; as a part of how long a look takes, where that is more
_EVERY, _PART = 0.2, 3


class Shot(NamedTuple):
    """What a look has found. ``drawn``: the ids of the runs that were asked for. ``keys``: all their metrics.
    ``points``: by run and key, of the metrics that were asked for. ``runs`` and the points of a metric are the same
    objects as long as nothing new is there."""

    runs: Sequence[FoundRun] = ()
    drawn: tuple[str, ...] = ()
    experiments: Mapping[str, str] = {}
    keys: Sequence[str] = ()
    points: Mapping[str, Mapping[str, Points]] = {}
    news: News | None = None


class Watcher:
    """Looks again and again, from `start` to `stop`. ``shot`` is replaced by each look, and never changed."""

    def __init__(self, board: Board) -> None:
        self.shot = Shot()
        #: what ended it, other than `stop`; that is a mistake in asynctrack
        self.failure: Exception | None = None
        self._board = board
        self._wanted: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._wake = threading.Event()
        self._stopped = False

    def start(self) -> None:
        """A store that does not answer keeps this thread, but not the end of the process."""
        threading.Thread(target=self._run, name="asynctrack-top", daemon=True).start()

    def stop(self) -> None:
        """Do not look any more."""
        self._stopped = True
        self._wake.set()

    def want(self, run_ids: Sequence[str], keys: Sequence[str]) -> None:
        """Read these metrics of these runs, soon."""
        wanted = tuple(run_ids), tuple(keys)
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    def _run(self) -> None:
        try:
            self._board.begin(wait=True)
            while not self._stopped:
                begun = monotonic()
                self._wake.clear()
                self.shot = self._look(self.shot)
                self._wake.wait(max(_EVERY, _PART * (monotonic() - begun)))
        except Exception as error:
            self.failure = error

    def _look(self, before: Shot) -> Shot:
        run_ids, keys = self._wanted
        news = self._board.look(run_ids, 0 if before.news is None else before.news.version)
        points = self._board.points(run_ids, keys)
        is_listed_anew = before.news is None or before.news.listing != news.listing
        all_keys = before.keys
        if is_listed_anew or run_ids != before.drawn:
            all_keys = self._board.keys(run_ids)
        runs = self._board.found() if is_listed_anew else before.runs
        return Shot(runs, run_ids, self._board.experiments(), all_keys, points, news)
