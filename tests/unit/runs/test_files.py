"""Artifacts of a run on a file store: each verb, what becomes of it, and what is refused in the caller."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import yaml

import asynctrack
from asynctrack.errors import (
    AsynctrackError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    RunEndedError,
    SpoolFullError,
)
from asynctrack.runs.active import attached_run
from tests.mlruns import only_run
from tests.unit.runs.test_run import block, unblock

SHIPPERS = pytest.mark.parametrize("shipper", ["thread", "process"])
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    asynctrack.configure(flush_interval=0.02)


def artifacts(folder: Path) -> Path:
    """Where the only run's artifacts are."""
    (found,) = (folder / "mlruns").glob("*/*/artifacts")
    return found


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def snapshots(folder: Path) -> list[Path]:
    """What is put aside in the spools."""
    return list(folder.glob(".asynctrack/*/artifacts/*"))


def data_folder(folder: Path) -> Path:
    """A folder with a file and one in a sub-folder."""
    data = folder / "data"
    (data / "deep" / "er").mkdir(parents=True)
    (data / "a.txt").write_text("a")
    (data / "deep" / "er" / "b.txt").write_text("b")
    return data


# ── the verbs


@SHIPPERS
def test_mlflows_client_reads_what_each_verb_logs(shipper: str, tmp_path: Path) -> None:
    """Same names, same formats; the files are whole when the block is left."""
    from matplotlib.figure import Figure

    asynctrack.configure(shipper=shipper)
    data = data_folder(tmp_path)
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    with asynctrack.start_run() as run:
        run.log_artifact(data / "a.txt")
        run.log_artifact(str(data / "a.txt"), "in/here")
        run.log_artifact(data, "folder")
        run.log_artifacts(data, "all")
        run.log_artifacts(data)
        run.log_text("ü 日本\n", "notes/text.md")
        run.log_dict({"a": [1, None]}, "some.json")
        run.log_dict({"a": [1, None]}, "some.yaml")
        run.log_figure(figure, "plots/loss.png")
        run.log_image(np.zeros((4, 4, 3), np.uint8), "image.png")
        run.log_image(np.ones((4, 4)), key="eval/masks", step=3, timestamp=1_700_000_000_000)
    from mlflow import MlflowClient  # takes seconds

    client = MlflowClient(str(tmp_path / "mlruns"))
    there = Path(client.download_artifacts(run.run_id, "", str(tmp_path)))
    got = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    for folder in ("", "all/", "folder/data/"):
        assert (got[f"{folder}a.txt"], got[f"{folder}deep/er/b.txt"]) == (b"a", b"b")
    assert got["in/here/a.txt"] == b"a"
    assert got["notes/text.md"].decode() == "ü 日本\n"
    assert json.loads(got["some.json"]) == yaml.safe_load(got["some.yaml"]) == {"a": [1, None]}
    assert got["plots/loss.png"].startswith(b"\x89PNG")
    assert got["image.png"].startswith(b"\x89PNG")
    stepped = sorted(name for name in got if name.startswith("images/"))
    assert [name.partition("+step+3+timestamp+1700000000000+")[0] for name in stepped] == ["images/eval~masks"] * 2
    assert client.get_run(run.run_id).data.tags["mlflow.loggedImages"] == "True"
    assert snapshots(tmp_path) == []


def test_the_functions_on_the_active_run_have_mlflows_arguments(tmp_path: Path) -> None:
    """They return None as MLflow's do; with ``run_id`` they log to any run."""
    data = data_folder(tmp_path)
    with asynctrack.start_run() as run:
        logged: list[Any] = [
            asynctrack.log_artifact(str(data / "a.txt"), artifact_path="x"),  # type: ignore[func-returns-value]  # the promise under test
            asynctrack.log_artifacts(str(data), artifact_path="y"),  # type: ignore[func-returns-value]  # as above
            asynctrack.log_text("t", "t.txt"),  # type: ignore[func-returns-value]  # as above
            asynctrack.log_dict({}, "d.json"),  # type: ignore[func-returns-value]  # as above
        ]
        asynctrack.log_image(np.zeros((2, 2)), "i.png", synchronous=True)
        assert (artifacts(tmp_path) / "i.png").exists()
    assert logged == [None] * 4
    asynctrack.log_text("late", "late.txt", run_id=run.run_id)
    asynctrack.flush_async_logging()
    assert sorted(path.name for path in artifacts(tmp_path).iterdir()) == [
        "d.json", "i.png", "late.txt", "t.txt", "x", "y",
    ]  # fmt: skip
    assert asynctrack.get_artifact_uri("x").endswith("/artifacts/x")
    assert asynctrack.get_artifact_uri("/x/y").endswith("/artifacts/x/y")


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("mysql://ann:word@host/db?driver=d", "mysql://ann:word@host/db/{}/artifacts/a/b?driver=d"),
        ("s3+x://bucket/sub/#part", "s3+x://bucket/sub/{}/artifacts/a/b#part"),
        ("s3://bucket/root", "s3://bucket/root/{}/artifacts/a/b"),
        ("/folder/ro#ot?", "/folder/ro#ot?/{}/artifacts/a/b"),
    ],
)
def test_the_uri_of_an_artifact_keeps_a_query_behind_it(location: str, place: str) -> None:
    """In a plain path, "?" and "#" are characters like others."""
    experiment_id = asynctrack.create_experiment("located", artifact_location=location)
    with asynctrack.start_run(experiment_id=experiment_id) as run:
        assert asynctrack.get_artifact_uri("a/b") == place.format(run.run_id)


