"""FileStore beyond the contract: the layout, several processes, damage, links, clashes and failing disks."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import pytest
import yaml

import asynctrack
from asynctrack.entities import ViewType
from asynctrack.errors import NotFoundError, RefusedError, UnavailableError
from asynctrack.stores.base import Batch, Point, RunSpec
from asynctrack.stores.file import FileStore, layout, runs
from asynctrack.stores.file.tree import Tree
from asynctrack.stores.io import InlineIO, drive

T = TypeVar("T")
Args = TypeVarTuple("Args")

UID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the store will be."""
    return tmp_path / "ml runs"


@pytest.fixture
def store(root: pathlib.Path) -> FileStore:
    """Without an event loop."""
    return FileStore(root, InlineIO())


def new_run(store: FileStore, uid: str = UID, **given: Any) -> pathlib.Path:
    """The directory of a new run."""
    info = drive(store.create_run(RunSpec(uid=uid, start_time=1, **given)))
    return pathlib.Path(store.root, info.experiment_id, info.run_id)


# ── layout


@pytest.mark.parametrize(
    "name", ["plain-1.2_~", "two words", "100%", "a?b#c;d&e=f", "größe 表", "\udcff\x01", "a//b/../c"]
)
def test_a_folder_has_the_uri_that_pathlib_gives_it(name: str) -> None:
    """Which takes longer to load than a verb may take."""
    assert layout.local_uri(f"/runs/{name}") == pathlib.Path(os.path.abspath(f"/runs/{name}")).as_uri()


def test_opening_a_store_writes_nothing(store: FileStore, root: pathlib.Path) -> None:
    """Looking into a directory that is not there is no reason to create it."""
    assert [found.name for found in drive(store.search_experiments()).items] == ["Default"]
    assert drive(store.search_experiments(ViewType.DELETED_ONLY)).items == []
    with pytest.raises(NotFoundError):
        drive(store.get_run(UID))
    with pytest.raises(NotFoundError):
        drive(store.get_experiment("1"))
    assert not root.exists()


def test_a_store_without_runs_has_the_default_experiment(store: FileStore, root: pathlib.Path) -> None:
    """MLflow makes it when it opens the store; here the first write does, with what was said before."""
    before = drive(store.get_experiment("0"))
    assert (before.name, before.lifecycle_stage) == ("Default", "active")
    assert drive(store.get_experiment_by_name("Default")) == before
    assert not root.exists()
    drive(store.set_experiment_tag("0", "k", "v"))
    after = drive(store.get_experiment("0"))
    assert (after.tags, after.artifact_location) == ({"k": "v"}, before.artifact_location)


@pytest.mark.parametrize("key", ["folder", "../meta.yaml", "k", ""])
def test_only_a_tag_is_removed_from_an_experiment(key: str, store: FileStore) -> None:
    """Not the folder of others, and no other file; the default experiment that is not written yet has none."""
    with pytest.raises(NotFoundError):
        drive(store.delete_experiment_tag("0", key))
    drive(store.set_experiment_tag("0", "folder/k", "v"))
    with pytest.raises(NotFoundError):
        drive(store.delete_experiment_tag("0", key))
    assert drive(store.get_experiment("0")).tags == {"folder/k": "v"}


def test_a_store_whose_owner_has_removed_the_default_experiment_has_none(store: FileStore, root: pathlib.Path) -> None:
    """Only a new store has it unasked."""
    drive(store.create_experiment("vision"))
    shutil.rmtree(root / "0")
    assert drive(store.get_experiment_by_name("Default")) is None
    with pytest.raises(NotFoundError):
        drive(store.get_experiment("0"))


def test_a_new_store_has_what_mlflow_creates(store: FileStore, root: pathlib.Path) -> None:
    """The default experiment, the trash, the run's three folders and the tag with its name; nothing else."""
    run_dir = new_run(store, run_name="r")
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    run = f"0/{UID}"
    parts = ["artifacts", "meta.yaml", "metrics", "params", "tags", "tags/mlflow.runName"]
    assert files == [".trash", "0", run, *(f"{run}/{part}" for part in parts), "0/meta.yaml"]
    assert (run_dir / "tags/mlflow.runName").read_text() == "r"


