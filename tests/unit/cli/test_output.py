"""The forms of output, and text made harmless: decisions without a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.cli.amounts import ago, duration, exact, moment, number, plain, seconds_of
from asynctrack.cli.declaring import with_fields
from asynctrack.cli.options import chosen_fields
from asynctrack.cli.output import Column, choose_form, fit, show_rows, table
from asynctrack.cli.terminal import Terminal, cell_width, clean, cut, pad
from asynctrack.cli.verbs import VERBS
from asynctrack.errors import InvalidInputError
from tests.unit.cli.conftest import Call

PACKAGE = str(Path(asynctrack.__file__).parents[1])

#: names that would clear the screen, set the window's title, hide what follows, and turn the direction of text
HOSTILE = (
    "\x1b[2Jgone",
    "\x1b]0;title\x07",
    "a\rb",
    "c\x9b31md",
    "abc\u202edcba",
    "two\nlines",
    "tab\there",
    "\u2066x\u2069",
)


def terminal(**environment: str) -> Terminal:
    """A terminal as the environment says; its width is that of COLUMNS."""
    return Terminal(environment)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_terminal_would_obey_is_shown_instead(name: str) -> None:
    shown = clean(name)
    assert "\\" in shown
    assert shown.isprintable()
    assert clean(shown) == shown


def test_harmless_text_stays_as_it_is() -> None:
    assert clean("Größe 表 naïve ñ — 🎉") == "Größe 表 naïve ñ — 🎉"


@pytest.mark.parametrize("form", ["table", "tsv"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_form_for_people_lets_an_escape_through(form: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"name": name, name: name}], [Column("name"), Column(name)], form, terminal())
    assert not set(capsys.readouterr().out) & (set("\x1b\x07\x9b\u202e\u2066\r"))


def test_tsv_has_a_line_for_each_row_and_a_cell_for_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": name, "b": 0.1 + 0.2} for name in HOSTILE]
    show_rows(rows, [Column("a"), Column("b")], "tsv", terminal())
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("\t") for line in lines] == [1] * (len(rows) + 1)
    assert lines[1].endswith("\t0.30000000000000004")


def test_json_has_what_was_logged_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": name, "value": value} for name in HOSTILE for value in (math.nan, math.inf, -math.inf, 1.5)]
    show_rows(rows, [Column("name"), Column("value")], "json", terminal())
    out = capsys.readouterr().out
    assert out.isascii()
    assert not set(out) & set("\x1b\x07\r\x7f")
    found = json.loads(out)
    assert [each["name"] for each in found[::4]] == list(HOSTILE)
    assert [each["value"] for each in found[:4]] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_json_lines_are_json_each(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([{"a": 1}, {"a": "x\ny"}], [Column("a")], "jsonl", terminal())
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1}, {"a": "x\ny"}]


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["=1+1", "+1", "-1", "@sum", "\tx", "plain", 'quoted "so"', "a,b", "two\nlines"]
    show_rows([{"t": text, "n": -1.5} for text in texts], [Column("t"), Column("n")], "csv", terminal())
    read = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert read[0] == ["t", "n"]
    assert [row[1] for row in read[1:]] == ["-1.5"] * len(texts)
    assert [row[0] for row in read[1:]] == ["'=1+1", "'+1", "'-1", "'@sum", "'\tx", *texts[5:]]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [{"id": "0123abcd", "name": "表" * 20, "loss": 0.123456789, "note": "x" * 50} for _ in range(3)]
    columns = [Column("id", whole=True), Column("name"), Column("loss", "", number, True), Column("note")]
    lines = table(rows, columns, Terminal()).splitlines()
    assert max(map(cell_width, lines)) <= width
    assert all(line.startswith("0123abcd") for line in lines[1:4])


def test_what_is_left_out_of_a_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    columns = [Column("first", whole=True), Column("second", "", exact, True)]
    shown = table([{"first": "x" * 15, "second": 123456}], columns, Terminal())
    assert shown.splitlines()[-1].startswith("not shown")
    assert "123456" not in shown


def test_a_table_of_nothing_is_nothing() -> None:
    assert table([], [Column("a")], terminal()) == ""


@pytest.mark.parametrize(
    ("full", "room", "narrows", "widths"),
    [
        ([5, 5], 20, None, [5, 5]),
        ([30, 5], 20, None, [13, 5]),
        ([30, 30, 5], 40, None, [15, 16, 5]),
        ([10, 10, 10], 20, None, [9, 9]),
        ([8, 30, 9], 30, [False, True, False], [8, 9, 9]),
        ([50], 20, None, [20]),
        ([8, 9, 9], 20, [False, False, False], [8, 9]),
    ],
)
def test_columns_are_narrowed_where_they_are_widest(
    full: list[int], room: int, narrows: list[bool] | None, widths: list[int]
) -> None:
    assert fit(full, room, narrows) == widths


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("表表", 3, "表…"), ("ab", 1, "…"), ("ab", 0, "")],
)
def test_text_is_cut_by_the_columns_that_it_takes(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert cell_width(pad(shown, 9)) == 9


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "", "NO_COLOR": ""}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colour_in_a_pipe_is_there_only_when_it_is_forced(environment: dict[str, str], coloured: bool) -> None:
    assert terminal(**environment).colour is coloured
    assert ("\x1b" in terminal(**environment).style("x", "red")) is coloured


@pytest.mark.parametrize(
    ("environment", "there"),
    [
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8", "LC_ALL": "C"}, False),
        ({}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, False),
    ],
)
def test_more_than_ascii_is_used_where_the_locale_has_it(environment: dict[str, str], there: bool) -> None:
    assert terminal(**environment).unicode is there


def test_a_form_is_chosen_by_what_was_asked_and_where_it_goes() -> None:
    pipe = terminal()
    assert choose_form(None, None, pipe) == "tsv"
    assert choose_form("csv", None, pipe) == "csv"
    assert choose_form(None, "", pipe) == "json"
    assert choose_form("jsonl", "id", pipe) == "jsonl"
    pipe.interactive = True
    assert choose_form(None, None, pipe) == "table"
    with pytest.raises(InvalidInputError, match="table, tsv, csv, json, jsonl"):
        choose_form("xml", None, pipe)
    with pytest.raises(InvalidInputError, match="give one"):
        choose_form("csv", "", pipe)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("show --json @", ["show", "--json=", "@"]),
        ("@ --json", ["@", "--json="]),
        ("@ --json id", ["@", "--json=id"]),
        ("--json id,nothing @", ["--json=id,nothing", "@"]),
        ("--json=id @", ["--json=id", "@"]),
        ("--json --store x", ["--json=", "--store", "x"]),
        ("-- --json id", ["--", "--json", "id"]),
    ],
)
def test_json_takes_fields_only_where_they_are_some(given: str, meant: list[str]) -> None:
    assert with_fields(given.split(), ("id", "name")) == meant


def test_where_runs_tell_the_fields_all_that_is_no_filter_is_one() -> None:
    assert with_fields(["--json", "lr,loss.min"], ("id",), True) == ["--json=lr,loss.min"]
    assert with_fields(["--json", "params.lr = '1'"], ("id",), True) == ["--json=", "params.lr = '1'"]


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    assert chosen_fields("", ("id", "name")) == ("id", "name")
    assert chosen_fields("name", ("id", "name")) == ("name",)
    with pytest.raises(InvalidInputError, match="no field colour; the fields are id, name"):
        chosen_fields("id,colour", ("id", "name"))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_000_000_123, "2026-11-18T11:06:40.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (None, None),
        (2**62, 2**62),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
        (253402300800000, 253402300800000),
    ],
)
def test_a_time_is_written_in_rfc_3339_where_a_calendar_has_it(ms: int | None, text: Any) -> None:
    assert moment(ms) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4s"), (59.9, "59s"), (60, "1m"), (130, "2m10s"),
     (7200, "2h"), (273600, "3d4h"), (-90, "-1m30s"), (None, ""), (math.inf, "")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1h", 3600), ("1h30m", 5400), ("1.5 min", 90), ("200ms", 0.2)]
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "1x", "-5", "5 5m x", "nan", "1h-"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="length of time"):
        seconds_of(text)


def test_how_long_ago_never_lies_in_the_future() -> None:
    assert [ago(ms, 100_000_000) for ms in (200_000_000, 99_999_500, 99_970_000, 90_000_000, 0, None)] == [
        "now", "now", "30s ago", "2h ago", "1d ago", "",
    ]  # fmt: skip


def test_a_value_is_plain_at_any_depth() -> None:
    assert plain({"a": [math.nan, (1, math.inf)], 2: {"b": -math.inf}}) == {
        "a": ["NaN", [1, "Infinity"]],
        "2": {"b": "-Infinity"},
    }


def test_no_terminal_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    monkeypatch.setenv("LINES", "1")
    found = Terminal(os.environ)
    assert (found.width, found.height) == (20, 4)


#: what takes longer to load than a verb may take: data frames, Typer and its converter, connections, delivery
TOO_HEAVY = {
    *("typer", "click", "dataclasses", "inspect"),
    *("numpy", "pandas", "pyarrow", "polars", "rich", "pydantic", "httpx", "anyio", "aiofiles", "sqlite3", "yaml"),
    *("asynctrack.engine.thread", "asynctrack.engine.local", "asynctrack.engine.consumer", "asynctrack.artifacts"),
    *("asynctrack.delivery.source", "asynctrack.delivery.sender", "asynctrack.recovery"),
}


def loaded_by(*arguments: str) -> set[str]:
    """The modules that an interpreter with these arguments loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE, os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("verb", ["runs", "runs --help", "show @", "tail @", "diff @ @1", "wait @ ended"])
