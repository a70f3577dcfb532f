"""The file store reads columns: only what is new of each file, whatever has become of it in between."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy
import pytest

from asynctrack.errors import NotFoundError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.columns import Columns, Increment
from asynctrack.stores.file import FileStore, parsing
from asynctrack.stores.file import columns as columns_module
from asynctrack.stores.file import quick as quick_module
from asynctrack.stores.file.quick import is_exact
from asynctrack.stores.io import InlineIO, drive


class Folder:
    """A store, one run in it, and its metric files."""

    def __init__(self, root: Path) -> None:
        self.store = FileStore(root, InlineIO())
        self.run_id = drive(self.store.create_run(RunSpec(uuid.uuid4().hex))).run_id
        self.run_dir = root / "0" / self.run_id
        self.metrics = self.run_dir / "metrics"
        self.metrics.mkdir(exist_ok=True)

    def read(self, after: Any = None, **given: Any) -> Increment:
        return drive(self.store.read_columns(self.run_id, after=after, **given))

    def points(self, after: Any = None, **given: Any) -> dict[str, list[tuple[int, int, float]]]:
        return {key: list(columns.rows()) for key, columns in self.read(after, **given).columns.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "mlruns")


def test_lines_of_two_three_and_five_fields_are_points(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.metrics / "m").write_bytes(b"5 0.5\n6 1.5 1\n7 2.5 2 train d1\nnone\n8 3.5 3 train\n9 inf 4\n")
    for _ in range(2):
        assert folder.points() == {"m": [(0, 5, 0.5), (1, 6, 1.5), (2, 7, 2.5), (4, 9, float("inf"))]}
    assert [record.message for record in caplog.records] == [f"skipped {folder.metrics / 'm'}: 2 damaged lines"]


def test_a_number_that_no_64_bits_hold_is_left_out(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.metrics / "m").write_text(f"1 0.5 {2**63 - 1}\n1 0.5 {2**63}\n{-(2**63)} 0.5 {-(2**63)}\n{10**30} 1.0 1\n")
    assert folder.points() == {"m": [(2**63 - 1, 1, 0.5), (-(2**63), -(2**63), 0.5)]}
    assert "2 damaged lines" in caplog.text


def test_a_torn_line_is_read_when_it_is_whole(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    path = folder.metrics / "m"
    path.write_bytes(b"1 0.5 1\n2 0.")
    first = folder.read()
    assert first.columns == {"m": Columns([1], [1], [0.5])}
    with path.open("ab") as file:
        file.write(b"25 2\n3")
    second = folder.read(first.cursor)
    assert second.columns == {"m": Columns([2], [2], [0.25])}
    assert folder.points(second.cursor) == {}
    assert caplog.text == ""


def test_a_file_that_only_has_a_torn_line_has_no_points_yet(folder: Folder) -> None:
    path = folder.metrics / "m"
    path.write_bytes(b"1 0.")
    first = folder.read()
    path.write_bytes(b"1 0.5 1\n")
    second = folder.read(first.cursor)
    assert (second.columns, second.anew) == ({"m": Columns([1], [1], [0.5])}, frozenset())


@pytest.mark.parametrize(
    "after",
    [
        b"1 9.5 1\n2 9.5 2\n3 9.5 3\n4 9.5 4\n",  # longer
        b"1 9.5 1\n2 9.5 2\n3 9.5 3\n",  # as long
        b"1 9.5 1\n",  # shorter
        b"1 0.5 1\n",  # cut off
    ],
)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_written_anew_is_read_anew(folder: Folder, after: bytes, in_place: bool) -> None:
    path = folder.metrics / "m"
    path.write_bytes(b"1 0.5 1\n2 0.5 2\n3 0.5 3\n")
    os.utime(path, ns=(1, 1))
    (folder.metrics / "other").write_bytes(b"1 0.5 1\n")
    first = folder.read()
    if in_place:
        path.write_bytes(after)
    else:
        new = folder.run_dir / "new"
        new.write_bytes(after)
        os.replace(new, path)
    second = folder.read(first.cursor)
    assert second.anew == {"m"}
    assert list(second.columns) == ["m"]
    assert second.columns == {"m": folder.read().columns["m"]}
    assert folder.read(second.cursor) == Increment({}, second.cursor, frozenset())


def test_a_file_that_has_gone_is_news(folder: Folder) -> None:
    for name in ("a", "b"):
        (folder.metrics / name).write_bytes(b"1 0.5 1\n")
    first = folder.read()
    (folder.metrics / "a").unlink()
    for keys in (None, ["a", "b"]):
        second = folder.read(first.cursor, keys=keys)
        assert (second.columns, second.anew) == ({}, frozenset({"a"}))
        assert folder.read(second.cursor).anew == frozenset()
    (folder.metrics / "a").write_bytes(b"1 0.5 1\n")
    third = folder.read(second.cursor)
    assert (third.columns, third.anew) == ({"a": Columns([1], [1], [0.5])}, frozenset())


def test_a_file_cut_off_while_it_is_read_gives_what_there_was(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.metrics / "m"
    path.write_bytes(b"1 0.5 1\n" * 3)

    def cut(size: int) -> bool:
        os.truncate(path, 12)  # between the stat and the read
        return False

    with monkeypatch.context() as patched:
        patched.setattr(columns_module, "pays", cut)
        first = folder.read()
    assert len(first.columns["m"]) == 1
    with path.open("ab") as file:
        file.write(b"5 6\n")
    second = folder.read(first.cursor)
    assert (second.columns, second.anew) == ({"m": Columns([6], [1], [0.5])}, frozenset())


def test_what_is_no_metric_file_has_no_points_and_holds_nobody_up(
    folder: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.metrics / "a").mkdir()
    (folder.metrics / "a" / "b c").write_bytes(b"1 0.5 1\n")
    os.mkfifo(folder.metrics / "pipe")
    (folder.metrics / "nowhere").symlink_to(tmp_path / "none")
    (folder.metrics / "loop").symlink_to(folder.metrics / "loop")
    outside = tmp_path / "outside"
    outside.write_bytes(b"2 0.5 2\n")
    (folder.metrics / "linked").symlink_to(outside)
    (folder.metrics / "empty").touch()
    first = folder.read()
    # Links are followed, as get_metric_history and MLflow do.
    assert first.columns == {"a/b c": Columns([1], [1], [0.5]), "linked": Columns([2], [2], [0.5])}
    assert str(folder.metrics / "pipe") in caplog.text
    assert folder.read(first.cursor).columns == {}
    for keys in (["../../meta.yaml"], ["/etc/passwd"], ["a"], [""], ["pipe"], ["a//b c"], ["x\0"], ["k" * 300]):
        assert folder.points(keys=keys) == {}


def test_a_run_that_goes_away_is_not_found(folder: Folder) -> None:
    (folder.metrics / "m").write_bytes(b"1 0.5 1\n")
    first = folder.read()
    shutil.rmtree(folder.metrics)
    assert folder.read(first.cursor).anew == {"m"}
    shutil.rmtree(folder.run_dir)
    with pytest.raises(NotFoundError):
        folder.read(first.cursor)


def test_lines_too_long_for_a_point_are_damaged_and_the_rest_is_read(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "_BLOCK", 1 << 16)
    path = folder.metrics / "m"
    path.write_bytes(b"1 0.5 1\n" + b"9" * 500_000 + b" 1.0 7\n2 0.5 2\n" + b"8" * 300_000)
    first = folder.read()
    assert first.columns == {"m": Columns([1, 2], [1, 2], [0.5, 0.5])}
    with path.open("ab") as file:
        file.write(b" 1.0 7\n3 0.5 3\n")
    assert folder.points(first.cursor) == {"m": [(3, 3, 0.5)]}


@pytest.mark.parametrize("points", [1, 5, 100])
def test_a_file_is_read_with_one_call(points: int, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store with thousands of runs tens of thousands are read."""
    (folder.metrics / "m").write_text("".join(f"{at} 0.5 {at}\n" for at in range(points)))
    calls = []

    def counted(name: str) -> Any:
        plain = getattr(os, name)

        def call(*args: Any) -> Any:
            calls.append(name)
            return plain(*args)

        return call

    for name in ("read", "pread"):
        monkeypatch.setattr(os, name, counted(name))
    first = folder.read()
    assert len(first.columns["m"]) == points
    assert calls == ["read", "pread"], "meta.yaml and the metric"
    with (folder.metrics / "m").open("a") as file:
        file.write("7 0.5 7\n")
    assert folder.points(first.cursor) == {"m": [(7, 7, 0.5)]}