@pytest.mark.parametrize("more", [{"key": "k"}, {"step": 0}, {"timestamp": 0}, {"artifact_file": None}])
def test_log_image_takes_a_file_or_a_key_with_a_step(more: dict[str, Any]) -> None:
    """Anything else is a TypeError, as in MLflow."""
    with asynctrack.start_run() as run, pytest.raises(TypeError, match="either artifact_file, or key"):
        run.log_image(np.zeros((2, 2)), **{"artifact_file": "i.png", **more})


def test_a_file_may_be_overwritten_and_deleted_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    """Each call logs what stood there when it was made, though nothing is delivered before the last one."""
    block(tmp_path)
    file, data = tmp_path / "file", data_folder(tmp_path)
    run = asynctrack.start_run()
    for number in range(5):
        file.write_text(str(number))
        run.log_artifact(file, f"v{number}")
    run.log_artifacts(data, "data")
    file.unlink()
    (data / "a.txt").write_text("other")
    (data / "deep" / "er" / "b.txt").unlink()
    unblock(tmp_path)
    run.terminate()
    stored = files(artifacts(tmp_path / "disk"))
    assert stored == {"data/a.txt": "a", "data/deep/er/b.txt": "b", **{f"v{n}/file": str(n) for n in range(5)}}


def test_a_linked_file_may_be_replaced_and_deleted_but_not_written_into(tmp_path: Path) -> None:
    """What was written into is refused, saying so, and how to do it; the others are stored."""
    block(tmp_path)
    asynctrack.configure(snapshot="link")
    run = asynctrack.start_run()
    receipts = {}
    for name in ("deleted", "replaced", "written", "copied"):
        (tmp_path / name).write_text(name)
        mode: Any = "copy" if name == "copied" else None
        receipts[name] = run.log_artifact(tmp_path / name, snapshot=mode)
    (tmp_path / "deleted").unlink()
    (tmp_path / "new").write_text("other")
    (tmp_path / "new").replace(tmp_path / "replaced")
    for name in ("written", "copied"):
        (tmp_path / name).write_text("written into")
    unblock(tmp_path)
    with pytest.raises(DeliveryError, match=rf"{run.run_id}.*artifact written was refused.*snapshot='copy'"):
        receipts["written"].wait()
    receipts["copied"].wait()
    run.terminate()
    assert files(artifacts(tmp_path / "disk")) == {name: name for name in ("deleted", "replaced", "copied")}


@SHIPPERS
def test_of_one_path_the_last_wins(shipper: str, tmp_path: Path) -> None:
    """Files and folders that overlap are stored in the order of the calls, whatever else is under way."""
    asynctrack.configure(shipper=shipper)
    with asynctrack.start_run() as run:
        for number in range(100):
            run.log_text(str(number), "same.txt")
            run.log_text(str(number), f"other/{number}.txt")
        for number in range(10):
            (tmp_path / "data").mkdir(exist_ok=True)
            (tmp_path / "data" / "f").write_text(f"folder {number}")
            run.log_artifacts(tmp_path / "data", "mixed")
            if number % 2 == 0:
                run.log_text(f"file {number}", "mixed/f")
    stored = files(artifacts(tmp_path))
    assert stored["same.txt"] == "99"
    assert stored["mixed/f"] == "folder 9"
    assert [stored[f"other/{number}.txt"] for number in range(100)] == [str(number) for number in range(100)]


