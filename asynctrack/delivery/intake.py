"""The spools of other programs that one consumer delivers: a few at a time, for each has some files open.

Each has its turn. One that does not get on (its run is held, say) makes room for one that has not been looked at yet.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from asynctrack.clock import monotonic
from asynctrack.journal.homes import find_orphans
from asynctrack.journal.spool import Spool
from asynctrack.stores.uri import same_spelling

if TYPE_CHECKING:
    from asynctrack.delivery.source import Source

__all__ = ["Courtesy", "Intake", "Orphans", "Supply", "TakenError"]

logger = logging.getLogger("asynctrack")

#: spools that are delivered at a time
_AT_ONCE = 16
#: seconds without progress after which a spool makes room for another
_PATIENCE = 10.0
#: seconds after which a spool that another process has taken meanwhile is asked for again
_AGAIN = 5.0
#: seconds that the end of a program gives to what others have left, where that looks like being delivered by then;
#: and after which it looks
_COURTESY, _LOOKS = 10.0, 2.0


class TakenError(Exception):
    """Another process delivers the spool in ``path``, which was put back, and may leave it before it is delivered."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Supply(Protocol):
    """Where spools come from."""

    def take(self) -> Source | None:
        """The next one, ready to be delivered; None where it could not be had. Raises IndexError: there are no more,
        and TakenError."""

    def put_back(self, source: Source) -> None:
        """It was let go before it was finished, and is to be taken again, after the others."""

    def take_again(self, path: str) -> None:
        """The same for one that another process had."""


class Intake:
    """Takes spools from its supplies as others are finished."""

    def __init__(self, let_go: Callable[[Source], None], clock: Callable[[], float] = monotonic) -> None:
        self._let_go = let_go
        self._clock = clock
        self._supplies: deque[Supply] = deque()
        #: the spools that are being delivered, where each came from, and when it got on last
        self._from: dict[Source, Supply] = {}
        self._moved_at: dict[Source, float] = {}
        #: those that another process has: when to ask again, and for what
        self._elsewhere: deque[tuple[float, Supply, str]] = deque()

    @property
    def more(self) -> bool:
        """Whether there are spools that are not being delivered yet."""
        return bool(self._supplies)

    def add(self, supply: Supply) -> None:
        """Deliver what ``supply`` gives, too."""
        if supply not in self._supplies:
            self._supplies.append(supply)

    def moved(self, source: Source) -> None:
        """Something of a spool was dealt with."""
        if source in self._moved_at:
            self._moved_at[source] = self._clock()

    def gone(self, source: Source) -> None:
        """A spool is finished, or let go."""
        self._from.pop(source, None)
        self._moved_at.pop(source, None)

    def fill(self) -> None:
        """Take the next spools, where there is room."""
        self._ask_again()
        while self._supplies and self._has_room():
            supply = self._supplies[0]
            try:
                source = supply.take()
            except IndexError:
                self._supplies.popleft()
                continue
            except TakenError as taken:
                self._elsewhere.append((self._clock() + _AGAIN, supply, taken.path))
                continue
            except Exception:
                logger.exception("asynctrack: cannot look for more spools that other programs have left; leaving them")
                self._supplies.popleft()
                continue
            if source is not None:
                self._from[source], self._moved_at[source] = supply, self._clock()

    def _ask_again(self) -> None:
        """For what another process had: nothing that is younger may go on before that is delivered."""
        while self._elsewhere and self._elsewhere[0][0] <= self._clock():
            _, supply, path = self._elsewhere.popleft()
            supply.take_again(path)
            self.add(supply)

    def take_no_more(self) -> None:
        """Only see to what is being delivered."""
        self._supplies.clear()
        self._elsewhere.clear()

    def leave_all(self) -> None:
        """Leave what is not finished to whoever comes next."""
        self.take_no_more()
        for source in list(self._from):
            self._let_go(source)

    def _has_room(self) -> bool:
        # One that waits for its living program to log more is no work.
        working = [source for source in self._from if not (source.followed and source.drained)]
        if len(working) < _AT_ONCE:
            return True
        source = min(working, key=self._moved_at.__getitem__)
        if self._clock() < self._moved_at[source] + _PATIENCE or source.busy:
            return False
        supply = self._from[source]
        source.directory.put_back()
        self._let_go(source)
        supply.put_back(source)
        self.add(supply)
        return True


class Courtesy:
    """How long the end of a program waits for what others have left."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._at_first = 0

    @property
    def left(self) -> float:
        """Seconds."""
        return _COURTESY if self._begun is None else max(self._begun + _COURTESY - self._clock(), 0.0)

    def is_over(self, events: int) -> bool:
        """Whether it has waited enough, where so many ``events`` are left. Begins with the first call."""
        now = self._clock()
        if self._begun is None:
            self._begun, self._at_first = now, events
        waited = now - self._begun
        expected = waited * events / max(self._at_first - events, 1)
        return waited > _COURTESY or (waited > _LOOKS and waited + expected > _COURTESY)


class Orphans:
    """What dead processes of this host have left in ``homes`` for ``store``. ``add`` begins to deliver a spool;
    ``given_up`` is told of one that was put back, and cannot be had again."""

    def __init__(
        self,
        homes: Iterable[str],
        store: str,
        add: Callable[[Spool], Source | None],
        given_up: Callable[[str], object],
    ) -> None:
        self._add = add
        self._given_up = given_up
        self._found = (spool for home in dict.fromkeys(homes) for spool in find_orphans(home, store, same_spelling))
        self._again: deque[str] = deque()

    def take(self) -> Source | None:
        """Raises IndexError where there are no more."""
        spool = next(self._found, None)
        if spool is None:
            return self._take_again(self._again.popleft())
        source = self._add(spool)
        if source is not None:
            logger.warning(
                "asynctrack: delivering what process %d on %s left in %s",
                spool.owner.pid, spool.owner.host, spool.path,
            )  # fmt: skip
        return source

    def _take_again(self, path: str) -> Source | None:
        try:
            spool = Spool.adopt(path)
        except (OSError, ValueError) as error:
            logger.warning("asynctrack: the spool %s stays as it is: %s", path, error)
            spool = None
        else:
            if spool is None and os.path.exists(os.path.join(path, "registry")):
                raise TakenError(path)
        source = None if spool is None else self._add(spool)
        if source is None:
            self._given_up(path)  # what is younger need not wait for it here
        return source

    def put_back(self, source: Source) -> None:
        """It has its turn again after the others."""
        if source.spool.path is not None:
            self.take_again(source.spool.path)

    def take_again(self, path: str) -> None:
        """The same for one that another process had."""
        self._again.append(path)
