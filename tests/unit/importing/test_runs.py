"""`import_runs`: what is in a folder is in the store, once, however often it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import asynctrack
from asynctrack.delivery import retry
from asynctrack.entities import InputTag
from asynctrack.errors import InvalidInputError, RefusedError, UnavailableError
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.file.store import FileStore
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.uri import open_store
from asynctrack.testing import FaultyStore
from tests.imports import Made, contents, make_source


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_source(tmp_path / "mlruns")


@pytest.fixture
def source(made: Made) -> AbstractStore:
    return FileStore(made.root, InlineIO())


@pytest.fixture(params=["files", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path, memory_path: Path) -> Iterator[AbstractStore]:
    uri = f"sqlite:///{memory_path}/mlflow.db" if request.param == "sqlite" else str(tmp_path / "other")
    store = open_store(uri, InlineIO())
    yield store
    drive(store.aclose())


def test_everything_is_there(made: Made, source: AbstractStore, target: AbstractStore) -> None:
    """Experiments with tags and lifecycle; runs with id, name, status, times, params, tags, every point; nested and
    deleted ones."""
    done = asynctrack.import_runs(made.root, to=target)
    assert done.problems == ()
    assert (done.experiments, done.runs, done.present, done.left) == (3, 5, 0, 0)
    assert done.events == 5 * (700 + 6 + 5 + 2 + 1) + 1  # with the tag of the one that is nested
    found = contents(target, made.vision, made.gone)
    assert found == contents(source, made.vision, made.gone)
    assert found[made.vision][2].keys() == {made.parent, made.child, made.running, made.deleted}
    assert found[made.gone][0] == "deleted"


def test_the_second_time_only_what_has_changed_is_written(made: Made, source: AbstractStore, tmp_path: Path) -> None:
    target = FaultyStore(open_store(tmp_path / "other", InlineIO()))
    asynctrack.import_runs(made.root, to=target)
    before = dict(target.calls)
    drive(source.log_batch(made.running, Batch({"loss": [(1_700_000_001_000, 1000, 0.5)]})))
    drive(source.update_run(made.running, status="FINISHED", end_time=1_700_000_010_000))
    done = asynctrack.import_runs(made.root, to=target)
    assert (done.runs, done.present, done.problems) == (1, 4, ())
    assert target.calls["create_run"] == before["create_run"]
    assert contents(target, made.vision, made.gone) == contents(source, made.vision, made.gone)


@pytest.mark.parametrize("method", ["create_experiment", "create_run", "log_batch", "update_run", "delete_run"])
def test_where_it_was_interrupted_it_goes_on(
    method: str, made: Made, source: AbstractStore, target: AbstractStore
) -> None:
    """Nothing is there twice: also where the store has carried out the call at which it ended. (That is the first one
    each time: of those that are made at once, the first import may have got through all others.)"""
    faulty = FaultyStore(target)
    for applied in (False, True):
        faulty.fail(method, UnavailableError("the machine is switched off"), applied=applied)
        with pytest.raises(UnavailableError, match="switched off"):
            asynctrack.import_runs(made.root, to=faulty, timeout=0)
    assert asynctrack.import_runs(made.root, to=faulty).problems == ()
    assert contents(target, made.vision, made.gone) == contents(source, made.vision, made.gone)


def test_a_store_that_comes_back_is_waited_for(
    made: Made, source: AbstractStore, target: AbstractStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the answers to what it has stored are lost."""
    monkeypatch.setattr(retry, "_BASE", 0.01)
    faulty = FaultyStore(target)
    for method in ("create_run", "log_batch", "update_run", "create_experiment"):
        lost = UnavailableError("the answer is lost")
        lost.ambiguous = True
        faulty.fail(method, lost, times=2, applied=method != "create_experiment")
    assert asynctrack.import_runs(made.root, to=faulty).problems == ()
    assert contents(target, made.vision, made.gone) == contents(source, made.vision, made.gone)


def test_doubles_in_a_file_become_one(made: Made, tmp_path: Path) -> None:
    """However far apart they are: MLflow's own migration gives up at them."""
    [path] = made.root.glob(f"*/{made.parent}/metrics/loss")
    lines = path.read_text()
    path.write_text(lines + lines + lines)
    asynctrack.import_runs(made.root, to=tmp_path / "other")
    [copy] = (tmp_path / "other").glob(f"*/{made.parent}/metrics/loss")
    assert copy.read_text() == lines