def test_a_run_meta_is_as_mlflow_writes_it(store: FileStore, root: pathlib.Path) -> None:
    """Integer status, quoted ids, sorted keys."""
    uid = "1" * 32  # unquoted, MLflow would read a number and fail the whole experiment
    text = (new_run(store, uid, run_name="r", user_id="ann") / "meta.yaml").read_text()
    assert "experiment_id: '0'\n" in text
    assert f"run_id: '{uid}'\n" in text
    assert yaml.safe_load(text) == {
        "artifact_uri": f"{root.as_uri()}/0/{uid}/artifacts",
        "deleted_time": None,
        "end_time": None,
        "entry_point_name": "",
        "experiment_id": "0",
        "lifecycle_stage": "active",
        "run_id": uid,
        "run_name": "r",
        "run_uuid": uid,
        "source_name": "",
        "source_type": 4,
        "source_version": "",
        "start_time": 1,
        "status": 1,
        "tags": [],
        "user_id": "ann",
    }


def test_a_run_that_lacks_what_old_readers_want_gets_it_when_it_changes(store: FileStore) -> None:
    """MLflow 3 and the first asynctrack wrote no run_uuid, and MLflow before 3.0 then finds no run at all."""
    path = new_run(store) / "meta.yaml"
    path.write_text(path.read_text().replace(f"run_uuid: {UID!r}\n", "").replace(f"run_uuid: {UID}\n", ""))
    assert "run_uuid" not in yaml.safe_load(path.read_text())
    drive(store.update_run(UID, status="FINISHED", end_time=2))
    assert yaml.safe_load(path.read_text())["run_uuid"] == UID


@pytest.mark.parametrize("where", ["metric", "param", "tag", "first tag"])
def test_a_key_that_old_readers_fail_at_is_said_once(
    store: FileStore, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow before 2.16 knows no colon in a key, and one such key hides every run of the experiment from it."""
    new_run(store, tags={"a:b": "1"} if where == "first tag" else {})
    for key in ("a:b", "c:d"):
        kind, _, first = where.rpartition(" ")
        event = ("metric", key, (1, 1, 1.0)) if where == "metric" else (first, key, "1")
        assert drive(store.log_batch(UID, Batch.of([event] if not kind else []))) == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert "MLflow 2.16" in said
    assert "'a:b'" in said


def test_ids_of_experiments_have_18_digits(store: FileStore, root: pathlib.Path) -> None:
    """Only integer ids survive MLflow's migration."""
    experiment_id = drive(store.create_experiment("x"))
    assert len(experiment_id) == 18
    assert experiment_id.isdigit()
    drive(store.delete_experiment(experiment_id))
    assert (root / ".trash" / experiment_id / "meta.yaml").exists()
    assert not (root / experiment_id).exists()


def test_deleting_marks_the_run_and_an_update_forgets_the_time(store: FileStore) -> None:
    """deleted_time is there while the run is deleted, as MLflow's gc expects."""
    meta = new_run(store) / "meta.yaml"
    drive(store.delete_run(UID))
    assert isinstance(yaml.safe_load(meta.read_text())["deleted_time"], int)
    drive(store.restore_run(UID))
    assert "deleted_time" not in yaml.safe_load(meta.read_text())


def test_values_are_written_without_a_newline(store: FileStore) -> None:
    """A file is its value; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    run_dir = new_run(store)
    drive(store.log_batch(UID, Batch(params=[("a/b", "x\r\n"), ("s", "\ud800")], tags=[("t", "")])))
    assert (run_dir / "params/a/b").read_bytes() == b"x\r\n"
    assert (run_dir / "params/s").read_bytes() == b"?"
    assert (run_dir / "tags/t").read_bytes() == b""


# ── creating


def test_a_half_created_run_is_completed(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process died before meta.yaml: no reader sees the run, and repeating its creation finishes it."""

    def die(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(runs, "write_file_atomically", die)
        with pytest.raises(UnavailableError):
            new_run(store)
    assert drive(store.search_runs(["0"])).items == []
    name = pathlib.Path(store.root, "0", UID, "tags/mlflow.runName").read_text()
    new_run(store)
    assert [run.info.run_name for run in drive(store.search_runs(["0"])).items] == [name]


def test_processes_that_name_one_experiment_create_one(root: pathlib.Path) -> None:
    """Ranks that start together end in the same experiment, in a store that none of them found."""
    program = (
        "import sys, uuid; from asynctrack.stores.file import FileStore; from asynctrack.stores.base import RunSpec;"
        "from asynctrack.stores.io import InlineIO, drive; sys.stdin.read(1);"
        "print(drive(FileStore(sys.argv[1], InlineIO()).create_run("
        "RunSpec(uid=uuid.uuid4().hex, experiment_name='shared'))).experiment_id)"
    )
    command = [sys.executable, "-c", program, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(asynctrack.__file__).parent.parent)}
    ranks = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) for _ in range(4)
    ]
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write(b"x")
        rank.stdin.flush()
    ids = {rank.communicate()[0] for rank in ranks}
    assert len(ids) == 1
    assert sorted(path.name for path in root.iterdir()) == sorted([".trash", "0", ids.pop().decode().strip()])