def test_threads_log_five_hundred_small_artifacts_at_once(tmp_path: Path) -> None:
    """Beside metrics; all are there, and counted."""
    with asynctrack.start_run() as run:

        def work(thread: int) -> None:
            for number in range(100):
                run.log_text(f"{thread} {number}", f"{thread}/{number}.txt")
                run.log_metric(f"m{thread}", number, number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.flush()
        stats = run.stats()
    assert (stats.accepted, stats.delivered, stats.pending, stats.rejected) == (1000, 1000, 0, 0)
    stored = files(artifacts(tmp_path))
    assert stored == {f"{thread}/{number}.txt": f"{thread} {number}" for thread in range(5) for number in range(100)}
    assert len(only_run(tmp_path / "mlruns").metrics) == 5


@SHIPPERS
def test_a_run_that_is_over_before_anybody_looked_has_its_artifacts(shipper: str, tmp_path: Path) -> None:
    """Start, artifact and end are read together: the start waits for nothing, the end for the artifact."""
    asynctrack.configure(shipper=shipper, flush_interval=5.0)
    run = asynctrack.start_run()
    run.log_metric("loss", 1.0)
    run.log_text("text", "text.txt")
    run.terminate()
    assert files(artifacts(tmp_path)) == {"text.txt": "text"}
    stored = only_run(tmp_path / "mlruns")
    assert (stored.status, list(stored.metrics)) == ("FINISHED", ["loss"])


# ── receipts


def test_a_receipt_says_what_becomes_of_an_artifact(tmp_path: Path) -> None:
    """Not stored in time: FlushTimeoutError, saying where it is kept; stored: done."""
    block(tmp_path)
    run = asynctrack.start_run()
    receipt = run.log_text("text", "a/b.txt")
    assert receipt.artifact_paths == ["a/b.txt"]
    assert repr(receipt) == "<ArtifactReceipt a/b.txt: on its way>"
    with pytest.raises(FlushTimeoutError, match=rf"{run.run_id}: artifact a/b.txt.*0.1 s.*\.asynctrack"):
        receipt.wait(0.1)
    with pytest.raises(FlushTimeoutError, match=run.run_id):
        run.flush(0.1)
    unblock(tmp_path)
    receipt.wait()
    assert receipt.done
    assert files(artifacts(tmp_path / "disk")) == {"a/b.txt": "text"}
    run.terminate()


@SHIPPERS
@LOOPS
def test_an_async_run_awaits_receipts(loop: str, shipper: str, tmp_path: Path) -> None:
    """On both kinds of loop; the block waits for those that nobody has awaited, before the status is set."""
    asynctrack.configure(shipper=shipper)

    async def main() -> None:
        async with asynctrack.start_run() as run:
            receipt = run.log_text("text", "awaited.txt")
            await receipt
            assert receipt.done
            assert files(artifacts(tmp_path)) == {"awaited.txt": "text"}
            run.log_text("more", "more.txt")

    anyio.run(main, backend=loop)
    assert files(artifacts(tmp_path)) == {"awaited.txt": "text", "more.txt": "more"}
    assert only_run(tmp_path / "mlruns").status == "FINISHED"


@LOOPS
def test_awaiting_a_refused_artifact_raises(loop: str, tmp_path: Path) -> None:
    """With the store's reason, and the run goes on."""

    async def main() -> None:
        async with asynctrack.start_run() as run:
            await run.log_text("a file", "a")
            with pytest.raises(DeliveryError, match=rf"{run.run_id}: artifact a/b was refused: .*artifacts/a"):
                await run.log_text("below a file", "a/b")
            run.log_text("more", "c")

    anyio.run(main, backend=loop)
    assert files(artifacts(tmp_path)) == {"a": "a file", "c": "more"}


@SHIPPERS
def test_a_refused_artifact_is_counted_reported_and_kept(shipper: str, tmp_path: Path) -> None:
    """In the spool, beside the line that says why; what was delivered is not."""
    asynctrack.configure(shipper=shipper)
    told: list[tuple[str, str]] = []
    if shipper == "thread":
        asynctrack.configure(on_error=lambda run_id, refusal: told.append((run_id, refusal.key)))
    with asynctrack.start_run() as run:
        run.log_text("a file", "a")
        receipt = run.log_text("below a file", "a/b")
        with pytest.raises(DeliveryError, match=f"{run.run_id}.*1 events.*a/b"):
            run.flush()
        with pytest.raises(DeliveryError, match="a/b was refused"):
            receipt.wait()
        assert receipt.done
        stats = run.stats()
        assert (stats.accepted, stats.delivered, stats.rejected) == (2, 1, 1)
    asynctrack.shutdown()
    (kept,) = snapshots(tmp_path)
    assert kept.read_text() == "below a file"
    line = json.loads((kept.parents[1] / "rejected.jsonl").read_text())
    assert (line["run_id"], line["kind"], line["key"], line["value"]) == (run.run_id, "artifact", "a/b", str(kept))
    if shipper == "thread":
        assert told == [(run.run_id, "a/b")]


def test_artifacts_of_a_run_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    """Found out in the background, once, and not asked again and again."""
    with asynctrack.start_run():
        pass
    attached_run("0" * 32).log_text("text", "a.txt")  # asks nothing, as on an event loop
    asynctrack.flush_async_logging()
    asynctrack.shutdown()
    (rejected,) = tmp_path.glob(".asynctrack/*/rejected.jsonl")
    line = json.loads(rejected.read_text())
    assert (line["run_id"], line["key"]) == ("0" * 32, "a.txt")
    assert "0" * 32 in line["reason"]


# ── what is refused in the caller


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "", "C:\\x", "..\\x", "a\0b", 5, None, b"x"])
def test_a_path_that_no_artifact_can_have_is_an_error_at_the_call(path: Any, tmp_path: Path) -> None:
    """Naming the run; nothing is logged, nothing is put aside, nothing is written outside."""
    (tmp_path / "file").write_text("text")
    with asynctrack.start_run() as run:
        calls: list[Callable[[], object]] = [lambda: run.log_artifact(tmp_path / "file", path)]
        if path not in ("", None):  # the run's root
            calls += [lambda: run.log_artifacts(tmp_path, path)]
        else:
            calls = []
        calls += [lambda: run.log_text("text", path), lambda: run.log_dict({}, path)]
        for call in calls:
            with pytest.raises(InvalidInputError, match=run.run_id):
                call()
        assert run.stats().accepted == 0
        assert snapshots(tmp_path) == []
    assert files(artifacts(tmp_path)) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".asynctrack", "file", "mlruns"]


