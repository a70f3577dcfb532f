"""What the file store remembers of files, in memory and in the user's cache folder: never more than the files say."""

from __future__ import annotations

import os
import stat
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.entities import Run
from asynctrack.stores.base import RunSpec
from asynctrack.stores.columns import Columns, Summary
from asynctrack.stores.file import FileStore, book, cache, columns, tree
from asynctrack.stores.file.entries import read_entry
from asynctrack.stores.file.files import read_regular
from asynctrack.stores.io import InlineIO, drive


class Folder:
    """A store, one run in it, and its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_id = drive(self.store.create_run(RunSpec(uuid.uuid4().hex))).run_id
        self.run_dir = root / "0" / self.run_id
        for kind in ("metrics", "params", "tags"):
            (self.run_dir / kind).mkdir(exist_ok=True)

    @property
    def store(self) -> FileStore:
        """The store as another program opens it."""
        return FileStore(self.root, InlineIO())

    def write(self, name: str, text: str) -> Path:
        path = self.run_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def search(self, store: FileStore | None = None, **given: Any) -> list[Run]:
        found: list[Run] = drive((store or self.store).search_runs(["0"], **given)).items
        return found

    def data(self, store: FileStore | None = None) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
        [run] = self.search(store)
        return run.data.metrics, run.data.params, run.data.tags


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "mlruns")


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "asynctrack"


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is saved at once, and no file is too young."""
    monkeypatch.setattr(book, "_WORTH", 1)
    monkeypatch.setattr(book, "_PART", 0)
    later = time.time_ns() + 10**15
    monkeypatch.setattr(columns, "_now_ns", lambda: later)


@pytest.mark.usefixtures("eager")
def test_another_program_opens_no_file_that_has_not_changed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    folder.write("metrics/a", "1 0.5 1\n2 nan 2\n")
    folder.write("metrics/group/b", "1 0.5 1\n")
    folder.write("params/p", "1")
    folder.write("tags/t", "x")
    found = folder.search()
    [path] = cache_dir.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache_dir.stat().st_mode) == 0o700

    def never(*given: object) -> Any:
        raise AssertionError(f"{given} was read")

    monkeypatch.setattr(book, "reading", never)
    monkeypatch.setattr(book, "read_entry", never)
    again = folder.search()
    assert repr(again) == repr(found)
    assert again[0].data.metrics["group/b"] == 0.5
    expected = {key: Summary.of(found) for key, found in drive(
        folder.store.read_columns(folder.run_id)).columns.items()}  # fmt: skip
    store = folder.store
    folder.search(store)
    assert repr(drive(store.summarize(folder.run_id))) == repr(dict(sorted(expected.items())))
    assert folder.search(filter_string="metrics.`group/b` > 0.1 and params.p = '1' and tags.t = 'x'")