def test_what_is_damaged_is_named_and_everything_else_is_imported(made: Made, target: AbstractStore) -> None:
    [torn] = made.root.glob(f"*/{made.running}/meta.yaml")
    torn.write_text("artifact_uri: [")
    [line] = made.root.glob(f"*/{made.parent}/metrics/loss")
    line.write_text(line.read_text() + "17 oops\n18 0.5 7")
    [param] = made.root.glob(f"*/{made.parent}/params/lr")
    param.write_bytes(b"\xff\xfe")
    [lost] = made.root.glob(f"*/{made.child}/meta.yaml")
    lost.unlink()
    done = asynctrack.import_runs(made.root, to=target)
    named = {problem.partition(": ")[0] for problem in done.problems}
    assert named == {str(torn.parent), str(line), str(param), str(lost.parent)}
    found = contents(target, made.vision, made.gone)
    assert found[made.vision][2].keys() == {made.parent, made.deleted}
    assert len(found[made.vision][2][made.parent]["history"]["loss"]) == 700
    assert found[made.vision][2][made.parent]["params"] == {"text": "a\r\n é"}


def test_an_experiment_without_its_file_is_named_and_one_of_a_database_is_not(made: Made, tmp_path: Path) -> None:
    """Beside SQLite's file, ``mlruns`` holds folders of artifacts only."""
    (made.root / "7" / ("0" * 32) / "artifacts").mkdir(parents=True)
    [run] = made.root.glob(f"*/{made.parent}")
    (run.parent / "meta.yaml").unlink()
    done = asynctrack.import_runs(made.root, to=tmp_path / "other")
    assert done.problems == (f"{run.parent}: it has no meta.yaml: its 4 runs are not imported",)
    assert done.runs == 1


def test_what_the_store_refuses_is_named(made: Made, memory_path: Path) -> None:
    """Alone: a time before 1970 is no reason to leave the run out."""
    [path] = made.root.glob(f"*/{made.parent}/metrics/loss")
    path.write_text("-5 1.0 0\n" + path.read_text())
    uri = f"sqlite:///{memory_path}/mlflow.db"
    [problem] = asynctrack.import_runs(made.root, to=uri).problems
    assert problem.startswith(f"run {made.parent}, metric 'loss': ")
    assert len(asynctrack.get_service(uri).get_metric_history(made.parent, "loss")) == 700


@pytest.mark.parametrize("moved", [False, True])
def test_artifacts_are_copied_also_when_the_folder_was_moved(moved: bool, made: Made, tmp_path: Path) -> None:
    """Its files name the place where it was made."""
    root = made.root
    if moved:
        root = tmp_path / "elsewhere" / "mlruns"
        shutil.move(made.root, root)
    uri = f"sqlite:///{tmp_path}/db/mlflow.db"
    asynctrack.import_runs(root.parent, to=uri)
    shutil.rmtree(root)
    service = asynctrack.get_service(uri)
    found = Path(asynctrack.artifacts.download_artifacts(run_id=made.parent, tracking_uri=uri))
    assert found.is_relative_to(tmp_path / "db")
    assert (found / "plots" / "a b.txt").read_text() == "hello"
    assert (found / "empty.bin").read_bytes() == b""
    assert service.get_run(made.child).info.artifact_uri != service.get_run(made.parent).info.artifact_uri


def test_a_run_cannot_name_a_folder_that_is_not_its_own_as_its_artifacts(made: Made, tmp_path: Path) -> None:
    """Somebody else's folder of runs must not make a copy of one's keys."""
    secret = tmp_path / "keys"
    secret.mkdir()
    (secret / "id_ed25519").write_text("secret")
    [meta] = made.root.glob(f"*/{made.child}/meta.yaml")
    lines = [line for line in meta.read_text().splitlines() if not line.startswith("artifact_uri")]
    meta.write_text("\n".join([f"artifact_uri: {secret.as_uri()}", *lines, ""]))
    assert asynctrack.import_runs(made.root, to=tmp_path / "other").problems == ()
    assert list((tmp_path / "other").rglob("id_ed25519")) == []


def test_datasets_are_imported_once_and_where_none_are_kept_that_is_said(made: Made, memory_path: Path) -> None:
    [folder] = made.root.glob(f"*/{made.parent}")
    for path, meta in (
        (folder.parent / "datasets" / "5e7", "name: iris\ndigest: d1\nsource_type: local\nsource: '{}'\n"),
        (folder / "inputs" / "1", "source_type: DATASET\nsource_id: 5e7\ntags: {mlflow.data.context: train}\n"),
    ):
        path.mkdir(parents=True)
        (path / "meta.yaml").write_text(meta)
    database = open_store(f"sqlite:///{memory_path}/mlflow.db", InlineIO())
    faulty = FaultyStore(database)
    # Of all that are made at once: through this wrapper they get no datasets.
    faulty.fail("update_run", UnavailableError("the machine is switched off"), times=100)
    with pytest.raises(UnavailableError, match="switched off"):
        asynctrack.import_runs(made.root, to=faulty, timeout=0)
    assert asynctrack.import_runs(made.root, to=database).problems == ()
    found = drive(database.get_run(made.parent)).inputs
    assert found is not None
    assert [(each.dataset.name, each.tags) for each in found.dataset_inputs] == [
        ("iris", [InputTag("mlflow.data.context", "train")])
    ]
    drive(database.aclose())
    [problem] = asynctrack.import_runs(made.root, to=memory_path / "other").problems
    assert problem.startswith(f"run {made.parent}, its 1 datasets: they are not imported")


