"""FileStore where something else stands in a file's place, where the power failed, and where two write at once."""

from __future__ import annotations

import os
import pathlib
import threading
import tracemalloc
from typing import Any

import pytest

from asynctrack.entities import ViewType
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.base import Batch, RunSpec
from asynctrack.stores.file import FileStore, meta
from asynctrack.stores.file import tree as tree_module
from asynctrack.stores.io import InlineIO, drive, write_file_atomically
from asynctrack.stores.uri import open_store, resolve_store_uri, same_spelling

UID = "0123456789abcdef0123456789abcdef"
SPEC = RunSpec(uid=UID, start_time=1, run_name="r", tags={"team": "cv"})


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the store is."""
    return tmp_path / "mlruns"


@pytest.fixture
def store(root: pathlib.Path) -> FileStore:
    """With one run."""
    store = FileStore(root, InlineIO())
    drive(store.create_run(SPEC))
    return store


@pytest.fixture
def run_dir(store: FileStore) -> pathlib.Path:
    """That run's folder."""
    return pathlib.Path(store.root, "0", UID)


# ── what is written can be read again


@pytest.mark.parametrize("end_time", [1.5, 1795923476385.4321, "2024-01-01", 10**30, True])
def test_an_end_that_could_not_be_read_again_is_not_written(
    store: FileStore, run_dir: pathlib.Path, end_time: Any
) -> None:
    before = (run_dir / "meta.yaml").read_bytes()
    with pytest.raises(RefusedError, match="end_time"):
        drive(store.update_run(UID, status="FINISHED", end_time=end_time))
    assert (run_dir / "meta.yaml").read_bytes() == before
    assert drive(store.get_run_info(UID)).status == "RUNNING"


