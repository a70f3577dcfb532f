"""What the tests of the verbs share: calling them, and some runs to look at."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

import asynctrack
from asynctrack.cli.command import app
from asynctrack.cli.typed import Verbs
from asynctrack.cli.verbs import call_plainly


class Said(NamedTuple):
    """What a verb has printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """Its lines of TSV, by title."""
        titles, *lines = [line.split("\t") for line in self.out.splitlines()]
        return [dict(zip(titles, line, strict=True)) for line in lines]


Call = Callable[..., Said]

#: before Click 8.2 a runner has to be told to keep the two streams apart; since then it always does
_APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
_RUNNER = CliRunner(**_APART)


class _AsMain(Verbs):
    """Typer is asked only where a line cannot be read without it, as in `asynctrack.cli.main`."""

    def main(self, args: Any = None, *more: Any, **rest: Any) -> Any:
        return None if call_plainly(args) else super().main(args, *more, **rest)


_APP = typer.Typer(cls=_AsMain, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
_APP.registered_callback = app.registered_callback
_APP.registered_callback.cls = _AsMain  # type: ignore[union-attr]  # it has one


@pytest.fixture
def call() -> Call:
    """Call the command; ``status`` is the exit status that is expected."""

    def call(*arguments: str, status: int = 0, **environment: str) -> Said:
        result = _RUNNER.invoke(_APP, list(arguments), env=environment)
        assert result.exit_code == status, f"{result.exit_code}: {result.output} {result.exception!r}"
        return Said(result.stdout, result.stderr)

    return call


@pytest.fixture
def trials() -> list[str]:
    """The ids of three runs, the oldest first: one that went well, one that failed, one that diverged."""
    return log_trials()


def log_trials() -> list[str]:
    """Log those runs to the store of new runs."""
    asynctrack.set_experiment("vision")
    ids = []
    for number, (name, lr) in enumerate([("good", 0.1), ("failed", 0.3), ("diverged", 3.0)]):
        run = asynctrack.start_run(run_name=name, tags={"team": "a"})
        ids.append(run.run_id)
        run.log_params({"lr": lr, "batch": 32, "note": f"n{number}"})
        for step in range(20 - 5 * (name == "failed")):
            value = 1 / (step + 1) + number
            run.log_metric("loss", math.nan if number == 2 and step >= 12 else value, step)
            if step % 5 == 0:
                run.log_metric("val/acc", 1 - value / 10, step)
        asynctrack.end_run("FAILED" if name == "failed" else "FINISHED")
    asynctrack.shutdown()
    return ids
