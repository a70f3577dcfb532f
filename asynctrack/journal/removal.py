"""The one place that deletes a spool, and only against an account of every segment that lies in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from asynctrack.errors import SpoolError
from asynctrack.journal.opening import Descriptor, open_regular
from asynctrack.journal.refusals import RefusalLog
from asynctrack.journal.segment import Segment
from asynctrack.journal.slots import SLOT_SIZE

__all__ = [
    "DELETED",
    "Account",
    "SpoolRemoval",
    "is_blank",
    "is_emptied",
    "is_unused",
    "remove_deleted",
    "remove_folder",
]

#: behind the name of a spool's folder that is to go
DELETED = ".deleted"


class Account(NamedTuple):
    """What became of a spool's segments, by the names of their files.

    ``read``: read to their ends, and everything in them is delivered or refused. ``damaged``: cannot be read by
    anybody, which was reported. ``unreadable``: cannot be read now, with the reason; while there are such, nothing is
    deleted.
    """

    read: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    unreadable: tuple[str, ...] = ()


#: what says nothing without a registry and segments; deleted last
_REST = ("cursor", "cursor.new", "cursor.room", "slots.room", "owner.new", "shipper.log")
#: slots that are read at once
_BLOCK = 8192
_BLOCK_BYTES = _BLOCK * SLOT_SIZE
#: of a spool to which nothing was ever written
NOTHING = Account()


class SpoolRemoval:
    """Deletes the spool in ``folder``. Refused events, and the owner file that says whose they are, stay."""

    def __init__(self, folder: str, refusals: RefusalLog) -> None:
        self._folder = folder
        self._refusals = refusals

    def carry_out(self, account: Account) -> None:
        """Delete everything. Raises SpoolError, and deletes nothing, where a segment is not accounted for; and
        OSError."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return  # somebody has deleted it before
        slots = sorted(name for name in names if name.endswith(".slots"))
        if open_points := [*account.unreadable, *self._unaccounted(slots, account)]:
            raise SpoolError(f"{self._folder} is not deleted: {'; '.join(open_points[:3])}")
        kept = "rejected.jsonl" in names
        self._remove_artifacts(self._refusals.snapshots() if kept else set())
        frames = sorted(name for name in names if name.endswith(".frames"))
        # The owner file goes last: while it is there the folder is a spool, also for whoever looks at it now. The
        # cursor goes behind the registry: without it, runs that have ended would look as if their program had died.
        for name in [*slots, *frames, "registry", *_REST]:
            self._unlink(name)
        if not kept:
            self._remove_folder()

    def _remove_folder(self) -> None:
        """With the owner file, which is all that is left in it."""
        gone = self._folder
        try:
            if os.listdir(gone) == ["owner"]:  # what is not ours stays where it is, and the folder with it
                # Whoever is killed from here on leaves a folder that says by its name that it is to go.
                gone += DELETED
                os.rename(self._folder, gone)
        except FileNotFoundError:
            return  # somebody has deleted it meanwhile
        remove_deleted(gone)

    def _unaccounted(self, slots: Iterable[str], account: Account) -> Iterable[str]:
        for name in slots:
            if name in account.read or name in account.damaged:
                continue
            path = os.path.join(self._folder, name)
            try:
                # One that was made in advance and never used has nothing in it.
                if is_blank(path) or is_unused(Segment.open(path)):
                    continue
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                yield str(error)
            else:
                yield f"{name} has not been read to its end"

    def _remove_artifacts(self, kept: set[str]) -> None:
        """Delete the snapshots that are there: delivered ones, and those that a process died over before it logged
        them."""
        folder = os.path.join(self._folder, "artifacts")
        if not kept:
            remove_folder(folder)
            return
        for name in set(os.listdir(folder)) - kept if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                remove_folder(path)
            else:
                os.unlink(path)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._folder, name))
        except FileNotFoundError:
            pass  # never written, or removed by the user


def is_emptied(path: str) -> bool:
    """Whether the spool in ``path`` was being deleted, and nothing is left in it that says anything. Raises OSError."""
    return set(os.listdir(path)) <= {"owner", *_REST}


def remove_deleted(path: str) -> None:
    """Remove the rest of a spool's folder, which is named like that when nothing but its owner file is left. Raises
    OSError."""
    for remove, name in ((os.unlink, os.path.join(path, "owner")), (os.rmdir, path)):
        try:
            remove(name)
        except FileNotFoundError:
            pass  # somebody else has found it, too


def is_unused(segment: Segment) -> bool:
    """Whether nothing at all stands in a segment. Raises OSError."""
    return not any(any(segment.read(index, _BLOCK)) for index in range(0, segment.capacity, _BLOCK))


def is_blank(path: str) -> bool:
    """Whether its owner died while making this segment's file: nothing but zeros stands in it, no header either, and it
    has no frames. Raises OSError, and ValueError where it is no file."""
    if os.path.exists(path.removesuffix(".slots") + ".frames"):
        return False  # it was in use, and has been emptied since
    file = Descriptor(open_regular(path, os.O_RDONLY))
    return not any(any(file.read(_BLOCK_BYTES, at)) for at in range(0, file.size(), _BLOCK_BYTES))


def remove_folder(path: str) -> None:
    """Delete a folder with all that is in it, as far as possible."""
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil  # late: with its compression modules it would be a tenth of `import asynctrack`

        shutil.rmtree(path, ignore_errors=True)
