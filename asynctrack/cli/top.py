"""``asynctrack top``: the runs of a store in the terminal, live."""

from __future__ import annotations

import sys

from asynctrack.cli.asking import open_store
from asynctrack.cli.options import StoreArgument
from asynctrack.cli.terminal import Terminal
from asynctrack.cli.verbs import FAILED, verb

__all__ = ["top"]

_command = verb()


@_command
def top(uri: StoreArgument = None) -> None:
    """Show the runs of a store in the terminal, live, until q.

    Press ? for the keys. No spike is lost: each column of a chart shows the
    smallest and the largest value in it. Nothing is changed anywhere.

    Exit status: 0 after q, 1 where there is no terminal, 3 if the store is not
    there.
    """
    terminal = Terminal()
    if not terminal.redraws or not sys.stdin.isatty():
        print(
            "asynctrack: top needs a terminal; `asynctrack runs` and `plot` also write into pipes",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(FAILED)
    try:
        from asynctrack.tui.app import Top
        from asynctrack.tui.panes import Pen
        from asynctrack.tui.watcher import Watcher
        from asynctrack.ui.board import Board
    except ImportError as error:
        print(f"asynctrack: top needs {error.name}: pip install 'asynctrack[tui]'", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None
    store = open_store(uri)
    watcher = Watcher(Board(store))
    Top(watcher, store.uri, Pen(terminal.colour, not terminal.unicode)).run(mouse=False)
    if watcher.failure is not None:
        raise watcher.failure