def test_a_verb_loads_only_what_it_needs(verb: str, trials: list[str]) -> None:
    loaded = loaded_by("-m", "asynctrack", *verb.split())
    assert "asynctrack.cli.verbs" in loaded
    too_heavy = TOO_HEAVY
    if "--help" in verb:
        loaded -= loaded_by("-c", "import typer")  # old ones load rich
        too_heavy = TOO_HEAVY - {"typer", "click"}
    assert not {name for name in loaded if name in too_heavy or name.partition(".")[0] in too_heavy}


def test_the_list_of_verbs_is_there_without_loading_them() -> None:
    loaded = loaded_by("-m", "asynctrack", "--help")
    assert "asynctrack.cli.verbs" in loaded
    assert not {f"asynctrack.cli.{module}" for module, _ in VERBS.values()} & loaded


def test_the_list_of_verbs_shows_each_with_its_whole_line(call: Call) -> None:
    shown = call("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in shown] == list(VERBS), "a line is longer than a terminal is wide, or missing"
    assert all(len(line) <= 80 and line.endswith(".") and "..." not in line for line in shown)


def test_a_sync_with_nothing_to_deliver_does_not_load_what_delivers(tmp_path: Path) -> None:
    loaded = loaded_by("-m", "asynctrack", "sync", "--dir", str(tmp_path))
    assert "asynctrack.recovery.sync" in loaded
    assert "asynctrack.delivery.pump" not in loaded


def test_an_import_between_folders_does_not_load_what_speaks_to_servers(tmp_path: Path) -> None:
    (tmp_path / "from" / "0").mkdir(parents=True)
    loaded = loaded_by("-m", "asynctrack", "import", str(tmp_path / "from"), "--to", str(tmp_path / "to"))
    assert "asynctrack.importing.writing" in loaded
    assert not {"asynctrack.stores.rest.answers", "email.utils", "dataclasses", "inspect", "socket"} & loaded


def test_a_verb_leaves_nothing_for_the_garbage_collector_to_look_through_at_the_end(trials: list[str]) -> None:
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print(len(gc.get_objects()), file=sys.stderr));"
        "sys.argv = ['asynctrack', 'show', '@']; from asynctrack.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stderr) < 1000  # of some 50,000


def ended_with(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """How the command ends where a shell has redirected its output."""
    command = f"{shlex.join([sys.executable, '-m', 'asynctrack', *arguments])} {redirection}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)


def test_a_full_disk_behind_the_output_is_one_line_on_standard_error(trials: list[str]) -> None:
    done = ended_with(">/dev/full", "runs")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_closed_standard_output_is_no_error(trials: list[str]) -> None:
    done = ended_with(">&-", "runs")
    assert (done.returncode, done.stderr) == (0, "")


def test_messages_do_not_come_between_the_data_where_standard_error_is_closed(trials: list[str]) -> None:
    done = ended_with("2>&-", "show", "nobody")
    assert (done.returncode, done.stdout) == (3, "")


def test_names_stand_in_a_tables_head_as_they_are(trials: list[str], call: Call) -> None:
    with asynctrack.start_run(run_name="camelCase") as run:
        run.log_metrics({"Loss": 1.0, "loss": 2.0})
    head = call("compare", "@", "good", "-o", "table").out.splitlines()[0].split()
    assert head == ["KIND", "KEY", "camelCase", "good"]
    assert {"ID", "Loss", "loss"} <= set(call("runs", "-o", "table", "-c", "id,Loss,loss").out.splitlines()[0].split())
