"""Holds back the signals whose handlers are Python functions, while a fork is under way.

Such a handler runs in the main thread between any two steps, and may raise an exception there, as Ctrl-C does. In the
hooks of a fork Python only prints that and goes on: what the hook was about to do is left undone, a lock that it holds
stays held, and Ctrl-C is lost.

Two things are needed. To block a signal in the thread that forks keeps it from the child, which has no other thread. In
the parent it does not help: the kernel gives the signal to another thread, and Python has the main thread handle it all
the same. So another handler is in the place of the program's for a while, which only remembers.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # enum, which signal imports, makes it a tenth of `import asynctrack`

__all__ = ["hold_back", "interrupted", "let_through"]

#: every signal, Ctrl-C first: it is held back before the others, and comes through again behind them
_NUMBERS = sorted(getattr(_signal, "valid_signals", set)(), key=lambda number: (number != _signal.SIGINT, number))
#: where handlers are from that raise nothing: asyncio's only wakes its loop, ours puts a signal off while a fork is
#: under way
_RAISES_NOTHING = ("asyncio.", "asynctrack.")


class _Forking(threading.local):
    """The signals that a thread which forks has blocked for that; None while it does not. Several may fork at once."""

    blocked: list[int] | None = None


_forking = _Forking()
#: whether the main thread forks
_holding = False
#: the handlers that `_later` is in the place of
_handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
#: the signals that have come meanwhile
_came: list[Any] = []


def hold_back() -> None:
    """Before a fork. Called again by each hook, in case the one before was interrupted."""
    try:
        _hold_back()
    except KeyboardInterrupt:  # it has come before it could be held back
        _came.append(_signal.SIGINT)
        _hold_back()


def interrupted() -> bool:
    """Whether a signal waits for this thread's fork to be over."""
    return bool(_came) and _in_main_thread()


def let_through(*, in_child: bool) -> None:
    """After the fork: have the handlers called as soon as the hook that calls this has returned. A child handles those
    that came to itself."""
    global _came, _handlers, _holding
    blocked, _forking.blocked = _forking.blocked, None
    if blocked is None:
        return
    if in_child:
        _came = []
        _take_the_handlers_place()  # another thread than the main one may have forked
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, blocked)
    if not _in_main_thread():
        return
    numbers = [number for number in reversed(_handlers) if _signal.getsignal(number) is _later]
    restored = map(_signal.signal, numbers, [_handlers[number] for number in numbers])
    come_again = map(_thread.interrupt_main, _came)
    try:
        # Handlers are called behind a call, and not while a list is made, nor as a function returns: the next call
        # that there is behind these is the program's, which can handle what they raise.
        _ = [*restored, *come_again]
        _handlers = {}
    finally:
        _holding, _came = False, []


def _hold_back() -> None:
    if _forking.blocked is None:
        handled = _take_the_handlers_place()
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        _forking.blocked = [number for number in handled if number not in before]
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _forking.blocked)


def _take_the_handlers_place() -> list[int]:
    """In the main thread, where alone Python calls them and lets them be set. The signals that have handlers."""
    global _holding
    _holding = (mine := _in_main_thread()) or _holding
    handled = []
    for number in _NUMBERS:
        handler = _signal.getsignal(number)
        if callable(handler):
            handled.append(number)
            if mine and handler is not _later and not _raises_nothing(handler):
                _handlers[number] = handler
                with suppress(ValueError):  # threading takes another thread for the main one than Python does
                    _signal.signal(number, _later)
    return handled


def _later(number: int, frame: FrameType | None) -> None:
    handler = _handlers.get(number)
    if _holding:
        _came.append(number)
    elif handler is not None:  # somebody else has put it back here
        handler(number, frame)


def _raises_nothing(handler: object) -> bool:
    return str(getattr(handler, "__module__", "")).startswith(_RAISES_NOTHING)


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident
