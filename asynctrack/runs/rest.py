"""What is kept of a run that rests: it is only logged to, nothing was logged for a while, and its spool is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynctrack.engine.engine import RunStats

__all__ = ["Rest"]


class Rest:
    """Belongs to a `RunState`, and is used with its lock held."""

    def __init__(self) -> None:
        #: it rests: it has no number, and no streams, in the journal of now
        self.begun = False
        #: calls that need the spool that is there
        self.at_work = 0
        #: accepted, delivered, rejected and retried before the last rest
        self._counts = (0, 0, 0, 0)

    def count(self, stats: RunStats) -> None:
        """It comes again: what was counted until now goes with its old number."""
        accepted, delivered, rejected, retries = self._counts
        self._counts = (
            accepted + stats.accepted,
            delivered + stats.delivered,
            rejected + stats.rejected,
            retries + stats.retries,
        )

    def add_to(self, stats: RunStats) -> RunStats:
        """The counts of the run's whole life."""
        accepted, delivered, rejected, retries = self._counts
        return stats._replace(
            accepted=stats.accepted + accepted,
            delivered=stats.delivered + delivered,
            rejected=stats.rejected + rejected,
            retries=stats.retries + retries,
        )
