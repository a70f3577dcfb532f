"""The shipper process: ``python -m asynctrack.engine.shipper SPOOL PIDFD`` delivers one spool beside its owner.

The owner, which logs, starts it with ``shipper="process"`` and pays for its log calls and nothing else: reading,
encoding and sending happen here, with an interpreter lock of their own. Credentials and settings come through the
environment. A byte on standard input asks for a look at the journal now. When the owner has ended, however it did, the
shipper delivers what is left, ends the runs that the owner could not end, and leaves.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from asynctrack.clock import monotonic
from asynctrack.delivery.pump import Pump
from asynctrack.delivery.source import Source
from asynctrack.engine.shipping import ship
from asynctrack.journal.homes import spool_homes
from asynctrack.journal.spool import Spool
from asynctrack.platforms import fcntl
from asynctrack.settings import current_settings
from asynctrack.stores.io import ThreadedIO
from asynctrack.stores.uri import open_store

__all__ = ["main"]

logger = logging.getLogger("asynctrack")

#: <linux/pidfd.h>: struct pidfd_info ends, as far as it is used here, with the exit code; the ioctl that fills it
_INFO_BYTES, _EXIT_CODE = 64, 60
_GET_INFO = (3 << 30) | (_INFO_BYTES << 16) | (0xFF << 8) | 11
#: in its first field: asks for the exit code, and says that it is there
_WANT_EXIT = 1 << 3
#: seconds to wait for the kernel to say how the owner has ended
_PATIENCE = 1.0


def main(path: str, owner: int = -1) -> int:
    """Deliver the spool at ``path`` until its owner (a pidfd) is gone and it is empty.

    The process's exit status: 0 when nothing is left, 1 when something is, 2 when the spool cannot be had.
    """
    # Into a file, from which the owner hands it on to the loggers that its program has set up.
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr, level=logging.WARNING)
    logger.setLevel(logging.INFO)
    # The owner's terminal and scheduler send these to everybody; the owner's end is what ours follows from.
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    spool = Spool.follow(path, here=True)
    if spool is None:
        return 2
    settings = current_settings()
    store = open_store(spool.owner.store, ThreadedIO())
    store.durable = settings.durability == "system"
    pump = Pump(store, settings)
    own = pump.add(spool, followed=True)
    if own is None:
        return 2
    own.start_reporting()
    own.end_status = _Owner(spool.owner.pid, owner).status
    pump.adopt_orphans([os.path.dirname(os.path.abspath(path)), *spool_homes(settings.spool_dir, store.uri)])
    import anyio

    anyio.run(lambda: ship(pump, _stop(pump, own, settings.close_timeout), wake=_listen))
    left = own in pump.sources
    if left:
        error = f" ({pump.last_error})" if pump.last_error else ""
        # Aloud the owner says it, if it is there.
        logger.info("asynctrack: not everything could be delivered to %s%s", store.uri, error)
    for source in list(pump.sources):
        pump.let_go(source)
    return 1 if left else 0


def _stop(pump: Pump, own: Source, patience: float) -> Callable[[bool], bool]:
    """Whether to leave: nothing is left to do, or the owner has been gone for ``patience`` seconds."""
    ended_at: float | None = None

    def stop(_idle: bool) -> bool:
        nonlocal ended_at
        if own.followed:
            return False
        ended_at = ended_at or monotonic()
        return not pump.sources or monotonic() > ended_at + patience

    return stop


def _listen(wake: Callable[[], None]) -> None:
    """Have the loop look at the journal when the owner says so, and when it is gone."""

    def listen() -> None:
        try:
            while os.read(0, 4096):
                wake()
            wake()
        except RuntimeError:
            pass  # the loop has ended, and the process with it

    threading.Thread(target=listen, daemon=True).start()


class _Owner:
    """The process whose spool it is; how it ended, as far as the kernel tells."""

    def __init__(self, pid: int, fd: int) -> None:
        self._pid = pid
        self._fd = fd
        self._asked_at: float | None = None

    def status(self) -> str | None:
        """What becomes of the runs that it has not ended: FAILED where it ended by itself, KILLED where a signal ended
        it or the kernel does not say; None while it may still say so."""
        self._asked_at = self._asked_at or monotonic()
        code = self._exit_code() if self._fd >= 0 else None
        if code is not None:
            return "FAILED" if os.WIFEXITED(code) else "KILLED"
        waits = self._fd >= 0 and monotonic() < self._asked_at + _PATIENCE
        return None if waits else "KILLED"

    def _exit_code(self) -> int | None:
        """As `os.wait` gives it. The kernel knows it of a process that nobody has waited for yet, and since Linux 6.15
        afterwards, too."""
        info = bytearray(_WANT_EXIT.to_bytes(8, sys.byteorder) + bytes(_INFO_BYTES - 8))
        try:
            fcntl.ioctl(self._fd, _GET_INFO, info)
            if int.from_bytes(info[:8], sys.byteorder) & _WANT_EXIT:
                return int.from_bytes(info[_EXIT_CODE:], sys.byteorder)
        except OSError:
            pass  # an older kernel
        try:
            with open(f"/proc/{self._pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return None
        return int(fields[-1]) if fields[0] == "Z" else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