def test_a_source_that_cannot_be_read_is_an_error_at_the_call(tmp_path: Path) -> None:
    """Missing, a folder that is none, a pipe, a dangling link in a folder: named, with the run; nothing is left."""
    data = data_folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "fine").write_text("fine")
    (tmp_path / "broken" / "link").symlink_to("nowhere")
    with asynctrack.start_run() as run:
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: run.log_artifact(tmp_path / "missing"), "missing"),
            (lambda: run.log_artifacts(tmp_path / "missing"), "missing"),
            (lambda: run.log_artifacts(data / "a.txt"), "a.txt"),
            (lambda: run.log_artifact(tmp_path / "pipe"), "pipe"),
            (lambda: run.log_artifacts(tmp_path / "broken"), "link"),
            (lambda: run.log_artifact(5), "5"),  # type: ignore[arg-type]  # the mistake under test
            (lambda: run.log_text(5, "a.txt"), "a.txt"),  # type: ignore[arg-type]  # the mistake under test
            (lambda: run.log_figure("none", "a.png"), "a.png"),
            (lambda: run.log_image("none", "a.png"), "a.png"),
            (lambda: run.log_image(np.zeros((2, 2))), "artifact_file"),
        ]
        for call, name in calls:
            with pytest.raises(InvalidInputError, match=rf"(?s){run.run_id}.*{name}"):
                call()
        assert run.stats().accepted == 0
        assert snapshots(tmp_path) == []
    assert files(artifacts(tmp_path)) == {}


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    """Also out of it, as model caches are made of such; a link back up does not lead in a circle."""
    data = data_folder(tmp_path)
    (tmp_path / "blob").write_text("blob")
    (data / "weights").symlink_to(tmp_path / "blob")
    (data / "deep" / "up").symlink_to(data)
    with asynctrack.start_run() as run:
        run.log_artifacts(data)
    assert files(artifacts(tmp_path)) == {"a.txt": "a", "deep/er/b.txt": "b", "weights": "blob"}