def test_a_store_that_goes_away_while_a_run_is_being_ended_refuses_nothing(
    store: FileStore, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file was read, and is gone when it is read to be changed: that end was refused for good."""
    really_read, reads = tree_module.Tree.meta, []

    def read(self: tree_module.Tree, folder: str) -> dict[str, Any] | None:
        if os.path.basename(folder) == UID:
            reads.append(folder)
            if len(reads) == 2:
                root.rename(root.with_name("away"))
        return really_read(self, folder)

    monkeypatch.setattr(tree_module.Tree, "meta", read)
    with pytest.raises(UnavailableError) as raised:
        drive(store.update_run(UID, status="FINISHED", end_time=7))
    assert raised.value.retryable
    assert len(reads) >= 2
    root.with_name("away").rename(root)
    drive(store.update_run(UID, status="FINISHED", end_time=7))
    assert drive(store.get_run_info(UID)).status == "FINISHED"


@pytest.mark.parametrize("another", [False, True], ids=["nothing", "another store"])
def test_a_run_that_was_found_is_not_made_anew_where_its_store_has_gone(
    store: FileStore, root: pathlib.Path, *, another: bool
) -> None:
    """A rank that is started again finds its run. When the store went before the rank had a place in it, it made a new
    store with a second run of that id."""
    rank = FileStore(root, InlineIO())
    drive(rank.create_run(SPEC))
    root.rename(root.with_name("away"))
    if another:
        drive(FileStore(root, InlineIO()).create_run(RunSpec(uid="b" * 32, start_time=1)))
    with pytest.raises(UnavailableError) as raised:
        drive(rank.create_run(SPEC))
    assert raised.value.retryable
    assert not (root / "0" / UID).exists()
    assert root.exists() == another
    if another:
        root.rename(root.with_name("another"))
    root.with_name("away").rename(root)
    assert drive(rank.create_run(SPEC)).run_name == "r"


def test_a_run_that_could_not_be_read_again_is_not_created(store: FileStore, root: pathlib.Path) -> None:
    with pytest.raises(RefusedError, match="start_time"):
        drive(store.create_run(RunSpec(uid="a" * 32, start_time=10**30)))
    assert not (root / "0" / ("a" * 32)).exists()
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        drive(store.create_experiment("x", object()))  # type: ignore[arg-type]  # what no YAML holds


# ── what counts as a run


def test_a_file_called_meta_yaml_among_the_artifacts_is_no_run(store: FileStore, root: pathlib.Path) -> None:
    """Even where an experiment keeps its artifacts in the store's own folder, and the file says that it is a run."""
    experiment_id = drive(store.create_experiment("x", f"file://{root}"))
    info = drive(store.create_run(RunSpec(uid="a" * 32, experiment_id=experiment_id)))
    assert info.artifact_uri == f"file://{root}/{'a' * 32}/artifacts"
    for run_id in ("artifacts", "b" * 32):
        planted = root / ("a" * 32) / run_id
        planted.mkdir(parents=True)
        text = (root / "0" / UID / "meta.yaml").read_text()
        text = text.replace(UID, run_id).replace("experiment_id: '0'", f"experiment_id: {'a' * 32}")
        (planted / "meta.yaml").write_text(text)
        with pytest.raises(NotFoundError):
            drive(store.get_run(run_id))
        with pytest.raises(NotFoundError):
            drive(store.log_batch(run_id, Batch(params=[("p", "1")])))
    assert not (root / ("a" * 32) / "artifacts/params").exists()
    found = {experiment.experiment_id for experiment in drive(store.search_experiments(ViewType.ALL)).items}
    assert found == {"0", experiment_id}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_no_run_and_nobody_waits_for_it(store: FileStore, run_dir: pathlib.Path, kind: str) -> None:
    """A pipe without a writer would hold up its reader for ever."""
    other = run_dir.parent / ("b" * 32)
    other.mkdir()
    os.mkfifo(other / "meta.yaml") if kind == "pipe" else (other / "meta.yaml").mkdir()
    assert [run.info.run_id for run in drive(store.search_runs(["0"])).items] == [UID]
    with pytest.raises(NotFoundError):
        drive(store.get_run("b" * 32))


@pytest.mark.parametrize("kind", ["metric", "param"])
def test_a_pipe_in_a_files_place_refuses_its_key_and_no_other(
    store: FileStore, run_dir: pathlib.Path, kind: str
) -> None:
    os.mkfifo(run_dir / f"{kind}s" / "pipe")
    batch = Batch({"pipe": [(1, 0, 1.0)], "m": [(1, 0, 1.0)]}, [("pipe", "1"), ("p", "1")])
    for bookmark in (None, drive(store.bookmark(UID, batch))):
        refused = drive(store.log_batch(UID, batch, bookmark))
        assert [(refusal.kind, refusal.key) for refusal in refused] == [(kind, "pipe")]
    assert drive(store.get_metric_history(UID, "pipe"))[1:] == []
    data = drive(store.get_run(UID)).data
    assert "m" in data.metrics
    assert "p" in data.params


# ── a meta.yaml that a power cut has left empty, or torn


def settle(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two seconds pass from one look to the next."""
    monkeypatch.setattr(tree_module, "_SETTLED", -1)


@pytest.mark.parametrize("left", [b"", b"\0" * 300])
def test_a_run_whose_file_the_power_cut_has_emptied_is_completed_by_whoever_knows_it(
    root: pathlib.Path, store: FileStore, run_dir: pathlib.Path, left: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the first look: somebody may be writing it."""
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]})))
    (run_dir / "meta.yaml").write_bytes(left)
    store = FileStore(root, InlineIO())
    with pytest.raises(UnavailableError, match="empty") as raised:
        drive(store.log_batch(UID, Batch({"m": [(2, 1, 2.0)]})))
    assert (raised.value.retryable, raised.value.incomplete) == (True, False)
    settle(store, monkeypatch)
    with pytest.raises(UnavailableError, match="empty") as raised:
        drive(store.log_batch(UID, Batch({"m": [(2, 1, 2.0)]})))
    assert (raised.value.retryable, raised.value.incomplete) == (True, True)
    with pytest.raises(RefusedError, match="not known here"):
        drive(store.create_run(RunSpec(uid="c" * 32, run_id=UID)))
    assert drive(store.create_run(SPEC)).run_name == "r"
    assert drive(store.log_batch(UID, Batch({"m": [(2, 1, 2.0)]}))) == []
    run = drive(store.get_run(UID))
    assert (run.data.metrics, run.data.tags["team"]) == ({"m": 2.0}, "cv")


