"""Going on where an earlier consumer of a journal has stopped."""

from __future__ import annotations

import logging

from asynctrack.delivery.directory import RunDirectory
from asynctrack.delivery.reports import take_report_over
from asynctrack.journal.positions import Positions
from asynctrack.journal.spool import Spool

__all__ = ["load_positions", "restore", "take_back"]

logger = logging.getLogger("asynctrack")


def load_positions(spool: Spool) -> Positions | None:
    """What the cursor of a spool says; None where nothing is known of what was delivered. Raises OSError, which says
    nothing about the cursor: it can be read another time."""
    if spool.is_copy():
        reason = f"{spool.path} is a copy"  # what the other one has delivered is not known here
    else:
        try:
            record = spool.load_cursor()
            return Positions() if record is None else Positions.of(record)
        except ValueError as error:
            reason = f"{spool.path}: {error}"
    logger.warning("asynctrack: %s; everything in that spool is compared with the store again", reason)
    return None


def restore(directory: RunDirectory, positions: Positions | None) -> None:
    """Have the registered runs stand where ``positions`` says."""
    for number, lane in sorted(directory.lanes.items()):
        if positions is None:
            lane.progress.suspect_everything()
            continue
        if number in positions.runs:
            # Ended, it is here all the same while something may come behind its end.
            lane.run_id = positions.runs[number].run_id
            lane.progress.restore(positions.runs[number], positions.pending)
        elif number in positions.seen:
            directory.put_away(lane)  # ended and delivered long ago
        if -number in positions.runs:
            uploads = directory.uploads(lane)
            uploads.progress.restore(positions.runs[-number], positions.pending)
            if uploads.progress.position is not None:
                directory.activate(uploads)
        if lane.progress.position is not None:
            directory.activate(lane)


def take_back(directory: RunDirectory, positions: Positions, until: int) -> None:
    """Go on for a shipper that is gone, and its cursor with it. What was logged before slot ``until``, and stood
    undelivered in ``positions``, the last ones that were seen, may be stored."""
    restore(directory, positions)
    for run, lane in list(directory.lanes.items()):
        if run < 0:
            continue
        if run in positions.reports:
            take_report_over(lane, positions.reports[run])
        for progress in (lane.progress, directory.uploads(lane).progress):
            progress.suspect_everything(before=until)
