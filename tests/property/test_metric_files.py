"""Whatever stands in a metric file, it is read as columns exactly as line by line: with NumPy and without, at once and
bit by bit."""

from __future__ import annotations

import math
import os
import uuid
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asynctrack.stores.base import RunSpec
from asynctrack.stores.columns import Columns, Spot, Summary
from asynctrack.stores.file import FileStore, book, columns, parsing
from asynctrack.stores.file.lines import parse_lines
from asynctrack.stores.file.quick import is_exact, quick_columns
from asynctrack.stores.io import InlineIO, drive

_INT64 = range(-(2**63), 2**63)

integers = st.sampled_from(["0", "-0", "7", "-12", str(2**63 - 1), str(-(2**63)), str(2**63), "9" * 18, "9" * 19]) | (
    st.integers(-(2**70), 2**70).map(str) | st.integers(1_700_000_000_000, 1_800_000_000_000).map(str)
)
doubles = st.floats().map(repr) | st.floats(-1e6, 1e6).map(repr) | st.floats(1e-12, 1e-3).map(repr)
spelled = st.sampled_from(
    [
        *("nan", "-nan", "NaN", "inf", "-inf", "Infinity", "1", "1.", ".5", ".", "-", "+", "-.5", "+5", "00012.500"),
        *("1e5", "1E5", "1e", "1e+", "e5", "1e5e3", "1e2.5", "1.2.3", "1_0", "0x1p3", "--5", "5-3", "n", "a"),
        *("1e400", "1e-400", "1e9999", "9007199254740993", "9007199254740992.5", "0.30000000000000004"),
        *("179769313486231580793.7e288", "٣.٥"),
    ]
)
#: digits of any number, a point anywhere: ties of the last bit among them
long_ones = st.builds(
    "{}{}.{}{}".format,
    st.sampled_from(["", "-", "0", "0000"]),
    st.text("0123456789", max_size=20),
    st.text("0123456789", max_size=24),
    st.sampled_from(["", "e5", "e-05", "e+20", "e-300", "e00000"]),
)
#: halfway between two doubles, or nearly: here a value that was rounded twice would be wrong
ties = st.builds(
    lambda mantissa, shift, more: f"{(2 * mantissa + 1) * 2**shift + more}",
    st.integers(2**52, 2**53 - 1), st.integers(0, 6), st.sampled_from([-1, 0, 1]),
)  # fmt: skip
values = doubles | spelled | long_ones | ties
good_lines = st.builds("{} {} {}\n".format, integers, values, integers)
odd_lines = st.one_of(
    st.builds("{} {}\n".format, integers, values),
    st.builds("{} {} {} data d1\n".format, integers, values, integers),
    st.builds("{} {} {} data\n".format, integers, values, integers),
    st.builds("{} {} {}\r\n".format, integers, values, integers),
    st.builds("{}  {} {}\n".format, integers, values, integers),
    st.builds(" {} {} {}\n".format, integers, values, integers),
    st.sampled_from(["\n", " \n", "  \n", "\r\n", "\0\n", "x y z\n", "1\t2.0\t3\n", "1 2.0 3\x0c4 5.0 6\n"]),
    st.text(max_size=12).map(lambda text: text + "\n"),
)  # fmt: skip
lines = st.one_of(
    good_lines.map(str.encode),
    good_lines.map(str.encode),
    odd_lines.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=8).map(lambda data: data + b"\n"),
)
#: many lines that are all good, as in most files, and any with odd ones among them
texts = st.lists(good_lines.map(str.encode), min_size=1, max_size=20) | st.lists(lines, max_size=20)


def expected(data: bytes) -> Columns:
    points = [point for point in parse_lines(data)[0] if point[0] in _INT64 and point[1] in _INT64]
    return Columns([step for _, step, _ in points], [time for time, _, _ in points], [value for *_, value in points])


@pytest.fixture(autouse=True)
def exact() -> None:
    if not is_exact():
        pytest.skip("NumPy's long doubles are too short on this machine")


@settings(max_examples=600, deadline=None)
@given(texts)
@example([b"1 2-3 4\n", b"5 6 -\n"])
@example([b"1 2e3.0 4\n", b"5 .5 6\n"])
@example(
    [b"1 5e-324 4\n", b"5 0.0 6\n", b"7 -0.0 8\n", b"9 1e22 10\n", b"9 1e-27 10\n", b"9 123456789012345678e-27 10\n"]
)
def test_both_ways_read_what_the_lines_say(written: list[bytes]) -> None:
    data = b"".join(written)
    for quick in (True, False):
        found, damaged = parsing.columns_of(data, quick)
        assert found == expected(data)
        assert len(found) + damaged == data.count(b"\n")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds("{} {} {}\n".format, st.integers(0, 2**59), long_ones | doubles | ties, st.integers(-9, 9))
                .map(str.encode), min_size=2, max_size=50))  # fmt: skip
def test_what_numpy_reads_alone_is_right_to_the_last_bit(written: list[bytes]) -> None:
    data = b"".join(written)
    found = quick_columns(data)
    if found is None:
        assert len(data) < 30
        return
    columns, odd = found
    left = {at for at, _ in odd}
    for at, line in enumerate(written):
        if at not in left:
            assert columns.values[at].hex() == float(line.split()[1]).hex(), line


