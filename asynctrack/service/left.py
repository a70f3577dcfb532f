"""Says that a store which is read has more to come: what dead programs have left in spools here."""

from __future__ import annotations

import logging

from asynctrack.journal.homes import left_alone, spool_homes
from asynctrack.settings import current_settings

__all__ = ["say_what_waits"]

logger = logging.getLogger("asynctrack")

#: stores of which it was said, or of which nothing waited when they were read first
_asked: set[str] = set()
_MOST = 1000


def say_what_waits(uri: str) -> None:
    """Warn, once in a process, that a reader of the store at ``uri`` does not see everything."""
    if uri in _asked:
        return
    if len(_asked) < _MOST:
        _asked.add(uri)
    spools = left_alone(spool_homes(current_settings().spool_dir), uri)
    if spools:
        from asynctrack.journal.survey import holds_events  # late: most readers find none

        spools = [path for path in spools if holds_events(path)]
    if spools:
        logger.warning(
            "asynctrack: %s has more to come: %s that has ended left events in %s. `asynctrack sync`, or the next "
            "program that logs to this store from here, delivers them",
            uri,
            "a program" if len(spools) == 1 else f"each of {len(spools)} programs",
            ", ".join(spools[:3]) + (", …" if len(spools) > 3 else ""),
        )
