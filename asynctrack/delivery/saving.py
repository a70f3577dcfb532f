"""One saved cursor for whatever finishes at about the same time.

A cursor says where every run is. With a thousand runs open, writing it takes a millisecond, and each of them wants it
written several times: alone, each would wait for all the others' writes. So whoever wants it written waits for a few
times as long as the last one took, and is joined by whoever comes meanwhile: however many runs there are, cursors take
the same small share of the time. With few runs there is nothing to wait for.
"""

from __future__ import annotations

from asynctrack.clock import monotonic
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.source import Source
from asynctrack.delivery.uploads import Upload
from asynctrack.delivery.work import Work

__all__ = ["CursorSaver"]

#: seconds that saving may take before others are waited for; the wait, in times of what it took; and the longest one
_CHEAP, _WAITS, _LONGEST = 0.0002, 4, 0.2
#: seconds after which one who has joined looks again
_LIMIT = 5.0


class CursorSaver:
    """Saves the cursors of the sources of one sender. Belongs to the engine's thread."""

    def __init__(self) -> None:
        self._gathering: dict[Source, _Group] = {}
        #: seconds that saving took the last time
        self._took = 0.0

    async def save(self, source: Source, lane: Lane, work: Work | None, *, waits: bool) -> list[Upload]:
        """Save the source's cursor; ``work``, if given, is acknowledged with it.

        The artifacts whose snapshots are needed no more. Raises OSError where it cannot be saved; nothing has changed
        then. ``waits``: there is an event loop, on which others may join.
        """
        while True:
            group = self._gathering.get(source)
            if group is not None:
                group.add(lane, work)
                await group.joined()
            else:
                group = _Group()
                group.add(lane, work)
                await self._lead(source, group, waits=waits and self._took > _CHEAP)
            if group.error is not None:
                raise group.error
            if group.saved:
                return group.uploads.get(work, []) if work is not None else []

    async def _lead(self, source: Source, group: _Group, *, waits: bool) -> None:
        try:
            if waits:
                import anyio

                self._gathering[source] = group
                await anyio.sleep(min(_WAITS * self._took, _LONGEST))
            started = monotonic()
            group.save(source)
            self._took = monotonic() - started
        finally:
            # Also where the task is cancelled: those who have joined do it without us.
            if self._gathering.get(source) is group:
                del self._gathering[source]
            group.tell()


class _Group:
    """Those who have one cursor saved."""

    def __init__(self) -> None:
        self.works: list[tuple[Lane, Work]] = []
        self.saved = False
        self.error: OSError | None = None
        self.uploads: dict[Work, list[Upload]] = {}
        self._told: object = None

    def add(self, lane: Lane, work: Work | None) -> None:
        if work is not None:
            self.works.append((lane, work))

    def save(self, source: Source) -> None:
        try:
            for (_, work), uploads in zip(self.works, source.done(self.works), strict=True):
                self.uploads[work] = uploads
            self.saved = True
        except OSError as error:
            self.error = error

    async def joined(self) -> None:
        """Wait until whoever leads has saved it, or could not."""
        import anyio

        if self._told is None:
            self._told = anyio.Event()
        with anyio.move_on_after(_LIMIT):
            await self._told.wait()  # type: ignore[attr-defined]  # an anyio.Event, which is imported late

    def tell(self) -> None:
        if self._told is not None:
            self._told.set()  # type: ignore[attr-defined]  # as above