def test_of_the_values_of_a_usual_run_numpy_leaves_few_to_python() -> None:
    random = numpy.random.default_rng(7)
    for scale in (1.0, 1e-3, 1e-6, 1e3, 1e9):
        written = [f"{1_700_000_000_000 + at} {float(value)!r} {at}\n".encode()
                   for at, value in enumerate(random.standard_normal(4000) * scale)]  # fmt: skip
        found = quick_columns(b"".join(written))
        assert found is not None
        assert len(found[1]) < 40
    for value in ("nan", "0.0", "-0.0", "1.0", "100000", "1e-05"):
        found = quick_columns(f"1700000000000 {value} 1\n".encode() * 100)
        assert found is not None
        assert all(at * len(f"1700000000000 {value} 1\n") < 24 for at, _ in found[1])  # where the block begins
        assert list(map(repr, found[0].values)) == [repr(float(value))] * 100


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.lists(st.integers(0, 200), max_size=4), st.booleans())
def test_a_file_that_grows_byte_by_byte_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[bytes], cuts: list[int], quick: bool
) -> None:
    monkeypatch.setattr(columns, "pays", lambda size: quick)
    store = FileStore(tmp_path / uuid.uuid4().hex, InlineIO())
    run_id = drive(store.create_run(RunSpec(uuid.uuid4().hex))).run_id
    path = tmp_path / os.path.basename(store.root) / "0" / run_id / "metrics" / "m"
    path.parent.mkdir(exist_ok=True)
    data = b"".join(written)
    seen, cursor, at = Columns(), None, 0
    with open(path, "ab", buffering=0) as file:
        for cut in [*sorted(cuts), len(data)]:
            file.write(data[at:cut])
            at = max(at, cut)
            found = drive(store.read_columns(run_id, after=cursor))
            assert not found.anew
            cursor = found.cursor
            seen.extend(found.columns.get("m", Columns()))
            assert seen == expected(data[:at])


def by_the_point(rows: Columns) -> Summary | None:
    """A summary as its docstring has it."""
    spots = [Spot(*row) for row in rows.rows()]
    if not spots:
        return None
    numbers = [spot for spot in spots if not math.isnan(spot.value)]
    return Summary(
        len(spots),
        spots[0],
        max(spots, key=lambda spot: (spot.step, spot.time, 0.0 if math.isnan(spot.value) else spot.value)),
        min(numbers, key=lambda spot: spot.value, default=None),
        max(numbers, key=lambda spot: spot.value, default=None),
        max(spot.time for spot in spots),
    )


some_values = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0]) | st.floats()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3), some_values), max_size=12), st.integers(0, 12))
def test_a_summary_continues_as_if_it_had_begun_at_once(points: list[tuple[int, int, float]], at: int) -> None:
    rows = Columns(*zip(*points, strict=True)) if points else Columns()
    whole = Summary.of(rows)
    assert repr(whole) == repr(by_the_point(rows))
    assert repr(Summary.of(rows.part(at), Summary.of(rows.part(0, at)))) == repr(whole)


changes = st.one_of(
    st.tuples(st.just("append"), texts),
    st.tuples(st.just("append"), texts),
    st.tuples(st.just("torn"), st.integers(1, 12)),
    st.tuples(st.just("write"), texts),
    st.tuples(st.just("replace"), texts),
    st.tuples(st.just("cut"), st.integers(0, 40)),
    st.tuples(st.just("unlink"), st.none()),
    st.tuples(st.just("reopen"), st.none()),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(changes, min_size=2, max_size=12))
def test_whatever_happens_to_a_file_what_is_remembered_of_it_is_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happenings: list[tuple[str, Any]]
) -> None:
    monkeypatch.setattr(book, "_WORTH", 1)
    monkeypatch.setattr(book, "_PART", 0)
    root = tmp_path / uuid.uuid4().hex
    store = FileStore(root, InlineIO())
    run_id = drive(store.create_run(RunSpec(uuid.uuid4().hex))).run_id
    path = root / "0" / run_id / "metrics" / "m"
    path.parent.mkdir(exist_ok=True)
    for what, given_text in happenings:
        data = b"" if given_text is None or isinstance(given_text, int) else b"".join(given_text)
        before = path.read_bytes() if path.exists() else b""
        if what == "append":
            with path.open("ab") as file:
                file.write(data)
        elif what == "torn":
            path.write_bytes(before + b"12 3.5 67\n"[:given_text])
        elif what == "write":
            path.write_bytes(data)
        elif what == "replace":
            (root / "new").write_bytes(data)
            os.replace(root / "new", path)
        elif what == "cut" and before:
            os.truncate(path, max(0, len(before) - given_text))
        elif what == "unlink":
            path.unlink(missing_ok=True)
        elif what == "reopen":
            store = FileStore(root, InlineIO())
        says = expected(path.read_bytes() if path.exists() else b"")
        found = drive(store.summarize(run_id))
        assert repr(found.get("m")) == repr(by_the_point(says))
        [run] = drive(store.search_runs(["0"])).items
        summary = by_the_point(says)
        assert repr(run.data.metrics) == repr({} if summary is None else {"m": summary.latest.value})
