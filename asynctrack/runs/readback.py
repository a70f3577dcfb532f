"""What a run object reads back: its points, with those that are not delivered yet, and drawings of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from asynctrack.current import store_for
from asynctrack.errors import AsynctrackError
from asynctrack.runs.waiting import wait_blocking
from asynctrack.stores.io import ThreadedIO, drive

if TYPE_CHECKING:
    from asynctrack.plots.chart import Charts
    from asynctrack.reading.asked import Asked
    from asynctrack.reading.frames import Format
    from asynctrack.reading.table import History
    from asynctrack.runs.state import RunState

__all__ = ["AwaitedReading", "BlockingReading"]

Keys = str | Iterable[str] | None


class BlockingReading:
    """Reading that blocks."""

    __slots__ = ()
    _state: RunState

    def history(
        self,
        keys: Keys = None,
        *,
        samples: int | None = None,
        x: str = "step",
        min_step: int | None = None,
        max_step: int | None = None,
        format: Format = "pandas",
    ) -> Any:
        """What the run has logged: a pandas DataFrame with a row for each
        point (``key``, ``step``, ``time``, ``value``, and whether it is
        ``delivered``).

        Every point is there at once, also those that still wait for the store.
        The arguments are those of `asynctrack.history`, which raises the same.
        ``format="columns"`` gives a `History`, which needs no pandas.
        """
        wanted = _asked(keys, samples, x, min_step, max_step, format)
        return wanted.give(_read(self._state, wanted))

    def scan_history(
        self, keys: Keys = None, *, min_step: int | None = None, max_step: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """A dictionary for each step: "step", "time" (ms since the epoch) and
        the values of the keys that were logged there. Several values of a key
        at one step are in as many dictionaries, in order. Raises what
        `history` raises."""
        from asynctrack.reading.scanning import scanned

        return scanned(_read(self._state, _asked(keys, None, "step", min_step, max_step, "columns")))

    def plot(self, keys: Keys = None, *, x: str = "step", log_x: bool = False, log_y: bool = False) -> Charts:
        """A chart for each key: a notebook shows it, ``print`` draws it in the
        terminal, ``.save("loss.svg")`` writes it. Raises what `history`
        raises."""
        wanted = _asked(keys, None, x, None, None, "columns")
        return _read(self._state, wanted).plot(log_x=log_x, log_y=log_y)

    def _repr_html_(self) -> str:
        return _markup(self._state)


class AwaitedReading:
    """The same, awaited on asyncio or trio: the work is done in another thread."""

    __slots__ = ()
    _state: RunState

    async def history(
        self,
        keys: Keys = None,
        *,
        samples: int | None = None,
        x: str = "step",
        min_step: int | None = None,
        max_step: int | None = None,
        format: Format = "pandas",
    ) -> Any:
        """See `ActiveRun.history`."""
        wanted = _asked(keys, samples, x, min_step, max_step, format)
        return await ThreadedIO().call(lambda: wanted.give(_read(self._state, wanted)))

    async def scan_history(
        self, keys: Keys = None, *, min_step: int | None = None, max_step: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """See `ActiveRun.scan_history`; for ``async for``."""
        from asynctrack.reading.scanning import scanned

        wanted = _asked(keys, None, "step", min_step, max_step, "columns")
        for row in scanned(await ThreadedIO().call(_read, self._state, wanted)):
            yield row

    async def plot(self, keys: Keys = None, *, x: str = "step", log_x: bool = False, log_y: bool = False) -> Charts:
        """See `ActiveRun.plot`."""
        wanted = _asked(keys, None, x, None, None, "columns")
        found = await ThreadedIO().call(_read, self._state, wanted)
        return await ThreadedIO().call(partial(found.plot, log_x=log_x, log_y=log_y))

    def _repr_html_(self) -> str:
        return _markup(self._state)


def _asked(keys: object, samples: object, x: object, min_step: object, max_step: object, format: object) -> Asked:
    from asynctrack.reading.asked import asked_of

    return asked_of(keys, samples, x, min_step, max_step, format)


def _read(state: RunState, wanted: Asked) -> History:
    from asynctrack.reading.history import read_history

    engine = state.engine
    if engine.journal.spool.path is None:  # the journal is in memory, where no reader sees it
        wait_blocking(state, engine.flush(state.number), engine.settings.close_timeout)
    return drive(read_history(store_for(engine.store.uri), [state.run_id], wanted))


def _markup(state: RunState) -> str:
    """The run in a notebook, with a small drawing of each metric."""
    from asynctrack.markup import escape, run_markup
    from asynctrack.plots.svg import spark

    try:
        found = _read(state, _asked(None, None, "step", None, None, "columns"))
        run = found.pieces[0].run if found.pieces else drive(store_for(state.engine.store.uri).get_run(state.run_id))
    except AsynctrackError as error:
        return f"<p>run {escape(state.run_id)}: it cannot be read now ({escape(str(error))})</p>"
    return run_markup(run, {piece.key: spark(piece.series.columns.values) for piece in found.pieces})
