"""Refused events that are tried again, or thrown away: `asynctrack.rejected` and `asynctrack.engine.spools`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

import asynctrack
from asynctrack.engine.spools import drop_rejected, find_spools, read_rejected
from asynctrack.journal.spool import Spool
from asynctrack.rejected import retry_rejected
from tests.mlruns import only_run


@pytest.fixture
def refused(tmp_path: Path) -> tuple[Path, str]:
    """A spool with three refused points, a param, a tag and an artifact, and the folders that stand in their way in the
    file store; and the run's id."""
    asynctrack.configure(flush_interval=0.05)
    (tmp_path / "weights.bin").write_bytes(b"weights")
    with asynctrack.start_run() as run:
        run.flush()
        for kind, key in obstacles():
            (folder(tmp_path, run.run_id) / kind / key).mkdir(parents=True)
        for step in range(3):
            run.log_metric("taken", float("nan") if step == 2 else step * 0.5, step, 1000 + step)
        run.log_param("p", "1")
        run.set_tag("t", "2")
        run.log_artifact(tmp_path / "weights.bin", "model")
        run.log_metric("fine", 1.0)
    asynctrack.shutdown()
    (tmp_path / "weights.bin").unlink()
    (spool,) = find_spools()
    return Path(spool), run.run_id


def folder(root: Path, run_id: str) -> Path:
    return root / "mlruns" / "0" / run_id


def obstacles() -> list[tuple[str, str]]:
    return [("metrics", "taken"), ("params", "p"), ("tags", "t"), ("artifacts/model", "weights.bin")]


def mend(root: Path, run_id: str) -> None:
    for kind, key in obstacles():
        (folder(root, run_id) / kind / key).rmdir()


def test_once_that_is_mended_everything_is_accepted_and_nothing_is_left(
    refused: tuple[Path, str], tmp_path: Path
) -> None:
    """With the old steps and timestamps; artifacts from their snapshots, for the file itself is gone."""
    spool, run_id = refused
    assert sorted(event.kind for event in read_rejected([str(spool)])) == ["artifact", *["metric"] * 3, "param", "tag"]
    mend(tmp_path, run_id)
    found = retry_rejected(str(spool))
    assert (found.accepted, found.problems) == (6, [])
    run = only_run(tmp_path / "mlruns")
    assert [(time, step) for time, _, step in run.metrics["taken"]] == [(1000, 0), (1001, 1), (1002, 2)]
    assert repr([value for _, value, _ in run.metrics["taken"]]) == "[0.0, 0.5, nan]"
    assert (run.params["p"], run.tags["t"], run.status) == ("1", "2", "FINISHED")
    assert (folder(tmp_path, run_id) / "artifacts/model/weights.bin").read_bytes() == b"weights"
    assert not spool.exists()


def test_a_spool_that_was_moved_still_has_its_artifacts(refused: tuple[Path, str], tmp_path: Path) -> None:
    spool, run_id = refused
    mend(tmp_path, run_id)
    moved = tmp_path / "backup" / spool.name
    moved.parent.mkdir()
    shutil.move(spool, moved)
    assert retry_rejected(str(moved)).accepted == 6
    assert (folder(tmp_path, run_id) / "artifacts/model/weights.bin").read_bytes() == b"weights"


def test_what_is_refused_again_is_kept_again(refused: tuple[Path, str], tmp_path: Path) -> None:
    """In a spool of the process that has tried."""
    spool, run_id = refused
    (folder(tmp_path, run_id) / "params" / "p").rmdir()
    found = retry_rejected(str(spool))
    assert found.accepted == 1
    assert "refused 5 events" in " ".join(found.problems)
    asynctrack.shutdown()
    assert not spool.exists()
    (again,) = find_spools()
    assert sorted(event.kind for event in read_rejected([again])) == ["artifact", *["metric"] * 3, "tag"]
    (kept,) = Path(again, "artifacts").iterdir()
    assert kept.read_bytes() == b"weights"


def test_what_cannot_even_be_logged_stays_where_it_was(refused: tuple[Path, str], tmp_path: Path) -> None:
    """Here an artifact whose snapshot is gone."""
    spool, run_id = refused
    mend(tmp_path, run_id)
    (snapshot,) = (spool / "artifacts").iterdir()
    snapshot.unlink()
    found = retry_rejected(str(spool))
    assert found.accepted == 5
    assert f"It stays in {spool}" in found.problems[0]
    (left,) = read_rejected([str(spool)])
    assert left.kind == "artifact"
    assert stat.S_IMODE(os.stat(spool / "rejected.jsonl").st_mode) == 0o600


def test_a_store_that_does_not_answer_leaves_everything_as_it_was(refused: tuple[Path, str], tmp_path: Path) -> None:
    spool, _ = refused
    asynctrack.configure(close_timeout=0.5)
    (tmp_path / "disk").write_text("a file where a folder should be")
    with pytest.raises(asynctrack.FlushTimeoutError):
        retry_rejected(str(spool), to=str(tmp_path / "disk" / "mlruns"), timeout=0.3)
    assert len(list(read_rejected([str(spool)]))) == 6


def test_dropping_takes_the_artifacts_and_the_folder_along(refused: tuple[Path, str]) -> None:
    spool, _ = refused
    assert drop_rejected(str(spool)) == 6
    assert not spool.exists()
    with pytest.raises(asynctrack.InvalidInputError, match="is no spool"):
        drop_rejected(str(spool))


def test_dropping_in_a_live_spool_keeps_artifacts_that_wait(tmp_path: Path) -> None:
    """Only what was refused goes."""
    spool = Spool.create(str(tmp_path / "spools"), "file:///nowhere")
    artifacts = Path(spool.artifacts())
    artifacts.mkdir()
    for name in ("refused", "waits"):
        (artifacts / name).write_text(name)
    path = str(spool.path)
    line = {"run_id": "r", "kind": "artifact", "key": "k", "value": str(artifacts / "refused"), "reason": "why"}
    spool.reject([{**line, "refused_at": 1}])
    assert drop_rejected(path) == 1
    assert [entry.name for entry in artifacts.iterdir()] == ["waits"]
    spool.remove()


def test_refusals_that_come_while_others_are_dropped_are_kept(tmp_path: Path) -> None:
    """The engine of a running program goes on writing."""
    spool = Spool.create(str(tmp_path / "spools"), "file:///nowhere")
    path, count = str(spool.path), 2000
    line = {"run_id": "r", "kind": "tag", "value": "v", "reason": "why", "refused_at": 1}

    def write() -> None:
        for number in range(count):
            spool.reject([{**line, "key": str(number)}])

    writer = threading.Thread(target=write)
    writer.start()
    dropped = 0
    while writer.is_alive():
        dropped += drop_rejected(path)
    writer.join()
    assert dropped + drop_rejected(path) == count
    spool.remove()


def test_a_line_that_its_writer_could_not_finish_costs_no_other(tmp_path: Path) -> None:
    """The next one does not run into it."""
    spool = Spool.create(str(tmp_path / "spools"), "file:///nowhere")
    path = str(spool.path)
    line = {"run_id": "r", "kind": "tag", "key": "k", "value": "v", "reason": "why", "refused_at": 1}
    Path(spool.rejected_path()).write_text(json.dumps(line) + '\n{"run_id": "r", "ki')
    spool.reject([{**line, "key": "next"}])
    assert [event.key for event in read_rejected([path])] == ["k", "next"]
    spool.remove()