def test_the_spools_are_not_logged_with_the_folder_they_are_in(tmp_path: Path) -> None:
    """Logging the working directory does not log what is on its way."""
    (tmp_path / "file").write_text("text")
    asynctrack.set_tracking_uri(tmp_path / "elsewhere" / "mlruns")
    with asynctrack.start_run() as run:
        run.log_text("text", "text")
        run.log_artifacts(tmp_path, "here")
    stored = files(artifacts(tmp_path / "elsewhere"))
    assert not [name for name in stored if ".asynctrack" in name]
    assert stored["here/file"] == "text"


@pytest.mark.parametrize("store", ["files", "sqlite"])
def test_a_runs_own_store_is_not_logged_with_the_folder_it_is_in(store: str, tmp_path: Path) -> None:
    """Logging the working directory, where the store is by default, does not log every run's artifacts once more, each
    time; nor does MLflow's client. Another folder of that store may be logged by its name."""
    (tmp_path / "train.py").write_text("text")
    asynctrack.set_tracking_uri("mlruns" if store == "files" else "sqlite:///mlflow.db")
    with asynctrack.start_run() as run:
        run.log_text("model", "model/weights")
        run.log_artifacts(".", "here").wait()
        run.log_artifact(".", "there").wait()
    client = asynctrack.MlflowClient()
    client.log_artifacts(run.run_id, ".", "client")
    asynctrack.get_service().log_artifact(client.get_run(run.run_id).info.artifact_uri or "", ".", "service")
    for folder in ("here", f"there/{tmp_path.name}", "client", f"service/{tmp_path.name}"):
        assert [info.path for info in client.list_artifacts(run.run_id, folder)] == [f"{folder}/train.py"]
    model = client.download_artifacts(run.run_id, "model")
    with asynctrack.start_run() as other:
        other.log_artifacts(model, "copy").wait()
        assert [info.path for info in client.list_artifacts(other.run_id, "copy")] == ["copy/weights"]
        with pytest.raises(InvalidInputError, match="own events or artifacts"):
            other.log_artifacts("mlruns")


def test_after_the_runs_end_nothing_is_logged_or_left(tmp_path: Path) -> None:
    """RunEndedError, as for every log call."""
    with asynctrack.start_run() as run:
        pass
    calls: list[Callable[[], object]] = [lambda: run.log_text("x", "x"), lambda: run.log_artifact(__file__)]
    for call in calls:
        with pytest.raises(RunEndedError, match=run.run_id):
            call()
    asynctrack.shutdown()
    assert sorted(path.name for path in (tmp_path / ".asynctrack").iterdir()) == [".gitignore"]


# ── room

SIZE = 100_000


def full(policy: str, folder: Path) -> tuple[asynctrack.ActiveRun, Path]:
    """A run whose store cannot be reached, with room in its spool for two artifacts of that size."""
    block(folder)
    asynctrack.configure(max_spool_bytes=600_000, spool_full=policy)
    (folder / "file").write_bytes(bytes(SIZE))
    run = asynctrack.start_run()
    count = 0
    while run._state.engine.journal.room() > SIZE:
        run.log_artifact(folder / "file", f"f{count}")
        count += 1
    assert count > 0
    return run, folder / "file"


def test_a_full_spool_raises(tmp_path: Path) -> None:
    """Files and content alike, naming the run; nothing of it is left. Links take no room."""
    run, file = full("raise", tmp_path)
    before = len(snapshots(tmp_path))
    with pytest.raises(SpoolFullError, match=rf"{run.run_id}.*{file}.*max_spool_bytes"):
        run.log_artifact(file)
    with pytest.raises(SpoolFullError, match=run.run_id):
        run.log_text("x" * SIZE, "text")
    assert len(snapshots(tmp_path)) == before
    assert run.stats().spool_bytes > before * SIZE
    assert run.stats().dropped == 0
    run.log_metric("loss", 1.0)
    run.log_artifact(file, "linked", snapshot="link")
    unblock(tmp_path)
    run.flush()
    run.log_artifact(file, "again")  # there is room again
    run.terminate()
    stored = files(artifacts(tmp_path / "disk"))
    assert {"linked/file", "again/file"} < stored.keys()
    assert len(stored) == before + 2


def test_a_full_spool_drops_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The default: the program goes on, the receipt and the run's end say so."""
    run, file = full("drop_new", tmp_path)
    receipt = run.log_artifact(file, "dropped")
    assert receipt.done
    with pytest.raises(DeliveryError, match=rf"{run.run_id}.*dropped"):
        receipt.wait()
    assert run.stats().dropped == 1
    assert f"run {run.run_id}: artifact dropped/file is dropped" in caplog.text
    unblock(tmp_path)
    with pytest.raises(DeliveryError, match="1 events of this process were dropped"):
        run.flush()
    run.terminate()
    assert "dropped/file" not in files(artifacts(tmp_path / "disk"))