@pytest.mark.usefixtures("eager")
def test_another_program_reads_no_meta_yaml_that_has_not_changed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.search()
    read: list[str] = []
    real = read_regular

    def noted(path: str, most: int) -> bytes:
        read.append(os.path.relpath(path, folder.root))
        return real(path, most)

    monkeypatch.setattr(tree, "read_regular", noted)
    [run] = folder.search()
    assert run.info.run_id == folder.run_id
    assert read == []
    drive(folder.store.update_run(folder.run_id, run_name="changed"))
    read.clear()
    assert [run.info.run_name for run in folder.search()] == ["changed"]
    assert f"0/{folder.run_id}/meta.yaml" in read
    meta = folder.run_dir / "meta.yaml"
    before = meta.stat()
    meta.write_text(meta.read_text().replace("changed", "altered"))
    os.utime(meta, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [run.info.run_name for run in folder.search()] == ["altered"]


def test_a_meta_yaml_that_is_not_plain_is_not_kept(folder: Folder, cache_dir: Path, eager: None) -> None:
    path = folder.run_dir / "meta.yaml"
    path.write_text(path.read_text() + "note: 2024-01-01\nlist: [1, 2]\n")
    folder.write("params/p", "1")
    for _ in range(2):
        assert folder.data()[1] == {"p": "1"}
    [kept] = cache_dir.iterdir()
    assert cache.parsed(cache.load(str(kept))[f"{folder.run_id}/meta"]) == {}


@pytest.mark.usefixtures("eager")
def test_an_outline_reads_metrics_and_what_is_asked_about(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("metrics/m", "1 0.5 1\n")
    folder.write("params/p", "1")
    folder.write("params/q", "1")
    read: list[str] = []
    real = read_entry

    def noted(path: str, warn: Any) -> str | None:
        read.append(os.path.basename(path))
        return real(path, warn)

    monkeypatch.setattr(book, "read_entry", noted)
    [run] = drive(folder.store.outline_runs(["0"], "params.p = '1'")).items
    assert (run.data.metrics, run.data.params, run.data.tags, run.inputs) == ({"m": 0.5}, {}, {}, None)
    assert read == ["p"]
    assert folder.data()[1] == {"p": "1", "q": "1"}, "what an outline has left out is not taken for what is not there"


@pytest.mark.usefixtures("eager")
def test_of_a_file_that_grew_only_the_new_lines_are_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.write("metrics/m", "1 0.5 1\n" * 100)
    folder.search()
    real = Summary.of
    blocks: list[int] = []

    def counted(block: Columns, before: Summary | None = None) -> Summary | None:
        blocks.append(len(block))
        return real(block, before)

    monkeypatch.setattr(Summary, "of", counted)
    with path.open("a") as file:
        file.write("2 7.0 2\n3 8.0")
    assert folder.data()[0] == {"m": 7.0}
    assert blocks == [1]
    with path.open("a") as file:
        file.write("5 3\n")
    summary = drive(folder.store.summarize(folder.run_id))["m"]
    assert (summary.points, summary.latest) == (102, (3, 3, 8.05))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("text", ["1 9.5 1\n2 9.5 2\n", "1 9.5 1\n", "1 9.5 1\n2 9.5 2\n3 9.5 3\n"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_metric_file_that_was_written_anew_is_read_anew(folder: Folder, text: str, replaced: bool) -> None:
    path = folder.write("metrics/m", "1 0.5 1\n2 0.5 2\n")
    assert folder.data()[0] == {"m": 0.5}
    if replaced:
        os.replace(folder.write("new", text), path)
    else:
        path.write_text(text)
    assert folder.data()[0] == {"m": 9.5}
    assert drive(folder.store.summarize(folder.run_id))["m"].min == (1, 1, 9.5)


def test_the_latest_value_is_that_of_the_largest_step_also_when_steps_go_back(folder: Folder) -> None:
    path = folder.write("metrics/m", "1 1.0 10\n2 2.0 11\n")
    store = folder.store
    assert folder.data(store)[0] == {"m": 2.0}
    with path.open("a") as file:
        file.write("3 3.0 5\n")
    assert folder.data(store)[0] == {"m": 2.0}
    with path.open("a") as file:
        file.write("4 4.0 11\n")
    assert folder.data(store)[0] == {"m": 4.0}
    with path.open("a") as file:
        file.write("4 nan 12\n4 -1.0 12\n")
    assert str(folder.data(store)[0]) == "{'m': nan}"  # NaN counts as 0, as in MLflow


@pytest.mark.usefixtures("eager")
def test_a_tag_that_was_written_anew_is_read_whatever_its_time_and_length(folder: Folder) -> None:
    path = folder.write("tags/t", "old")
    os.utime(path, ns=(10**18, 10**18))
    assert folder.data()[2]["t"] == "old"
    path.write_text("new")  # as MLflow writes it
    os.utime(path, ns=(10**18, 10**18))  # as rsync leaves it
    assert folder.data()[2]["t"] == "new"


def test_a_tag_written_many_times_a_moment_is_never_an_old_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "_WORTH", 1)
    monkeypatch.setattr(book, "_PART", 0)
    store = folder.store
    for at in range(200):
        folder.write("tags/t", f"{at:03d}")
        for reader in (store, folder.store) if at % 20 == 0 else (store,):
            assert folder.data(reader)[2]["t"] == f"{at:03d}"


@pytest.mark.usefixtures("eager")
def test_what_has_gone_is_forgotten(folder: Folder, cache_dir: Path) -> None:
    for name in ("metrics/m", "params/p", "tags/t"):
        folder.write(name, "1 0.5 1\n")
    store = folder.store
    assert [len(part) for part in folder.data(store)][:2] == [1, 1]
    for name in ("metrics/m", "params/p", "tags/t"):
        (folder.run_dir / name).unlink()
    for reader in (store, folder.store):
        metrics, params, tags = folder.data(reader)
        assert (metrics, params, "t" in tags) == ({}, {}, False)
        assert drive(reader.summarize(folder.run_id)) == {}
    for path in sorted(folder.run_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.run_dir.rmdir()
    other = Folder(folder.root)
    assert [run.info.run_id for run in folder.search()] == [other.run_id]
    [path] = cache_dir.iterdir()
    assert folder.run_id.encode() not in path.read_bytes()


@pytest.mark.usefixtures("eager")
def test_long_values_are_not_kept_and_all_are_whole(folder: Folder, cache_dir: Path) -> None:
    folder.write("params/long", "x" * 5000)
    folder.write("params/short", "y\n\r\0é")
    for _ in range(2):
        assert folder.data()[1] == {"long": "x" * 5000, "short": "y\n\r\0é"}
    [path] = cache_dir.iterdir()
    assert b"xxxx" not in path.read_bytes()


def damages() -> list[Callable[[Path], object]]:
    """Ways in which a cache file can be what it should not be."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = data.index(b"0.5")
        data[at] = ord("7")
        path.write_bytes(data)

    def in_a_link(path: Path) -> None:
        path.rename(path.with_suffix(".other"))
        path.symlink_to(path.with_suffix(".other"))

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    return [
        flip, in_a_link, pipe, folder,
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(os.urandom(3000)),
        lambda path: path.write_bytes(b"asynctrack 0.1.0.1 2 00000000\n{}"),
        lambda path: path.write_bytes(path.read_bytes().replace(b"asynctrack ", b"asynctrack 0", 1)),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
    ]  # fmt: skip


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("at", range(len(damages())))
def test_a_cache_that_cannot_be_believed_is_not(folder: Folder, cache_dir: Path, at: int) -> None:
    folder.write("metrics/m", "1 0.5 1\n")
    folder.write("params/p", "0.5")
    found = folder.search()
    [path] = cache_dir.iterdir()
    damages()[at](path)
    assert cache.load(str(path)) == {}
    for _ in range(2):
        assert repr(folder.search()) == repr(found)


@pytest.mark.usefixtures("eager")
def test_a_cache_of_another_user_is_neither_read_nor_written(
    folder: Folder, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("metrics/m", "1 0.5 1\n")
    found = folder.search()
    [path] = cache_dir.iterdir()
    before = path.read_bytes()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    folder.write("params/p", "1")
    assert cache.load(str(path)) == {}
    assert folder.data()[:2] == ({"m": 0.5}, {"p": "1"})
    assert path.read_bytes() == before
    assert found[0].data.metrics == {"m": 0.5}


@pytest.mark.usefixtures("eager")
def test_where_no_cache_can_be_written_all_is_computed(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("metrics/m", "1 0.5 1\n")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", "/proc/none"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert folder.data()[0] == {"m": 0.5}
    (tmp_path / "file").unlink()

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write_all", full)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "full"))
    assert folder.data()[0] == {"m": 0.5}
    assert list((tmp_path / "full" / "asynctrack").iterdir()) == []


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("off", ["off", "OFF", "0", "no", "false"])
def test_the_cache_can_be_switched_off(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    monkeypatch.setenv("ASYNCTRACK_CACHE", off)
    folder.write("metrics/m", "1 0.5 1\n")
    store = folder.store
    for _ in range(2):
        assert folder.data(store)[0] == {"m": 0.5}
    assert not (tmp_path / "cache").exists()


def test_a_relative_cache_home_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    path = cache.cache_path(str(tmp_path))
    assert path is not None
    assert path.startswith(str(tmp_path / "home/.cache/asynctrack/"))
    monkeypatch.setenv("HOME", "elsewhere")
    assert cache.cache_path(str(tmp_path)) is None


@pytest.mark.usefixtures("eager")
def test_a_cache_file_has_an_end_and_so_have_all_together(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_MOST", 5000)
    monkeypatch.setattr(cache, "_MOST_IN_ALL", 12_000)
    for at in range(5):
        folders = [Folder(tmp_path / f"mlruns {at}") for _ in range(10)]
        for folder in folders:
            folder.write("params/p", "x" * 900)
        for _ in range(2):
            assert len(folders[0].search()) == 10
        sizes = [path.stat().st_size for path in cache_dir.iterdir()]
        assert 0 < max(sizes) <= 5000
        assert sum(sizes) <= 12_000
    kept = cache.load(str(max(cache_dir.iterdir(), key=lambda path: path.stat().st_mtime_ns)))
    assert 0 < len({name.partition("/")[0] for name in kept}) < 10


def test_little_is_not_saved(folder: Folder, tmp_path: Path) -> None:
    folder.write("metrics/m", "1 0.5 1\n")
    folder.search()
    drive(folder.store.get_run(folder.run_id))
    assert not (tmp_path / "cache").exists()


def test_a_large_metric_file_is_known_to_the_next_program(folder: Folder, cache_dir: Path) -> None:
    path = folder.write("metrics/m", "1700000000000 0.5 1\n" * 100_000)
    run = drive(folder.store.get_run(folder.run_id))
    assert len(list(cache_dir.iterdir())) == 1
    with path.open("a") as file:
        file.write("1700000000000 1.5 2\n")
    read: list[int] = []
    real = Summary.of

    def counted(block: Columns, before: Summary | None = None) -> Summary | None:
        read.append(len(block))
        return real(block, before)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Summary, "of", counted)
        assert drive(folder.store.get_run(folder.run_id)).data.metrics == {"m": 1.5}
    assert (run.data.metrics, read) == ({"m": 0.5}, [1])


def test_logging_reads_and_writes_no_cache(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        for step in range(1000):
            run.log_metric("m", step / 2, step=step)
        run.flush()
    assert not (tmp_path / "cache").exists()


def test_a_training_process_sees_its_newest_points(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        for step in range(20):
            run.log_metric("m", step / 2, step=step)
            assert asynctrack.get_run(run.info.run_id).data.metrics == {"m": step / 2}


@pytest.mark.usefixtures("eager")
def test_runs_are_searched_while_they_are_written(folder: Folder) -> None:
    path = folder.write("metrics/m", "0 0.0 0\n")
    store = folder.store
    stop = threading.Event()
    wrong: list[object] = []

    def search() -> None:
        last = 0.0
        try:
            while not stop.is_set():
                found = folder.data(store)[0]["m"]
                if found < last:
                    wrong.append((last, found))
                last = found
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    with path.open("a", buffering=1) as file:
        for at in range(1, 300):
            file.write(f"{at} {float(at)} {at}\n")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert folder.data(store)[0] == {"m": 299.0}
