"""Command lines that are read without Typer: just as Typer reads them, or not at all."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any, get_type_hints

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from asynctrack.cli.declaring import Unclear, Verb
from asynctrack.cli.typed import taking, typed
from asynctrack.cli.verbs import VERBS, load

PLAIN = [name for name in VERBS if name != "spool"]


def recorder(verb: Verb, found: dict[str, Any]) -> Verb:
    """The verb with a function of the same parameters that only keeps what it is given."""
    function: Any = verb.function
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    made: dict[str, Any] = {"found": found}
    exec(f"def recorded({', '.join(names)}):\n found.update(locals())", made)
    made["recorded"].__defaults__ = function.__defaults__
    made["recorded"].__annotations__ = get_type_hints(function, include_extras=True)
    return Verb(made["recorded"], verb.fields, verb.any_field)


def read_by_typer(verb: Verb, words: list[str]) -> dict[str, Any] | None:
    """What Typer gives the verb's function; None where it refuses the words."""
    found: dict[str, Any] = {}
    recorded = recorder(verb, found)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(cls=taking(*verb.fields, any_field=verb.any_field))(typed(recorded.function))
    status: int = CliRunner().invoke(app, words).exit_code
    return found if status == 0 and found else None


def read_plainly(verb: Verb, words: list[str]) -> dict[str, Any] | None:
    try:
        return verb.read(words)
    except Unclear:
        return None


def shown(values: dict[str, Any] | None) -> str:
    """With the kind of each value, and NaN equal to NaN."""
    return repr(values and sorted(values.items()))


LINES = """
runs
runs --store file:/a -n 5 -a -q
runs -e one -e two --filter "x" params.lr='1'
runs --columns=a,b --limit=7 --watch
runs --json
runs --json id,name
runs --json id @
runs --json= -o jsonl
runs --all --all
runs --sort -loss.min
runs -n -5
runs -n 0
runs -n x
runs -n5
runs -aq
runs --bogus
runs --all=1
runs --filter
runs a b
runs --store
runs --help
show @
show
show @ @1
show @ --at 5 --window 3
show @ --at -5
show @ --at 5.5
show -- -odd
show --at=7 @
show -
tail @
tail @ loss acc -n 3 -f
tail -f @ -- --weird
tail @ --since 5m --json step,time
plot @ @1 -k loss -k acc --log-y --smooth 0.9 --from -1 --to 1e3
plot
plot @ --smooth nan
plot @ --width -1
plot @ --x= -w -o -
compare @ @1 --all
compare @ --only-changed
diff @ @1 --only-changed --all
diff @
export -o -
export @ --wide --format csv -o a.csv --json file
wait @ "loss < 0.1" --timeout 1h
wait @ ended --json
wait @
view
view file:/a --port 0 --no-browser --allowed-host h --allowed-host i
top x y
doctor --json
sync
sync --dry-run --timeout 5 --json spool
sync --timeout -1
sync --timeout inf --owner-gone
sync --dir /there/is/no/such
import one --to other
import one
import --to= one
import one --to " "
""".strip().splitlines()


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_read_as_typer_reads_it_or_left_to_it(line: str) -> None:
    name, *words = shlex.split(line)
    verb = load(name)
    plainly, by_typer = read_plainly(verb, words), read_by_typer(verb, words)
    seldom = line in ("runs -n5", "runs -aq", "runs --help")
    assert shown(plainly) == shown(None if seldom else by_typer)


WORDS = [
    "@",
    "a b",
    "-",
    "--",
    "",
    "5",
    "-5",
    "1e3",
    "nan",
    "x=y",
    "--json",
    "--json=id",
    "id",
    "id,name",
    "--help",
    "-h",
]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PLAIN), st.data())
def test_no_line_is_read_otherwise_than_by_typer(name: str, data: st.DataObject) -> None:
    verb = load(name)
    switches = [
        switch
        for hint in get_type_hints(verb.function, include_extras=True).values()
        for declared in getattr(hint, "__metadata__", ())
        for names in declared.names
        for switch in names.split("/")
    ]
    words = data.draw(st.lists(st.sampled_from(WORDS + switches + [f"{each}=5" for each in switches]), max_size=6))
    plainly = read_plainly(verb, words)
    if plainly is not None:
        assert shown(plainly) == shown(read_by_typer(verb, words))


def test_a_shells_question_what_to_complete_goes_to_typer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from asynctrack.cli import main; main()", "runs"],
        env={"_ASYNCTRACK_COMPLETE": "source_bash"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "RUNNING" not in done.stdout