def test_a_folder_is_imported_by_one_at_a_time(made: Made, source: AbstractStore, target: AbstractStore) -> None:
    """Two would write the same points, and a folder or a server would have them twice. Those who log into it meanwhile
    do not notice."""
    refused: list[str] = []

    def again(_: object) -> None:
        if not refused:
            with pytest.raises(UnavailableError, match="is being imported by another program") as caught:
                asynctrack.import_runs(made.root, to=target)
            refused.append(str(caught.value))
            drive(source.create_experiment("meanwhile"))

    assert asynctrack.import_runs(made.root, to=target, progress=again).problems == ()
    assert len(refused) == 1
    assert asynctrack.import_runs(made.root, to=target).present == 4
    assert contents(target, made.vision, made.gone) == contents(source, made.vision, made.gone)


def test_an_experiment_that_somebody_makes_at_the_same_moment_is_taken(
    made: Made, source: AbstractStore, target: AbstractStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two folders are imported at once."""
    create = type(target).create_experiment

    async def late(self: AbstractStore, name: str, *args: object, **given: object) -> str:
        await create(self, name)
        return await create(self, name, *args, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(type(target), "create_experiment", late)
    assert asynctrack.import_runs(made.root, to=target).problems == ()
    assert set(contents(target, made.vision)[made.vision][2]) == set(contents(source, made.vision)[made.vision][2])


def test_a_user_s_experiment_is_not_deleted_because_one_of_that_name_was(made: Made, target: AbstractStore) -> None:
    experiment = drive(target.create_experiment(made.gone))
    mine = drive(target.create_run(RunSpec("1" * 32, None, experiment, start_time=1)))
    [problem] = asynctrack.import_runs(made.root, to=target).problems
    assert "it stays active" in problem
    assert drive(target.get_run_info(mine.run_id)).lifecycle_stage == "active"
    assert drive(target.get_run_info(made.buried)).lifecycle_stage == "deleted"


def test_an_experiment_that_the_store_has_deleted_is_named(made: Made, target: AbstractStore) -> None:
    drive(target.delete_experiment(drive(target.create_experiment(made.vision))))
    done = asynctrack.import_runs(made.root, to=target)
    assert done.runs == 1
    [problem] = done.problems
    assert "it is deleted in the store; restore it there" in problem


def test_two_experiments_of_one_name_become_one(made: Made, target: AbstractStore) -> None:
    """As nobody could tell them apart elsewhere."""
    [meta] = made.root.glob(f".trash/*/{made.buried}/../meta.yaml")
    meta.write_text(meta.read_text().replace(made.gone, made.vision))
    assert asynctrack.import_runs(made.root, to=target).problems == ()
    stage, _, runs = contents(target, made.vision)[made.vision]
    assert stage == "active"
    assert len(runs) == 5
    assert runs[made.buried]["info"][-1] == "deleted"


def test_a_run_that_is_refused_keeps_no_other_back(made: Made, target: AbstractStore) -> None:
    faulty = FaultyStore(target)
    faulty.fail("create_run", RefusedError("no"), nth=2)
    done = asynctrack.import_runs(made.root, to=faulty)
    assert done.runs == 4
    [problem] = done.problems
    assert problem.endswith("it is not imported, or only in part: no")


def test_progress_is_told(made: Made, target: AbstractStore) -> None:
    told: list[asynctrack.Import] = []
    done = asynctrack.import_runs(made.root, to=target, progress=told.append)
    assert told[-1] == done


def test_what_cannot_be_imported_says_so(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="into itself"):
        asynctrack.import_runs(made.root, to=made.root)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidInputError, match="holds no experiments"):
        asynctrack.import_runs(tmp_path / "nothing", to="sqlite:///mlflow.db")
    with pytest.raises(InvalidInputError, match="only MLflow's file stores"):
        asynctrack.import_runs("sqlite:///mlflow.db", to=tmp_path / "other")
    with pytest.raises(InvalidInputError, match="to is empty"):
        asynctrack.import_runs(made.root, to="")
    assert not (tmp_path / "mlflow.db").exists()
