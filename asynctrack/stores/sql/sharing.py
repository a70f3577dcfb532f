"""Leaving others a chance at an SQLite file, and warning of file systems on which several cannot share one."""

from __future__ import annotations

import logging
import os
import sqlite3
import time

from asynctrack.clock import monotonic
from asynctrack.journal.filesystem import filesystem_of
from asynctrack.stores.sql.turnstile import Turnstile

__all__ = ["Manners", "warn_of_network"]

logger = logging.getLogger("asynctrack")

#: file systems whose locks SQLite says not to rely on
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
)
_warned: set[str] = set()

#: a name of its own, so that a test sees what is done in a break
rest = time.sleep

#: seconds: SQLite's own wait, which MLflow uses, looks for a free moment every 100 ms at last
_ROUND = 0.12
#: seconds of writing without a break, and for how long somebody else's commit makes us leave room for more
_STRETCH, _COMPANY = 3.0, 5.0
#: longest break in seconds: a transaction may take that long because its disk is slow
_LONGEST = 1.0


class Manners:
    """When to wait around a transaction, so that others come to theirs. Used under the database's lock.

    SQLite has no queue: whoever waits looks now and then whether the file is free, and a writer without a break is
    never out. So every three seconds of writing there is a break in which everybody who waits has looked. When somebody
    has written then, we are in company, for five seconds from each of their commits: those of us who write take turns,
    and after each transaction the file is left alone for as long as that took.
    """

    def __init__(self, path: str) -> None:
        self._turnstile = Turnstile(path)
        self._free_from = self._began = self._ended = self._since = self._company_until = 0.0
        self._version: int | None = None

    def enter(self, until: float) -> None:
        """Wait until it is our turn again, at most until ``until``."""
        if monotonic() < self._company_until:
            self._turnstile.enter(until)
        wait = min(self._free_from, until) - monotonic()
        if wait > 0:
            rest(wait)

    def refused(self, until: float) -> None:
        """Somebody else is writing at this moment; wait until it is our turn, at most until ``until``."""
        self._company_until = monotonic() + _COMPANY
        self._turnstile.enter(until)

    def began(self, connection: sqlite3.Connection) -> None:
        """A transaction has begun, with the lock that it needs to write."""
        self._began = monotonic()
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if self._version not in (None, version):  # another connection has committed since we last looked
            self._company_until = self._began + _COMPANY
        self._version = version

    def committed(self) -> None:
        """The transaction has ended. In company the others have their time now."""
        now = monotonic()
        if self._began - self._ended > _ROUND:
            self._since = self._began  # there was a break
        self._ended = now
        if now < self._company_until:
            rest(min(now - self._began, _LONGEST))
        elif now - self._since > _STRETCH:
            self._free_from = self._since = now + _ROUND

    def leave(self) -> None:
        """Let the next one of us in."""
        self._turnstile.leave()


def warn_of_network(path: str) -> None:
    """Say once that a database is on a network file system, if it is."""
    if path in _warned:
        return
    try:
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
    except OSError:
        return  # whoever opens the database will be told
    try:
        name = filesystem_of(fd)
    finally:
        os.close(fd)
    if name.removeprefix("fuse.") in _NETWORK or name == "fuse.sshfs":
        _warned.add(path)
        logger.warning(
            "asynctrack: %s is on a network file system (%s), where SQLite's locks are not reliable: two machines that "
            "write it can destroy it. Let each write a database of its own, or log through `mlflow server`",
            path, name,
        )  # fmt: skip
