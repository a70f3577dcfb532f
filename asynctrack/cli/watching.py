"""A view that is drawn anew again and again: ``-w``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from asynctrack.cli.terminal import Terminal, clean, cut
from asynctrack.errors import UnavailableError

__all__ = ["watch"]

#: seconds between two looks
_EVERY = 1.0
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
#: the other screen, as editors use it, so that the shell's lines are there again afterwards; without a cursor
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def watch(draw: Callable[[Terminal], str], done: Callable[[], bool] = lambda: False) -> None:
    """Show what ``draw`` returns, every second, until ``done``; Ctrl-C raises KeyboardInterrupt. Where the output is
    no terminal that can be redrawn, one picture follows the other."""
    if not Terminal().redraws:
        _follow(draw, done)
        return
    last = ""
    try:
        sys.stdout.write(_ENTER)
        while True:
            terminal = Terminal()
            try:
                last = draw(terminal)
                trouble = ""
            except UnavailableError as error:  # it may come back; what was there last stays to be seen
                trouble = cut(f"{clean(error)}; trying again", terminal.width, terminal.more)
            lines = last.rstrip("\n").split("\n")[: terminal.height - 1 - bool(trouble)]
            lines += [terminal.style(trouble, "red")] if trouble else []
            # Line by line over what is there: clearing the screen first would flicker.
            sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
            sys.stdout.flush()
            if done():
                break
            time.sleep(_EVERY)
    finally:
        sys.stdout.write(_LEAVE + last)
        sys.stdout.flush()


def _follow(draw: Callable[[Terminal], str], done: Callable[[], bool]) -> None:
    while True:
        try:
            sys.stdout.write(draw(Terminal()) + "\n")
        except UnavailableError as error:
            print(f"asynctrack: {clean(error)}; trying again", file=sys.stderr, flush=True)
        sys.stdout.flush()
        if done():
            return
        time.sleep(_EVERY)