def test_a_bad_tag_does_not_cost_the_run(store: FileStore, caplog: pytest.LogCaptureFixture) -> None:
    """Create-time tags are not checked by every caller: the bad ones are left out, with a warning."""
    run_dir = new_run(store, tags={"../../../x": "1", "a": "1", "a/b": "1", "good": "1"})
    assert sorted(path.name for path in (run_dir / "tags").iterdir()) == ["a", "good", "mlflow.runName"]
    assert len(caplog.records) == 2


# ── logging


def test_a_batch_is_one_hop(store: FileStore) -> None:
    """However many files it touches: the engine pays one thread switch."""
    hops: list[Any] = []

    class Counting(InlineIO):
        async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
            hops.append(function)
            return function(*args)

    new_run(store)
    store.io = Counting()
    drive(
        store.log_batch(UID, Batch({"a": [(1, 0, 1.0)], "b": [(1, 0, 1.0)]}, [("p", "1")], [("mlflow.runName", "n")]))
    )
    assert len(hops) == 1


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b", "a/b/c")])
def test_a_key_that_is_another_keys_folder_is_refused_alone(store: FileStore, first: str, second: str) -> None:
    """Files and folders cannot share a name; everything else of the batch is stored."""
    new_run(store)
    for kind, value in (("metric", (1, 0, 1.0)), ("param", "1"), ("tag", "1")):
        batch = Batch.of([(kind, first, value), (kind, second, value), (kind, "z", value)])
        refused = drive(store.log_batch(UID, batch))
        assert [(refusal.kind, refusal.key, refusal.value) for refusal in refused] == [(kind, second, value)]
        assert "a/b" in refused[0].reason
    data = drive(store.get_run(UID)).data
    assert set(data.metrics) == set(data.params) == set(data.tags) - {"mlflow.runName"} == {first, "z"}


def test_long_values_are_cut_with_one_warning(store: FileStore, caplog: pytest.LogCaptureFixture) -> None:
    """As MLflow cuts them, but said; the same long param again is the same param."""
    new_run(store)
    batch = Batch(params=[("p", "x" * 6001)], tags=[("t", "y" * 8001)])
    for _ in range(2):
        assert drive(store.log_batch(UID, batch)) == []
    data = drive(store.get_run(UID)).data
    assert (len(data.params["p"]), len(data.tags["t"])) == (6000, 8000)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert UID in caplog.text
    assert "'p'" in caplog.text


@pytest.mark.parametrize("link", ["metrics", "metrics/a", "params", "tags", ""])
def test_nothing_is_written_outside_the_store(store: FileStore, tmp_path: pathlib.Path, link: str) -> None:
    """A link inside a run that leads out is refused, whoever put it there."""
    run_dir = new_run(store)
    outside = tmp_path / "outside"
    target = run_dir / link
    if target.exists():
        target.rename(outside)
    else:
        outside.mkdir()
    target.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    refused = drive(FileStore(store.root, InlineIO()).log_batch(UID, Batch({"a/b": [(1, 0, 1.0)]})))
    assert [refusal.key for refusal in refused] == ["a/b"]
    assert "outside" in refused[0].reason
    assert sorted(outside.rglob("*")) == before


