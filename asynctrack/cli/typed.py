"""The verbs as Typer's: for help, completion, and what to say of a command line with a mistake in it."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from asynctrack.cli.declaring import Declared, with_fields
from asynctrack.cli.verbs import VERBS, canonical, carry_out, load
from asynctrack.errors import InvalidInputError

__all__ = ["Verbs", "quicken", "taking", "typed"]


class Verbs(TyperGroup):
    """The group of all verbs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = canonical(cmd_name)
        if name not in VERBS:
            return None
        found = load(name)
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            app.command(cls=taking(*found.fields, any_field=found.any_field))(typed(found.function))
            found = app
        command = get_command(found)
        command.name = name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            quicken(param)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        return carry_out(lambda: super(Verbs, self).invoke(ctx))


def typed(function: Callable[..., None]) -> Callable[..., None]:
    """The function with its options and arguments in Typer's terms."""
    hints = get_type_hints(function, include_extras=True)
    assert isinstance(function, FunctionType)
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__doc__ = function.__doc__
    made.__annotations__ = {name: _typed_hint(hint) for name, hint in hints.items()}
    return made


def _typed_hint(hint: Any) -> Any:
    wanted, *more = get_args(hint) or (hint,)
    if not more or not isinstance(more[0], Declared):
        return hint
    names, rest = more[0].names, dict(more[0].rest)
    if "callback" in rest:
        rest["callback"] = _checking(rest["callback"])
    if "completes" in rest:
        rest["autocompletion"] = _completing(rest.pop("completes"))
    return Annotated[wanted, typer.Option(*names, **rest) if names else typer.Argument(**rest)]


def _checking(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        try:
            return check(value)
        except InvalidInputError as error:
            raise typer.BadParameter(str(error)) from None

    return checked


def _completing(what: str) -> Callable[..., Any]:
    def complete(ctx: typer.Context, incomplete: str) -> Any:
        from asynctrack.cli.completing import complete_keys, complete_runs

        return (complete_runs if what == "runs" else complete_keys)(ctx.params.get("store"), incomplete)

    return complete


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