def test_ten_thousand_metrics_are_read_and_followed(folder: Folder) -> None:
    for group in range(10):
        (folder.metrics / f"group {group}").mkdir()
    for at in range(10_000):
        (folder.metrics / f"group {at % 10}" / f"metric {at}").write_bytes(b"1 %d.0 0\n" % at)
    first = folder.read()
    assert len(first.columns) == 10_000
    assert first.columns["group 7/metric 9997"] == Columns([0], [1], [9997.0])
    drive(folder.store.log_batch(folder.run_id, Batch(metrics={"group 3/metric 3": [(2, 1, 2.0)]})))
    cursor = json.loads(json.dumps(first.cursor))
    assert folder.points(cursor) == {"group 3/metric 3": [(1, 2, 2.0)]}


def test_blocks_of_any_size_give_the_same(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{1_700_000_000_000 + at} {at / 7!r} {at}\n" for at in range(300)]
    lines[17] = "damaged\n"
    (folder.metrics / "m").write_text("".join(lines))
    expected = folder.read().columns
    for quick in (True, False):
        monkeypatch.setattr(columns_module, "pays", lambda size, quick=quick: quick)
        for size in (1, 7, 100, 4096):
            monkeypatch.setattr(parsing, "_BLOCK", size)
            assert folder.read().columns == expected


def loads_numpy(root: Path, run_id: str) -> bool:
    program = (
        "import sys; from asynctrack.stores.file import FileStore; from asynctrack.stores.io import InlineIO, drive\n"
        f"drive(FileStore({str(root)!r}, InlineIO()).read_columns({run_id!r})); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout == "True\n"


def test_numpy_is_loaded_for_much_and_not_for_little(folder: Folder, tmp_path: Path) -> None:
    path = folder.metrics / "m"
    line = b"1700000000000 0.5 1\n"
    path.write_bytes(line * 1000)
    assert not loads_numpy(tmp_path / "mlruns", folder.run_id)
    path.write_bytes(line * 200_000)
    assert loads_numpy(tmp_path / "mlruns", folder.run_id)


def test_without_numpy_the_same_is_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.metrics / "m").write_bytes(b"1700000000000 0.5 1\n" * 200_000)
    expected = folder.read()
    monkeypatch.setitem(sys.modules, "numpy", None)
    is_exact.cache_clear()
    assert not parsing.pays(1 << 30)
    assert folder.read() == expected


def test_numbers_that_numpy_may_not_round_itself_are_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "is_exact", lambda: False)
    assert not parsing.pays(1 << 30)