def test_a_run_whose_file_is_lost_is_completed_by_whoever_knows_it(store: FileStore, run_dir: pathlib.Path) -> None:
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]})))
    (run_dir / "meta.yaml").unlink()
    drive(store.create_run(SPEC))
    assert drive(store.get_run(UID)).data.metrics == {"m": 1.0}


def test_a_torn_file_is_asked_for_again_and_then_refuses_what_comes(
    store: FileStore, run_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow may be rewriting it; what has stood like that for two seconds is not about to change."""
    whole = (run_dir / "meta.yaml").read_bytes()
    (run_dir / "meta.yaml").write_bytes(b"run_id: [")
    for kind, changed in ((True, False), (False, True)):
        with pytest.raises(UnavailableError) as raised:
            drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]})))
        assert (raised.value.retryable, raised.value.incomplete) == (kind, False), changed
        settle(store, monkeypatch)
    (run_dir / "meta.yaml").write_bytes(whole)
    assert drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]}))) == []


def test_small_files_that_unfold_to_large_ones_are_not_unfolded(store: FileStore, run_dir: pathlib.Path) -> None:
    """YAML's aliases: nine lists of nine make a name of 400 million letters."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, more in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{more}: &{more} [{', '.join([f'*{one}'] * 9)}]")
    text = (run_dir / "meta.yaml").read_text().replace("run_name: r\n", "").replace(f"run_id: {UID}", "run_id: *i")
    other = run_dir.parent / ("b" * 32)
    other.mkdir()
    (other / "meta.yaml").write_text("\n".join([*lines, text, "run_name: *i", ""]))
    tracemalloc.start()
    try:
        assert [run.info.run_id for run in drive(store.search_runs(["0"])).items] == [UID]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# ── memory and reading


def test_the_latest_value_of_a_long_metric_is_found_in_flat_memory(store: FileStore, run_dir: pathlib.Path) -> None:
    with open(run_dir / "metrics/m", "w") as file:
        file.writelines(f"{1_700_000_000_000 + i} {i / 3!r} {i}\n" for i in range(400_000))
    tracemalloc.start()
    try:
        assert drive(store.get_run(UID)).data.latest["m"].step == 399_999
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < (run_dir / "metrics/m").stat().st_size


def test_a_value_too_large_for_any_param_is_not_read(
    store: FileStore, run_dir: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(run_dir / "params/p", "wb") as file:
        file.truncate(1 << 40)
    assert drive(store.get_run(UID)).data.params == {}
    assert "more than" in caplog.text
    (refused,) = drive(store.log_batch(UID, Batch(params=[("p", "1"), ("q", "1")])))
    assert refused.key == "p"


def test_a_whole_file_is_compared_once_however_many_batches_come_with_the_same_bookmark(
    store: FileStore, run_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a damaged cursor nothing is known: each of the spool's batches is to be looked for in the whole file."""
    batches = [
        Batch({"m": [(1000 + i, i, i / 7) for i in range(start, start + 500)]}) for start in range(0, 20_000, 500)
    ]
    for batch in batches[:30]:
        drive(store.log_batch(UID, batch))
    read = []
    real = os.pread

    def count(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", count)
    store = FileStore(store.root, InlineIO())
    other = FileStore(store.root, InlineIO())
    for number, batch in enumerate(batches):
        if number == 20:  # another rank writes, too
            drive(other.log_batch(UID, Batch({"m": [(7, 7, 7.0)]})))
        assert drive(store.log_batch(UID, batch, {})) == []
    steps = [point.step for point in drive(store.get_metric_history(UID, "m"))]
    assert steps == [*range(15_000), 7, *range(15_000, 20_000)]
    assert sum(read) < 2 * (run_dir / "metrics/m").stat().st_size


# ── two at once


def test_two_threads_that_replace_one_file_never_publish_a_torn_one(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "file")
    texts = [b"a" * 100_000, b"b" * 100_000]
    write_file_atomically(path, texts[0], durable=False)

    def write(text: bytes) -> None:
        for _ in range(100):
            write_file_atomically(path, text, durable=False)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert pathlib.Path(path).read_bytes() in texts
    assert os.listdir(tmp_path) == ["file"]


def test_an_experiment_is_deleted_while_one_of_its_runs_ends(
    store: FileStore, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk. Neither undoes what the other does."""
    experiment_id = drive(store.create_experiment("x"))
    drive(store.create_run(RunSpec(uid="a" * 32, experiment_id=experiment_id)))
    marking, ended = threading.Event(), threading.Event()
    real = os.replace
    main = threading.current_thread()

    def slowly(source: str, target: str) -> None:
        if threading.current_thread() is main and "a" * 32 in target:
            marking.set()
            ended.wait(1.0)
        real(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    failures: list[Exception] = []

    def end() -> None:
        marking.wait(10)
        other = FileStore(root, InlineIO())
        for _ in range(2):
            try:
                drive(other.update_run("a" * 32, status="FINISHED"))
            except RefusedError:
                break  # deleted: it came too late
            except UnavailableError:
                continue  # it was being moved to the trash; it is tried again, as the engine does
            except Exception as error:
                failures.append(error)
        ended.set()

    thread = threading.Thread(target=end)
    thread.start()
    drive(store.delete_experiment(experiment_id))
    thread.join()
    assert failures == []
    assert drive(store.get_run_info("a" * 32)).lifecycle_stage == "deleted"


# ── one store, and one that is away


def test_a_store_reached_through_a_link_is_the_same_store(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whether it is there already or not; what an earlier version has written down is recognised."""
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    linked = tmp_path / "link" / "mlruns"
    for _ in range(2):
        assert resolve_store_uri(linked) == resolve_store_uri(root) == f"file://{root}"
        assert open_store(linked, InlineIO()).uri == FileStore(linked, InlineIO()).uri == f"file://{root}"
        assert same_spelling(f"file://{linked}") == f"file://{root}"
        root.mkdir(exist_ok=True)
    for uri in ("memory:", "http://x", "file://host/x", "mine:y"):
        assert same_spelling(uri) == uri


@pytest.mark.parametrize("gone", ["moved", "unmounted"])
def test_a_run_is_taken_up_again_when_the_store_is_back(
    store: FileStore, root: pathlib.Path, tmp_path: pathlib.Path, gone: str
) -> None:
    """As on a server that is away; a run that a store does not have is not found."""
    spec = RunSpec(uid="c" * 32, run_id=UID)
    root.rename(tmp_path / "elsewhere")
    if gone == "unmounted":
        root.mkdir()
    with pytest.raises(UnavailableError):
        drive(store.create_run(spec))
    if gone == "unmounted":
        root.rmdir()
    (tmp_path / "elsewhere").rename(root)
    assert drive(store.create_run(spec)).run_id == UID
    with pytest.raises(NotFoundError):
        drive(store.create_run(spec._replace(run_id="d" * 32)))


def test_a_run_that_two_make_at_once_is_not_opened_again_when_the_first_has_ended_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forked child's engine and its parent's both create the run; the parent has ended it meanwhile."""
    store, other = FileStore(tmp_path, InlineIO()), FileStore(tmp_path, InlineIO())
    spec = RunSpec(uid=UID, start_time=1, run_name="r")
    encoded = meta.encoded_run

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(meta, "encoded_run", encoded)
        drive(other.create_run(spec))
        drive(other.log_batch(UID, Batch(tags=[("mlflow.runName", "another")])))
        drive(other.update_run(UID, status="FINISHED", end_time=2))
        return encoded(*arguments)

    monkeypatch.setattr(meta, "encoded_run", overtaken)
    assert drive(store.create_run(spec)).status == "FINISHED"
    found = drive(store.get_run(UID))
    assert (found.info.status, found.info.end_time) == ("FINISHED", 2)
    assert found.data.tags["mlflow.runName"] == "another"