def test_a_metric_file_that_is_a_link_is_not_followed(store: FileStore, tmp_path: pathlib.Path) -> None:
    """The last step of the way could lead out too."""
    (new_run(store) / "metrics/m").symlink_to(tmp_path / "elsewhere")
    assert [refusal.key for refusal in drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]})))] == ["m"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_may_itself_be_a_link(tmp_path: pathlib.Path) -> None:
    """Runs often live on another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "mlruns").symlink_to(tmp_path / "disk")
    store = FileStore(tmp_path / "mlruns", InlineIO())
    new_run(store)
    assert drive(store.log_batch(UID, Batch(params=[("p", "1")]))) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_disk_is_tried_again(store: FileStore, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The error names the path and the system's words; once the disk is well, everything is there once."""
    new_run(store)
    batch = Batch({"m": [(1, 0, 1.0)], "n": [(1, 0, 1.0)]}, [("p", "1")], [("t", "1")])
    write, count = os.write, 0

    def fail(fd: int, data: Any) -> int:
        nonlocal count
        count += 1
        if count > 2:  # the param and one metric went well
            raise OSError(code, os.strerror(code))
        return write(fd, data)

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        with pytest.raises(UnavailableError) as caught:
            drive(store.log_batch(UID, batch))
    assert os.strerror(code) in str(caught.value)
    assert store.root in str(caught.value)
    assert caught.value.retryable
    assert caught.value.ambiguous  # some of it is stored
    assert drive(store.log_batch(UID, batch)) == []
    data = drive(store.get_run(UID)).data
    assert (data.metrics, data.params, data.tags["t"]) == ({"m": 1.0, "n": 1.0}, {"p": "1"}, "1")


def test_a_store_that_is_gone_is_not_a_missing_run(store: FileStore, root: pathlib.Path) -> None:
    """A lost mount shows an empty directory, or none: the events wait."""
    new_run(store)
    root.rename(root.with_name("away"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="mounted"):
            drive(store.log_batch(UID, Batch(params=[("p", "1")])))
        root.mkdir(exist_ok=True)
    root.rmdir()
    root.with_name("away").rename(root)
    assert drive(store.log_batch(UID, Batch(params=[("p", "1")]))) == []


def test_a_store_that_goes_while_a_run_is_looked_at_is_tried_again(
    store: FileStore, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between finding the run's folder and reading its meta.yaml: no event is refused for that."""
    new_run(store)
    find = Tree.find_run

    def found_and_gone(tree: Tree, run_id: str) -> str | None:
        run_dir = find(tree, run_id)
        root.rename(root.with_name("away"))
        return run_dir

    spec = RunSpec(uid=UID, run_name="again")
    works: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: store.create_run(spec),
        lambda: store.log_batch(UID, Batch(tags=[("mlflow.runName", "new")])),
        lambda: store.update_run(UID, status="FINISHED"),
    ]
    for work in works:
        monkeypatch.setattr(Tree, "find_run", found_and_gone)
        with pytest.raises(UnavailableError):
            drive(work())
        monkeypatch.setattr(Tree, "find_run", find)
        if root.exists():
            shutil.rmtree(root)
        root.with_name("away").rename(root)
        drive(work())
    assert drive(store.get_run(UID)).info.status == "FINISHED"


def test_behind_an_empty_bookmark_lies_the_whole_file(store: FileStore) -> None:
    """A damaged cursor knows nothing: what the file holds already, however much, is not written again."""
    new_run(store)
    points: list[Point] = [(step, step, 1.0) for step in range(1000)]
    drive(store.log_batch(UID, Batch({"m": points})))
    drive(store.log_batch(UID, Batch({"m": points[:500]}), bookmark={}))
    assert len(drive(store.get_metric_history(UID, "m"))) == 1000


def test_a_bookmark_holds_sizes(store: FileStore) -> None:
    """Bytes of each metric's file; what is not there, and what will be refused, is 0."""
    new_run(store)
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]})))
    batch = Batch({"m": [(2, 1, 1.0)], "new": [(2, 1, 1.0)], "m/x": [(2, 1, 1.0)], "a//b": [(2, 1, 1.0)]})
    assert drive(store.bookmark(UID, batch)) == {"m": 8, "new": 0, "m/x": 0, "a//b": 0}
    assert drive(store.bookmark("f" * 32, batch)) == {"m": 0, "new": 0, "m/x": 0, "a//b": 0}


# ── damage