@pytest.mark.parametrize("of_x86", [True, False])
def test_a_value_half_way_between_two_doubles_is_rounded_as_python_does(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, of_x86: bool
) -> None:
    """Whichever way NumPy's long doubles say that it may be one."""
    monkeypatch.setattr(quick_module, "_has_64_bits", lambda: of_x86 and numpy.finfo(numpy.longdouble).nmant == 63)
    monkeypatch.setattr(columns_module, "pays", lambda size: is_exact())
    large = [(1 << 53 | odd) + 0.5 for odd in range(1, 9, 2)] + [1 << 53, (1 << 53) - 1]
    texts = [f"{int(each)}.5" for each in large] + [str(9_007_199_254_740_993 + 2 * each) for each in range(50)]
    texts += [f"-0.{10**17 // each}" for each in range(11, 300)] + [f"12.{each}e-3" for each in range(50)]
    (folder.metrics / "m").write_text("".join(f"1 {text} {at}\n" for at, text in enumerate(texts)))
    assert list(folder.read().columns["m"].values) == [float(text) for text in texts]


def test_a_program_that_makes_errors_of_numpys_warnings_can_read(folder: Folder) -> None:
    (folder.metrics / "m").write_bytes(b"1700000000000 0.0 1\n1700000000000 1e-320 1\n1700000000000 1e308 1\n" * 3)
    with numpy.errstate(all="raise"):
        assert len(folder.points()["m"]) == 9


def test_a_mistaken_key_or_range_is_no_log_message(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    folder.read(keys=["none", "a/b"])
    assert caplog.text == ""


def test_the_name_of_a_file_that_is_skipped_does_not_rule_the_terminal(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.metrics / "\x1b[2Jgone").write_bytes(b"1 0.5 1\n")
    (folder.metrics / "\x1b]0;title\x07").symlink_to(folder.metrics)
    assert folder.points() == {}
    assert caplog.text.count("skipped") == 1
    assert "\\x1b[2Jgone" in caplog.text
    assert "\x1b" not in caplog.text
