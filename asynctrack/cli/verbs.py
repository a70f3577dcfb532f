"""The verbs of the command. Each is loaded when it is called, so that none waits for what another needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from asynctrack.errors import AsynctrackError, InvalidInputError, NotFoundError

__all__ = [
    "FAILED", "INTERRUPTED", "NOT_FOUND", "TIMED_OUT", "USAGE", "Verbs", "quicken", "taking", "verb", "with_fields",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., None])

#: exit statuses besides 0
FAILED, USAGE, NOT_FOUND, TIMED_OUT, INTERRUPTED = 1, 2, 3, 124, 130

#: module of `asynctrack.cli` by verb; each has an `app`. In the order in which help lists them, with what it says there
_VERBS = {
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
_ALIASES = {"ls": "runs"}


class Verbs(TyperGroup):
    """The group of all verbs. An error of ours ends a verb with a line on standard error and the status that says
    what kind it was."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = _ALIASES.get(cmd_name, cmd_name)
        if name not in _VERBS:
            return None
        from importlib import import_module

        command = get_command(import_module(f"asynctrack.cli.{_VERBS[name][0]}").app)
        command.name = name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _VERBS.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            quicken(param)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # Whoever read has read enough (`| head`). What is still to be written goes nowhere, also at the exit.
            _discard_output()
            raise typer.Exit(0) from None
        except AsynctrackError as error:
            from asynctrack.cli.terminal import clean

            print(f"asynctrack: {clean(error)}", file=sys.stderr, flush=True)
            raise typer.Exit(_status(error)) from None
        except OSError as error:
            # Of a verb's own files its errors tell. What is left is standard output: a full disk, a lost terminal.
            _discard_output()
            print(f"asynctrack: cannot write: {error}", file=sys.stderr, flush=True)
            raise typer.Exit(FAILED) from None


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


def verb(*fields: str, any_field: bool = False) -> tuple[typer.Typer, Callable[[F], F]]:
    """The `app` of a verb's module, and the decorator of its function.

    ``fields``: what ``--json`` can be asked for. ``any_field``: whether there are others, which only the runs tell.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    return app, app.command(cls=taking(*fields, any_field=any_field))


def taking(*fields: str, any_field: bool = False) -> type[TyperCommand]:
    """The class of a command that takes ``--json`` with a value and without."""

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for param in self.get_params(ctx):
                quicken(param)
            return super().parse_args(ctx, with_fields(args, fields, any_field) if fields else args)

    return Command


def quicken(param: Any) -> None:
    """Spare a parameter pydantic, with which Typer since 0.29 converts each value: loading it takes longer than all
    the rest of a verb. Other versions of Typer do not look here, and convert as they do."""
    if getattr(param, "_runtime_param", param) is None:
        wanted = param.type_descriptor.annotation
        if wanted in (str, bool, int, float, list[str]):
            param._runtime_param = _Plain(wanted)


class _Plain:
    """What a text needs to become an option's value; nothing, mostly."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if isinstance(value, str) and self._wanted in (int, float):
            return self._number(value, self._wanted, param, ctx)
        return value

    @staticmethod
    def _number(text: str, wanted: Any, param: Any, ctx: Any) -> Any:
        least = getattr(param.type_descriptor.parameter_info, "min", None)
        try:
            number = wanted(text)
        except ValueError:
            number = None
        if number is None or (least is not None and not number >= least):
            what = "a whole number" if wanted is int else "a number"
            above = "" if least is None else f", {least} or more"
            raise typer.BadParameter(f"{text!r} is not {what}{above}", ctx=ctx, param=param)
        return number


def with_fields(args: list[str], fields: tuple[str, ...], any_field: bool = False) -> list[str]:
    """The arguments, with ``--json`` written as ``--json=`` and what is asked for; nothing asks for all.

    What stands behind ``--json`` is FIELDS where it can only be that: names with commas between them, or names of
    fields. Else it is an argument of its own, like a run.
    """
    found: list[str] = []
    taken = False
    for index, each in enumerate(args):
        if taken:
            taken = False
        elif each == "--":
            return found + args[index:]
        elif each == "--json":
            after = args[index + 1] if index + 1 < len(args) else "-"
            taken = not after.startswith("-") and _are_fields(after, fields, any_field)
            found.append(f"--json={after if taken else ''}")
        else:
            found.append(each)
    return found


def _are_fields(text: str, fields: tuple[str, ...], any_field: bool) -> bool:
    if any_field:
        return not any(character in text for character in " <>='\"")
    return "," in text or text in fields