@pytest.mark.parametrize("damage", [b"", b"run_id: [", b"\xff\xfe", b"just text", b"run_id: other\n", b"status: x\n"])
def test_a_damaged_run_never_hides_its_neighbours(
    store: FileStore, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    """Torn, empty or foreign meta.yaml: the run is skipped with one warning, however often it is met."""
    broken = new_run(store, "b" * 32)
    new_run(store)
    (broken / "meta.yaml").write_bytes(damage)
    for _ in range(2):
        assert [run.info.run_id for run in drive(store.search_runs(["0"])).items] == [UID]
    assert len(caplog.records) == 1
    assert "b" * 32 in caplog.text
    with pytest.raises(UnavailableError, match=r"meta\.yaml"):
        drive(store.log_batch("b" * 32, Batch(params=[("p", "1")])))


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        ("status: 1", "status: FINISHED"),
        ("status: 1", "status: 9"),
        ("start_time: 1", "start_time: null"),
        ("end_time: null", "end_time: soon"),
        ("lifecycle_stage: active", "lifecycle_stage: gone"),
        ("experiment_id: '0'", "experiment_id: '1'"),
    ],
)
def test_a_run_that_mlflow_cannot_read_is_skipped(
    store: FileStore, caplog: pytest.LogCaptureFixture, line: str, damage: str
) -> None:
    """A field of another kind than MLflow's, as foreign writers and old versions left it."""
    broken = new_run(store, "b" * 32)
    new_run(store)
    text = (broken / "meta.yaml").read_text()
    assert line in text
    (broken / "meta.yaml").write_text(text.replace(line, damage))
    for _ in range(2):
        assert [run.info.run_id for run in drive(store.search_runs(["0"])).items] == [UID]
        assert [info.run_id for info in drive(store.list_run_infos("0")).items] == [UID]
    (record,) = caplog.records
    assert damage.partition(":")[0] in record.getMessage() or "RunStatus" in record.getMessage()


def test_a_damaged_experiment_never_hides_its_neighbours(
    store: FileStore, root: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same for experiments, and for folders that are none."""
    broken = drive(store.create_experiment("broken"))
    drive(store.create_experiment("x"))
    (root / broken / "meta.yaml").write_bytes(b"name: [")
    (root / "plain").mkdir()
    (root / "file").touch()
    (root / "models").mkdir()
    for _ in range(2):
        names = {found.name for found in drive(store.search_experiments(ViewType.ALL)).items}
        assert names == {"x", "Default"}
    assert len(caplog.records) == 2


def test_damaged_data_is_skipped_with_one_warning_a_file(store: FileStore, caplog: pytest.LogCaptureFixture) -> None:
    """A torn metric line, a param that is not UTF-8, a file no key can name; what is whole is read."""
    run_dir = new_run(store)
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")])))
    with (run_dir / "metrics/m").open("ab") as file:
        file.write(b"torn\n2 2.0 1\n3 3.0")
    (run_dir / "metrics/empty").touch()
    (run_dir / "params/bad").write_bytes(b"\xff")
    (run_dir / "params/x$.tmp").write_bytes(b"junk")
    for _ in range(2):
        data = drive(store.get_run(UID)).data
        assert (data.metrics, data.params) == ({"m": 2.0}, {"p": "1"})
    assert [point.value for point in drive(store.get_metric_history(UID, "m"))] == [1.0, 2.0]
    assert len(caplog.records) == 3


def test_what_cannot_be_opened_is_skipped_with_one_warning(
    store: FileStore, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A metric, a run and an experiment that somebody else owns, and a pipe, which nobody writes to."""
    good = new_run(store)
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)], "locked": [(1, 0, 1.0)]}, [("p", "1")])))
    os.mkfifo(good / "params/pipe")
    other_run = new_run(store, "c" * 32)
    other = root / drive(store.create_experiment("other"))
    locked = {str(good / "metrics/locked"), str(other_run / "meta.yaml"), str(other / "meta.yaml")}
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if path in locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **kwargs)

    fresh = FileStore(root, InlineIO())
    monkeypatch.setattr(os, "open", refuse)
    for _ in range(2):
        (run,) = drive(fresh.search_runs(["0", other.name])).items
        assert (run.info.run_id, run.data.metrics, run.data.params) == (UID, {"m": 1.0}, {"p": "1"})
        assert drive(fresh.search_runs(["0"], "metrics.locked > 0")).items == []
        assert [info.run_id for info in drive(fresh.list_run_infos("0")).items] == [UID]
        assert [found.name for found in drive(fresh.search_experiments()).items] == ["Default"]
    assert sorted(record.getMessage().split(": ")[0] for record in caplog.records) == sorted(
        f"skipped {path}"
        for path in (good / "metrics/locked", good / "params/pipe", other_run, other)
    )  # fmt: skip


