"""Where a run was opened: context variables carry it on from there, but not everywhere that a user thinks they do."""

from __future__ import annotations

import sys
import threading
import weakref

from asynctrack.stores.io import this_task

__all__ = ["Origin", "in_interactive_session"]


class Origin:
    """The task, or else the thread, in which a run was opened. Neither is kept alive by it."""

    __slots__ = ("_in_task", "_task", "_thread")

    def __init__(self) -> None:
        task = this_task()
        self._in_task = task is not None
        self._task = None if task is None else weakref.ref(task)
        self._thread = weakref.ref(threading.current_thread())

    @property
    def task_lives(self) -> bool:
        """Whether it is a task that still runs: the run is that task's, and no other task's."""
        task = None if self._task is None else self._task()
        if task is None:
            return False
        done = getattr(task, "done", None)
        if done is not None:
            return not done()
        return getattr(getattr(task, "coro", None), "cr_frame", None) is not None  # a trio task, which does not say

    @property
    def left(self) -> bool:
        """Whether nobody else is there any more: a task or a thread that is over has left the run open, or this thread
        has opened it, in a context of its own (a callback, a copied context)."""
        return not self.task_lives if self._in_task else self._thread_is_this_or_over()

    @property
    def left_here(self) -> bool:
        """The same, where no other thread is meant."""
        return self.left and self._thread_is_this_or_over()

    def _thread_is_this_or_over(self) -> bool:
        thread = self._thread()
        return thread is None or not thread.is_alive() or thread is threading.current_thread()


def in_interactive_session() -> bool:
    """Whether a person types the program bit by bit, in a notebook or at a prompt. A bit that awaits is a task of its
    own, which is over when the next one begins."""
    # Asked at each call of a function on the active run: `hasattr` would make an exception each time.
    if "ps1" in vars(sys):
        return True
    ipython = sys.modules.get("IPython")
    get_ipython = None if ipython is None else getattr(ipython, "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None
