"""The shipper process: ``python -m asynctrack.engine.shipper SPOOL`` delivers one spool beside its owner.

The owner, which logs, starts it with ``shipper="process"`` and pays for its log calls and nothing else: reading,
encoding and sending happen here, with an interpreter lock of their own. Credentials and settings come through the
environment. A byte on standard input asks for a look at the journal now. When the owner has ended, however it did, the
shipper delivers what is left, ends the runs that the owner could not end, and leaves.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from asynctrack.engine.pump import Pump
from asynctrack.engine.shipping import ship
from asynctrack.journal.spool import Spool
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


def main(path: str) -> int:
    """Deliver the spool at ``path`` until its owner is gone and it is empty. The process's exit status: 0 when nothing
    is left, 1 when something is, 2 when the spool cannot be had."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    # The owner's terminal and scheduler send these to everybody; the owner's end is what ours follows from.
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    spool = Spool.follow(path)
    if spool is None:
        return 2
    settings = current_settings()
    store = open_store(spool.owner.store, ThreadedIO())
    store.durable = settings.durability == "system"
    pump = Pump(store, settings)
    source = pump.add(spool, followed=True)
    if source is None:
        return 2
    source.reports = True
    owner = _Owner(spool.owner.pid)
    ended_at: float | None = None

    def stop(_idle: bool) -> bool:
        nonlocal ended_at
        if not source.followed and ended_at is None:
            ended_at = time.monotonic()
            source.end_status = owner.status()
        if source not in pump.sources:
            return True
        return ended_at is not None and time.monotonic() > ended_at + settings.close_timeout

    import anyio

    anyio.run(lambda: ship(pump, stop, wake=_listen))
    left = list(pump.sources)
    for rest in left:
        logger.error(
            "asynctrack: not everything could be delivered to %s%s. The rest is in %s; `asynctrack sync` ships it.",
            store.uri, f" ({pump.last_error})" if pump.last_error else "", path,
        )  # fmt: skip
        pump.let_go(rest)
    return 1 if left else 0


def _listen(wake: Callable[[], None]) -> None:
    def listen() -> None:
        while os.read(0, 4096):
            wake()
        wake()

    threading.Thread(target=listen, daemon=True).start()


class _Owner:
    """The process whose spool it is; how it ended, as far as the kernel tells."""

    def __init__(self, pid: int) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            self._fd = -1  # no Linux, or gone already

    def status(self) -> str:
        """What becomes of its open runs: FAILED where it ended by itself, KILLED where a signal ended it (or where
        the kernel, before Linux 6.15, does not say)."""
        info = bytearray(_WANT_EXIT.to_bytes(8, sys.byteorder) + bytes(_INFO_BYTES - 8))
        try:
            fcntl.ioctl(self._fd, _GET_INFO, info)
        except OSError:
            return "KILLED"
        known = int.from_bytes(info[:8], sys.byteorder) & _WANT_EXIT
        code = int.from_bytes(info[_EXIT_CODE:], sys.byteorder)
        return "FAILED" if known and os.WIFEXITED(code) else "KILLED"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
