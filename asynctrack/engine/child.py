"""The shipper process as seen by its owner: start it, wake it, look how it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress

from asynctrack.journal.opening import Descriptor, file_of, leads_to, reopened
from asynctrack.reentrant import RLock
from asynctrack.settings import Settings
from asynctrack.stores.uri import userinfo_of

__all__ = ["LOG", "ShipperProcess", "Tail", "shipper_environment"]

#: the file in the spool for the shipper's messages, each behind the name of its level
LOG = "shipper.log"

#: seconds to wait for a process that was killed
_PATIENCE = 5.0

#: settings that cannot go through the environment, or are not the shipper's business
_NOT_HANDED_ON = ("on_error", "token", "shipper", "handle_sigterm")
#: the beginnings of the names of variables that credentials are read from
_CREDENTIALS = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "NETRC", "PG")


def shipper_environment(store_uri: str, settings: Settings) -> dict[str, str]:
    """The shipper's environment: this process's, and what the program has set in other ways."""
    environment = dict(os.environ)
    for name, value in settings._asdict().items():
        if name not in _NOT_HANDED_ON and value is not None:
            environment[f"ASYNCTRACK_{name.upper()}"] = str(value)
    userinfo = userinfo_of(store_uri)
    if userinfo is not None and store_uri.startswith("postgresql:"):
        environment["PGPASSWORD"] = userinfo[1]
    elif userinfo is not None:
        environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"] = userinfo
    # It finds the modules that this process would find, in the same order.
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return environment


class ShipperProcess:
    """One shipper at a time for one spool. Started and looked at by one thread; any thread may wake it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._credentials: dict[str, str] = {}
        #: the end of its standard input that we write to, and which file that is
        self._pipe, self._pipe_file = -1, (0, 0)
        self._pipe_lock = RLock()

    @property
    def started(self) -> bool:
        """Whether there ever was one."""
        return self._process is not None

    @property
    def status(self) -> int | None:
        """How it has ended; None while it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, spool: str, environment: Mapping[str, str]) -> None:
        """Raises OSError, and RuntimeError where the interpreter is ending and no process can be started any more."""
        self._credentials = _credentials(environment)
        self._close_pipe()
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pipe_file = file_of(self._pipe)
        watched, log = _own_pidfd(), _open_log(spool)
        try:
            self._process = subprocess.Popen(
                # -P: whatever modules lie in the working directory are none of ours.
                [sys.executable, "-P", "-m", "asynctrack.engine.shipper", spool, str(watched)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,
                pass_fds=() if watched < 0 else (watched,),
            )
        finally:
            for fd in (reading, watched, log):
                if fd >= 0:
                    os.close(fd)

    def wake(self) -> None:
        """Have it look at the journal now. Never blocks; safe in signal handlers."""
        # Whoever else holds it is just waking it, too, or closing the pipe.
        if self._pipe_lock.acquire(blocking=False):
            try:
                if leads_to(self._pipe, self._pipe_file):  # and is not another file's, since somebody has closed it
                    os.write(self._pipe, b"!")
            except OSError:
                pass  # it has just ended, or cannot keep up with being woken
            finally:
                self._pipe_lock.release()

    def knows(self, environment: Mapping[str, str]) -> bool:
        """Whether it was started with these credentials."""
        return _credentials(environment) == self._credentials

    def kill(self) -> None:
        """End it; what it was just sending, its successor sends again, once."""
        if self._process is not None:
            self._process.kill()
            # One that hangs in the kernel (on a dead disk, say) does nothing more either.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        self.let_go()

    def let_go(self) -> None:
        """It goes on without us, or has ended: in a forked child it is the parent's."""
        self._close_pipe()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.returncode = 0  # nothing to wait for, and so nothing for Python to warn of

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._pipe_lock = RLock()  # another thread of the parent may have held it at the fork
        self.let_go()

    def _close_pipe(self) -> None:
        # Not in the middle of a write, which would go to whatever gets the number next. Who holds the lock may be
        # suspended by a signal handler that waits for us.
        if self._pipe >= 0 and self._pipe_lock.acquire(timeout=1.0):
            pipe, self._pipe = self._pipe, -1
            if leads_to(pipe, self._pipe_file):
                os.close(pipe)
            self._pipe_lock.release()


class Tail:
    """What other processes append to a file, line by line. One that is deleted meanwhile, or replaced by another, is
    read to its end first; of the other one only the lines that this one did not have."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Descriptor | None = None
        #: how far it was read
        self._at = 0
        self._rest = b""
        #: lines of the file that was replaced, and how often each: its successor may begin with some of them
        self._known: Counter[bytes] = Counter()

    def lines(self) -> Iterator[bytes]:
        """The whole lines since the last time. Raises OSError."""
        file = self._file
        if file is None:
            try:
                file = Descriptor(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                return
            self._at = 0
        elif not file.is_ours:
            file = reopened(file, self._path, os.O_RDONLY)
        self._file = file
        while data := file.read(1 << 16, self._at):
            self._at += len(data)
            *whole, self._rest = (self._rest + data).split(b"\n")
            for line in whole:
                if self._known[line] > 0:
                    self._known[line] -= 1
                else:
                    yield line
        self._known.clear()
        try:
            about = os.stat(self._path)
            if file.file != (about.st_dev, about.st_ino):
                self._known = Counter(file.read(file.size(), 0).split(b"\n"))
                self.close()
        except FileNotFoundError:
            pass  # deleted; there may be another one later

    def close(self) -> None:
        """Let go of it."""
        file, self._file = self._file, None
        if file is not None:
            file.is_ours  # noqa: B018  # else it is not closed


def _open_log(spool: str) -> int:
    """Where the shipper says what it has to say. Not our own standard error: whoever reads that to its end, as
    launchers do, would have to wait for the shipper to leave."""
    try:
        path = os.path.join(spool, LOG)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _own_pidfd() -> int:
    """What the shipper learns from how this process has ended, even if that is before it looks; -1: not here."""
    try:
        return os.pidfd_open(os.getpid())
    except (OSError, AttributeError):
        return -1  # no Linux, or one of before 5.3


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_CREDENTIALS)}