def test_a_full_spool_blocks_until_there_is_room(tmp_path: Path) -> None:
    """The call waits and then logs; what can never fit is an error at once."""
    run, file = full("block", tmp_path)
    with pytest.raises(SpoolFullError, match=run.run_id):
        run.log_text("x" * 700_000, "too large")
    logged = threading.Event()

    def work() -> None:
        run.log_artifact(file, "waited")
        logged.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not logged.wait(0.3)
    unblock(tmp_path)
    assert logged.wait(60)
    thread.join()
    run.terminate()
    assert (artifacts(tmp_path / "disk") / "waited" / "file").stat().st_size == SIZE


def test_a_call_that_waits_for_room_ends_with_the_run(tmp_path: Path) -> None:
    """Not one of them hangs."""
    run, file = full("block", tmp_path)
    asynctrack.configure(close_timeout=0.2)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run.log_artifact(file, "waits")
        except AsynctrackError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    run._state.end("FINISHED", 1)
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(raised[0], RunEndedError)
    unblock(tmp_path)


def test_without_a_spool_directory_artifacts_go_through_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, whoever comes first, and it is gone at the end, also where the store was never reached."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "no folder").write_text("")
    asynctrack.configure(spool_dir=str(tmp_path / "no folder"))
    with asynctrack.start_run() as run:
        threads = [threading.Thread(target=run.log_text, args=(str(number), f"{number}")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (folder,) = (tmp_path / "tmp").iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert files(artifacts(tmp_path)) == {str(number): str(number) for number in range(8)}
    asynctrack.shutdown()
    assert list((tmp_path / "tmp").iterdir()) == []

    block(tmp_path)
    asynctrack.configure(close_timeout=0.2)
    asynctrack.start_run().log_text("lost", "lost")
    asynctrack.shutdown()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("path", "stored"), [("a//b/", "a/b"), ("./a", "a"), (".", ""), ("a/./b", "a/b")])
def test_a_folder_is_read_as_mlflow_reads_it(path: str, stored: str, tmp_path: Path) -> None:
    """A slash at the end is the most common slip."""
    (tmp_path / "file").write_text("text")
    with asynctrack.start_run() as run:
        run.log_artifact(tmp_path / "file", path)
    client = asynctrack.MlflowClient()
    names = [found.path for found in client.list_artifacts(run.run_id, path)]
    assert (
        names == [f"{stored}/file".lstrip("/")] == [found.path for found in client.list_artifacts(run.run_id, stored)]
    )


def test_folders_in_which_nothing_is_are_kept(tmp_path: Path) -> None:
    """As in MLflow, where the artifacts are files of this machine; by both ways of logging a folder."""
    (tmp_path / "made/empty/deep").mkdir(parents=True)
    (tmp_path / "made/full").mkdir()
    (tmp_path / "made/full/file").write_text("text")
    (tmp_path / "nothing").mkdir()
    client = asynctrack.MlflowClient()
    with asynctrack.start_run() as run:
        run.log_artifacts(tmp_path / "made", "one")
        run.log_artifacts(tmp_path / "nothing", "none").wait()
        client.log_artifacts(run.info.run_id, tmp_path / "made", "two")
    for name in ("one", "two"):
        folder = Path(client.download_artifacts(run.run_id, name, tmp_path / "down"))
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
            "empty", "empty/deep", "full", "full/file",
        ]  # fmt: skip
    assert [found.path for found in client.list_artifacts(run.run_id)] == ["none", "one", "two"]
    assert client.list_artifacts(run.run_id, "none") == []


@pytest.mark.parametrize("path", [".", "d/", "./d", "d//e", ""])
def test_a_download_takes_mlflows_spellings(path: str, tmp_path: Path) -> None:
    """Of the root and of a folder."""
    with asynctrack.start_run() as run:
        run.log_text("text", "d/e/f.txt")
    found = Path(asynctrack.MlflowClient().download_artifacts(run.run_id, path, tmp_path / "down"))
    assert [file.read_text() for file in found.rglob("f.txt")] == ["text"]
    assert os.path.isdir(asynctrack.artifacts.download_artifacts(run_id=run.run_id, artifact_path=path))
