"""Following a run: a look costs what is new, and shows each point once, in the store or on its way there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from asynctrack.clock import monotonic
from asynctrack.constants import RunStatus
from asynctrack.errors import NotFoundError, StoreError
from asynctrack.reading.finding import experiment_of, names_of, stored_run
from asynctrack.reading.line import Line
from asynctrack.reading.pending import Pending, PendingRun
from asynctrack.reading.points import Stretch
from asynctrack.reading.series import Series
from asynctrack.stores.branches import Branch, branches_of
from asynctrack.stores.columns import Columns, Increment

if TYPE_CHECKING:
    from asynctrack.entities import Run
    from asynctrack.stores.base import AbstractStore

__all__ = ["Follower"]

#: seconds after which a run's params, tags and status are read again; as a multiple of what that takes, where that is
#: more: with ten thousand metrics it takes long
_AGAIN, _SHARE = 1.0, 10
#: seconds before a store that did not answer is asked again: at first, and at most
_FIRST_BREAK, _LONGEST_BREAK = 1.0, 10.0


class _Batch:
    """Metrics that are asked for together (None: all), and how far they have been read."""

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = None if keys is None else list(keys)
        self.cursor: Any = None


class Follower:
    """A run that is looked at again and again; from one task or thread at a time.

    ``keys``: only these metrics (default: all). ``live``: with what spools here hold and the store does not have yet.
    ``folder``: one more folder where spools are looked for.
    """

    def __init__(
        self,
        store: AbstractStore,
        run_id: str,
        keys: Collection[str] | None = None,
        live: bool = True,
        *,
        min_step: int | None = None,
        max_step: int | None = None,
        folder: str | None = None,
    ) -> None:
        #: by key, sorted; each look replaces those that have changed
        self.series: dict[str, Series] = {}
        #: the run as it is, or will be, in the store; None before the first look
        self.run: Run | None = None
        #: nothing more will come: the run has ended, or its process has died
        self.ended = False
        #: why the store could not be asked at the last look: what is shown of it is of an earlier one
        self.trouble: StoreError | None = None
        self._store = store
        self._names = {run_id}
        self._run_id = run_id
        #: one for each time that more metrics were asked for
        self._batches = [_Batch(keys)]
        self._range = min_step, max_step
        self._pending = Pending(store, folder) if live else None
        self._lines: dict[str, Line] = {}
        self._branches: set[Branch] = set()
        self._stored: Run | None = None
        self._describe_again_at = 0.0
        self._ask_again_at = 0.0
        self._break = 0.0
        self._experiment: str | None = None

    async def look(self) -> set[str]:
        """Take in what is new; the keys whose series have changed. Raises `NotFoundError` for a run of which neither
        the store nor a spool knows, and what the store raises where no spool knows the run."""
        return await self._look(self._batches)

    async def look_for(self, keys: Collection[str]) -> set[str]:
        """Follow these metrics, too, of which it has not followed any; as `look`, for them alone."""
        batch = _Batch(keys)
        self._batches.append(batch)
        try:
            return await self._look([batch])
        except BaseException:
            self._batches.remove(batch)
            raise

    async def _look(self, batches: Sequence[_Batch]) -> set[str]:
        held = await self._look_for_run()
        if self._pending is not None:
            # Before the store is asked for points: what is delivered in between is there, and told by its equality.
            await self._store.io.call(self._pending.walk, self._names)
        news = await self._ask_for_points(held, batches)
        if self.trouble is None and not news.late and self._pending is not None and len(batches) == len(self._batches):
            self._pending.settle()
        held = self._held()
        waiting: dict[str, list[Stretch]] = {}
        for key, stretches in held.stretches() if held is not None else ():
            if self._follows(key):
                waiting.setdefault(key, []).extend(stretches)
        await self._describe(held)
        return self._merge(news, waiting)

    def _follows(self, key: str) -> bool:
        return any(batch.keys is None or key in batch.keys for batch in self._batches)

    # ── what there is

    async def _look_for_run(self) -> PendingRun | None:
        """What spools hold of the run, and the store says of it."""
        if self._pending is not None:
            await self._store.io.call(self._pending.refresh)
        held = self._held()
        now = monotonic()
        if now < max(self._ask_again_at, self._describe_again_at):
            return held
        try:
            await self._ask_for_run(held)
        except NotFoundError:
            self._stored = None
            if held is None:
                raise
        except StoreError as error:
            self._in_trouble(error)
            if held is None and self._stored is None:
                raise
        else:
            self.trouble, self._break = None, 0.0
            self._describe_again_at = now + max(_AGAIN, _SHARE * (monotonic() - now))
            return self._held()
        return held

    def _held(self) -> PendingRun | None:
        if self._pending is None:
            return None
        held = self._pending.run(self._names)
        if held is not None:
            self._names |= held.names
            if held.run_id is not None:
                self._run_id = held.run_id
        return held

    async def _ask_for_run(self, held: PendingRun | None) -> None:
        self._stored = await stored_run(self._store, self._run_id, self._names, held)
        self._run_id = self._stored.info.run_id
        self._names |= names_of(self._stored)

    def _in_trouble(self, error: StoreError) -> None:
        self.trouble = error
        self._break = min(max(2 * self._break, _FIRST_BREAK), _LONGEST_BREAK)
        self._ask_again_at = monotonic() + self._break

    async def _ask_for_points(self, held: PendingRun | None, batches: Sequence[_Batch]) -> Increment:
        """What is new in the store, as far as it answers."""
        columns: dict[str, Columns] = {}
        anew: set[str] = set()
        late = False
        if monotonic() < self._ask_again_at:
            return Increment(columns, None)
        low, high = self._range
        try:
            for batch in batches:
                news = await self._store.read_columns(
                    self._run_id, batch.keys, after=batch.cursor, min_step=low, max_step=high
                )
                batch.cursor = news.cursor
                columns |= news.columns
                anew |= news.anew
                late = late or news.late
        except NotFoundError:
            self.trouble = None
            for batch in self._batches:
                batch.cursor = None
            if held is None:
                raise
            return Increment({}, None, frozenset(self._lines))
        except StoreError as error:
            self._in_trouble(error)
            if held is None and not self._lines:
                raise
        else:
            self.trouble = None
        return Increment(columns, None, frozenset(anew), late)

    async def _describe(self, held: PendingRun | None) -> None:
        """`run` and `ended`."""
        stored = self._stored
        if held is None:
            self.run = stored if stored is not None else self.run
            self.ended = self.run is not None and RunStatus.is_terminated(self.run.info.status)
            return
        if stored is not None:
            self.run = held.over(stored)
        else:
            if self._experiment is None and self.trouble is None:
                self._experiment = await experiment_of(self._store, held)
            self.run = held.alone(self._experiment or "")
        terminated = RunStatus.is_terminated(self.run.info.status)
        self.ended = not held.alive and (terminated or not held.alive_elsewhere)

    # ── points

    def _merge(self, news: Increment, waiting: dict[str, list[Stretch]]) -> set[str]:
        columns, anew = news.columns, news.anew
        tags = {} if self.run is None else self.run.data.tags
        branches = set(branches_of(tags))
        if branches != self._branches:
            self._branches = branches
            for line in self._lines.values():
                line.restrict(branches)
        changed = set()
        for key in {*columns, *anew, *waiting, *self._lines}:
            if key not in self._lines:
                self._lines[key] = Line(branches, self._range)
            line = self._lines[key]
            if line.update(columns.get(key), key in anew, waiting.get(key, [])):
                changed.add(key)
        for key in changed:
            found = self._lines[key].series()
            if len(found.columns):
                self.series[key] = found
            else:
                self.series.pop(key, None)
                del self._lines[key]
        if changed:
            self.series = dict(sorted(self.series.items()))
        return changed
