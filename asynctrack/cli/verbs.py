"""The verbs of the command, and how one is called. Each is loaded when it is called, so that none waits for what
another needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from asynctrack.cli.declaring import Unclear, Verb
from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError

__all__ = [
    "FAILED", "INTERRUPTED", "NOT_FOUND", "TIMED_OUT", "USAGE", "VERBS", "call_plainly", "canonical", "carry_out",
    "load", "verb",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., None])

#: exit statuses besides 0
FAILED, USAGE, NOT_FOUND, TIMED_OUT, INTERRUPTED = 1, 2, 3, 124, 130

#: module of `asynctrack.cli` by verb; In the order in which help lists them, with what it says there
VERBS = {
    "runs": ("runs", "List runs: those that are running first, then the latest start."),
    "show": ("show", "Show one run: params, tags, and last, min and max of each metric."),
    "tail": ("tail", "Print the last steps of a run, or go on until it ends."),
    "plot": ("plot", "Draw metrics of runs, here or into a file."),
    "compare": ("compare", "Show runs side by side: params, tags, last values of metrics."),
    "diff": ("diff", "Show what differs between two runs."),
    "export": ("export", "Write all points of runs as csv, jsonl, parquet or arrow."),
    "wait": ("wait", "Wait until a run's metrics fulfil a condition."),
    "view": ("view", "Show the runs of a store in a browser, live, until Ctrl-C."),
    "top": ("top", "Show the runs of a store in the terminal, live, until q."),
    "doctor": ("doctor", "Show which store is used, whether it answers, and what is set."),
    "spool": ("spool", "Show what waits on this machine, and what stores have refused."),
    "sync": ("sync", "Deliver what programs that have ended, or are offline, left here."),
    "import": ("importing", "Write all runs of a folder of MLflow's files into another store."),
}
ALIASES = {"ls": "runs"}
#: those with verbs of their own, which Typer reads
_GROUPS = ("spool",)
#: by the name of the module
_declared: dict[str, Verb] = {}


def canonical(name: str) -> str:
    """The verb that is called so, also by another name."""
    return ALIASES.get(name, name)


def verb(*fields: str, any_field: bool = False) -> Callable[[F], F]:
    """The decorator of a verb's function.

    ``fields``: what ``--json`` can be asked for. ``any_field``: whether there are others, which only the runs tell.
    """

    def declare(function: F) -> F:
        _declared[function.__module__] = Verb(function, fields, any_field)
        return function

    return declare


def load(name: str) -> Any:
    """A verb: a `Verb`, or for one with verbs of its own its Typer ``app``."""
    from importlib import import_module

    module = import_module(f"asynctrack.cli.{VERBS[name][0]}")
    return module.app if name in _GROUPS else _declared[module.__name__]


def call_plainly(words: Sequence[str]) -> bool:
    """Whether the command line could be read without Typer, and what it says was done. Raises SystemExit."""
    name = canonical(words[0]) if words else ""
    if name not in VERBS or name in _GROUPS or any(each.endswith("_COMPLETE") for each in os.environ):
        return False
    called: Verb = load(name)
    try:
        values = called.read(words[1:])
    except Unclear:
        return False
    try:
        carry_out(lambda: called.function(**values))
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    return True


def carry_out(work: Callable[[], Any]) -> Any:
    """Do it. An error of ours becomes a line on standard error and the status that says what kind it was. Raises
    SystemExit."""
    try:
        result = work()
        sys.stdout.flush()
        return result
    except BrokenPipeError:
        # Whoever read has read enough (`| head`). What is still to be written goes nowhere, also at the exit.
        _discard_output()
        raise SystemExit(0) from None
    except AsynctrackError as error:
        from asynctrack.cli.terminal import clean

        print(f"asynctrack: {clean(error)}", file=sys.stderr, flush=True)
        raise SystemExit(_status(error)) from None
    except OSError as error:
        # Of a verb's own files its errors tell. What is left is standard output: a full disk, a lost terminal.
        _discard_output()
        print(f"asynctrack: cannot write: {error}", file=sys.stderr, flush=True)
        raise SystemExit(FAILED) from None


def _status(error: AsynctrackError) -> int:
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    return USAGE if isinstance(error, InvalidInputError) else FAILED


def _discard_output() -> None:
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass  # standard output is no file: nothing is flushed to it at the exit
