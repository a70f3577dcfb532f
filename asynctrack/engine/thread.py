"""The engine's thread: started when there is something to do, supervised, ended when there is nothing."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from importlib import import_module
from shlex import quote

from asynctrack.clock import monotonic
from asynctrack.engine.consumer import Consumer, Context
from asynctrack.engine.waiters import Request
from asynctrack.errors import AsynctrackError
from asynctrack.stores.io import deliver_here

__all__ = ["EngineThread"]

logger = logging.getLogger("asynctrack")

#: seconds before a thread that an error has thrown out goes on: at first, and at most
_PAUSE, _LONGEST_PAUSE = 0.5, 60.0


class EngineThread:
    """Runs a consumer, in one thread at a time. Any thread may call."""

    def __init__(self, context: Context, consumer: Consumer) -> None:
        self._context = context
        self._consumer = consumer
        self._thread: threading.Thread | None = None
        #: held by whoever delivers: the thread, or, where there is none, who ends the engine. While the interpreter is
        #: ending, a thread may just be being started.
        self._delivers = threading.Lock()
        self._dead: AsynctrackError | None = None

    @property
    def there(self) -> bool:
        """Whether one was started, or is just being started."""
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Have one. Called with the engine's lock held."""
        ending = self._context.ending
        if self._thread is not None or ending.finished.is_set():
            return
        # Before the thread is started: it wants every fork to call it before and after, and a fork that waits for our
        # imports has asked already who wants to be called before.
        with suppress(RuntimeError):  # the interpreter is ending: this engine does without threads then
            import_module("concurrent.futures.thread")
        # Before it is started: a signal handler that comes here in between finds one.
        self._thread = threading.Thread(target=self._main, name="asynctrack", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # At interpreter exit (Python 3.12 and later) no thread can be started: `finish` is called in its stead.
            ending.asked |= "shutdown" in str(error)
            if not ending.asked:
                self._thread = None
                kept = f"Events are kept in {self._context.journal.spool.place}; trying again with the next"
                self._context.trouble.error(f"cannot start the background thread: {error}. {kept}")

    def finish(self) -> None:
        """Where there is none that would: deliver the rest here."""
        left = self._context.ending.deadline - monotonic()
        if not self._delivers.acquire(timeout=min(max(left, 0.0), threading.TIMEOUT_MAX)):
            return  # there is one by now
        try:
            if self._dead is None and not self._context.ending.finished.is_set():
                self._consumer.finish()
            self._over()
        finally:
            self._delivers.release()

    def answer_the_rest(self) -> None:
        """It is over: nobody else is to wait for an answer."""
        if self._dead is None and not self._context.ending.left_behind:
            self._context.waiters.answer_all(self._resolve)
            return
        kept = f"what is not delivered waits in {self._context.journal.spool.place}"
        self._context.waiters.fail(self._dead or AsynctrackError(f"asynctrack has been shut down; {kept}"))

    def _resolve(self, request: Request) -> None:
        lane = self._consumer.lane(abs(request.run))
        request.receipt.resolve(lane.info if lane is not None else None)

    def _main(self) -> None:
        with self._delivers:  # the thread before this one may be just leaving
            if not self._context.ending.finished.is_set():
                self._deliver()

    def _deliver(self) -> None:
        deliver_here()
        try:
            while not self._context.ending.asked:
                self._run()
                if self._may_leave():
                    self._say_gone()
                    return
            self._consumer.finish()
        except BaseException as error:
            self._died(error)
        self._context.wakeup.use_loop(None)
        self._over()

    def _over(self) -> None:
        self._context.ending.finished.set()
        self.answer_the_rest()

    def _run(self) -> None:
        """What the consumer does, again and again, whatever throws it out."""
        pause = _PAUSE
        while not self._context.ending.asked:
            begun = monotonic()
            try:
                self._consumer.run()
            except BaseException as error:  # whatever it is, and whosesoever, it must not end all delivery
                self._say_thrown_out(error)
            else:
                return
            finally:
                self._context.wakeup.use_loop(None)
            if monotonic() > begun + _LONGEST_PAUSE:
                pause = _PAUSE
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _may_leave(self) -> bool:
        """Whether this thread is done with; another is started when there is something to do."""
        if not self._context.lock.acquire(blocking=False):
            return False  # somebody opens a run, or was interrupted there by a signal handler that waits for us
        try:
            if self._context.ending.asked or not self._consumer.idle:
                return False
            thread, self._thread = self._thread, None
            if self._context.waiters:  # somebody has asked meanwhile, and may have seen a thread
                self._thread = thread
            return self._thread is None
        finally:
            self._context.lock.release()

    def _say_gone(self) -> None:
        if self._context.ending.asked:
            self._over()  # asked for just now, by somebody who may have seen this thread, and waits for it

    def _say_thrown_out(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # a task group's
        kept = f"events are kept in {self._context.journal.spool.place}, and it goes on"
        self._context.trouble.error(f"the background thread was thrown out by {error!r}; {kept}", error)

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        while not self._context.ending.asked and (left := until - monotonic()) > 0:
            self._context.wakeup.sleep(left)

    def _died(self, error: BaseException) -> None:
        self._context.ending.left_behind = True
        path = self._context.journal.spool.path
        advice = "" if path is None else f"; once this program has ended, `asynctrack sync {quote(path)}` delivers them"
        dead = f"the background thread has died: {error!r}. Events are kept in {path or 'memory'}{advice}"
        self._dead = AsynctrackError(dead)
        logger.error("asynctrack: %s", dead, exc_info=error)