def test_a_folder_that_cannot_be_listed_hides_nothing_else(
    store: FileStore, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An experiment's folder, and a run's metrics."""
    good = new_run(store)
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")])))
    other = root / drive(store.create_experiment("other"))
    locked = {str(good / "metrics"), str(other)}
    real = os.scandir

    def refuse(path: Any = ".") -> Any:
        if path in locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for _ in range(2):
        (run,) = drive(store.search_runs(["0", other.name])).items
        assert (run.data.metrics, run.data.params) == ({}, {"p": "1"})
    assert len(caplog.records) == 2


def test_a_file_torn_long_ago_holds_nobody_up(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was torn just now may be whole in a moment, as MLflow writes in place; what is old stays torn."""
    paused: list[float] = []
    monkeypatch.setattr("asynctrack.stores.file.tree.time.sleep", paused.append)
    meta = new_run(store) / "meta.yaml"
    meta.write_bytes(b"run_id: [")
    assert drive(store.search_runs(["0"])).items == []
    assert len(paused) == 3
    paused.clear()
    os.utime(meta, (1_700_000_000, 1_700_000_000))
    assert drive(store.search_runs(["0"])).items == []
    assert paused == []
    assert len(caplog.records) == 1


def test_missing_folders_are_empty(store: FileStore) -> None:
    """Someone cleaned up too much; the rest is shown, and logging goes on."""
    run_dir = new_run(store)
    (run_dir / "metrics").rmdir()
    (run_dir / "params").rmdir()
    assert drive(store.get_run(UID)).data.metrics == {}
    assert drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")]))) == []
    assert len(drive(store.search_runs(["0"], "params.p = '1'")).items) == 1


# ── searching


def test_a_search_reads_only_what_it_needs(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the runs that are not returned, no file is opened that the filter or the order does not ask about."""
    for i in range(3):
        uid = f"{i:032x}"
        new_run(store, uid)
        drive(store.log_batch(uid, Batch({"m": [(1, 0, float(i))], "n": [(1, 0, 1.0)]}, [("p", "1")])))
    opened = []
    real = os.open

    def watch(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(os.fspath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", watch)
    assert drive(store.search_runs(["0"], "attributes.status = 'FAILED'")).items == []
    assert all(path.endswith("meta.yaml") for path in opened)
    opened.clear()
    assert len(drive(store.search_runs(["0"], "metrics.m > 1")).items) == 1
    others = [path for path in opened if f"{2:032x}" not in path and not path.endswith("meta.yaml")]
    assert sorted(path.rpartition("/")[2] for path in others) == ["m", "m"]


def test_a_list_of_runs_reads_no_data(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file a run; and a name's tag only where the name is nowhere else, as before MLflow 1.29."""
    old = new_run(store, "a" * 32, run_name="old")
    text = (old / "meta.yaml").read_text()
    (old / "meta.yaml").write_text(text.replace("run_name: old\n", "").replace("start_time: 1\n", "start_time: 0\n"))
    new_run(store, run_name="new")
    drive(store.log_batch(UID, Batch({"m": [(1, 0, 1.0)]}, [("p", "1")])))
    opened: list[str] = []
    real = os.open

    def watch(path: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(os.fspath(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", watch)
    # What was read before is kept only once it is some milliseconds old: on a slow machine it may be by now.
    monkeypatch.setattr("asynctrack.stores.file.book.is_settled", lambda _about: False)
    assert [info.run_name for info in drive(store.list_run_infos("0")).items] == ["new", "old"]
    assert sorted(path.rpartition("/")[2] for path in opened) == ["meta.yaml", "meta.yaml", "mlflow.runName"]
    assert drive(store.list_run_infos("999")).items == []


def test_refusals_say_what_to_do(store: FileStore) -> None:
    """The default experiment stays; ids that could lead elsewhere are not found."""
    new_run(store)
    with pytest.raises(RefusedError, match="default"):
        drive(store.delete_experiment("0"))
    for uid in ("../x", "", "tags", "x" * 300):
        with pytest.raises(RefusedError):
            drive(store.create_run(RunSpec(uid=uid or " ")))
    with pytest.raises(RefusedError):
        drive(store.create_run(RunSpec(uid=uuid.uuid4().hex, experiment_name="x" * 501)))


def test_what_a_run_is_told_by_two_small_files(store: FileStore) -> None:
    """The run's end asks for its status: no file of points is opened for that. MLflow before 1.29 kept the name in the
    tag only."""
    run_dir = new_run(store, run_name="r")
    drive(store.log_batch(UID, Batch(metrics={"m": [(1, 0, 1.0)]})))
    (run_dir / "meta.yaml").write_text((run_dir / "meta.yaml").read_text().replace("run_name: r\n", ""))
    expected = drive(store.get_run(UID)).info
    (run_dir / "metrics" / "m").unlink()
    (run_dir / "metrics" / "m").mkdir()
    assert drive(store.get_run_info(UID)) == expected
    assert expected.run_name == "r"
