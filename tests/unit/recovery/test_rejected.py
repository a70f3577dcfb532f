"""Refused events that are tried again, or thrown away: `asynctrack.recovery.rejected`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.journal.spool import Spool
from asynctrack.journal.survey import find_spools, read_lines, read_rejected
from asynctrack.recovery import rejected as rejected_module
from asynctrack.recovery.rejected import Retried, drop_rejected, retry_rejected
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


def test_a_run_that_could_not_be_created_is_created_by_the_retry(tmp_path: Path) -> None:
    """Its experiment was deleted, and is restored: nothing is lost, its name, tags and end included."""
    experiment_id = asynctrack.create_experiment("vision")
    asynctrack.delete_experiment(experiment_id)
    run = asynctrack.start_run(run_name="baseline", experiment_id=experiment_id, tags={"team": "cv"}, wait=False)
    for step in range(5):
        run.log_metric("loss", step * 0.5, step=step)
    run.log_param("lr", 0.1)
    run.log_text("text", "a/text.txt")
    run.terminate("FAILED", end_time=1_900_000_000_000)
    asynctrack.shutdown()
    (spool,) = find_spools()
    assert retry_rejected(spool).accepted == 0
    asynctrack.shutdown()
    asynctrack.get_service().restore_experiment(experiment_id)
    (spool,) = find_spools()
    found = retry_rejected(spool)
    assert (found.accepted, found.problems) == (8, [])
    stored = asynctrack.get_run(run.run_id)
    assert (stored.info.run_name, stored.info.status, stored.info.end_time) == ("baseline", "FAILED", 1_900_000_000_000)
    assert (stored.data.tags["team"], stored.data.params["lr"]) == ("cv", "0.1")
    assert len(asynctrack.get_metric_history(run.run_id, "loss")) == 5
    assert (tmp_path / "mlruns" / experiment_id / run.run_id / "artifacts/a/text.txt").read_text() == "text"
    asynctrack.shutdown()
    assert not list(find_spools())


class Counted(bytes):
    """A line that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return bytes.__eq__(self, other)

    __hash__ = bytes.__hash__


def lines_of(spool: Path, count: int) -> None:
    """Leave so many refused events in a spool, each of a run of its own."""
    line = json.loads((spool / "rejected.jsonl").read_bytes().splitlines()[0])
    lines = [json.dumps({**line, "run_id": str(number)}) for number in range(count)]
    (spool / "rejected.jsonl").write_text("".join(f"{line}\n" for line in lines))


def test_deleting_some_refused_events_compares_no_line_with_all_others(
    refused: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, _ = refused
    lines_of(spool, 500)
    read = read_lines
    found = list(read(str(spool)))
    monkeypatch.setattr(
        rejected_module, "read_lines", lambda path: {Counted(line): event for line, event in read(path).items()}
    )
    Counted.compared = 0
    assert drop_rejected(str(spool), {Counted(line) for line in found[::2]}) == 250
    assert list(read(str(spool))) == found[1::2]
    assert Counted.compared < 5 * len(found)


def test_refused_events_of_many_runs_are_not_written_again_after_each_run(
    refused: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor left until the last one: a retry that is interrupted goes on about where it was."""
    spool, _ = refused
    lines_of(spool, 200)
    left: list[int] = []
    drop = rejected_module.drop_rejected

    def counted(path: str, lines: set[bytes]) -> int:
        dropped = drop(path, lines)
        left.append(len(list(read_rejected([path]))))
        return dropped

    def one(run_id: str, store: str, lines: dict[bytes, object], *rest: Any) -> Retried:
        if run_id == "190":
            raise KeyboardInterrupt
        rest[-1].update(lines)
        return Retried(len(lines), [])

    monkeypatch.setattr(rejected_module, "drop_rejected", counted)
    monkeypatch.setattr(rejected_module, "_retry_run", one)
    with pytest.raises(KeyboardInterrupt):
        retry_rejected(str(spool))
    assert left[0] > 170
    assert left[-1] == 10
    assert sum(left) < 200 * 20


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


def test_what_was_set_since_is_not_replaced_but_said(refused: tuple[Path, str], tmp_path: Path) -> None:
    """By another program, which knows nothing of what was refused here. Only who says so overwrites it."""
    spool, run_id = refused
    mend(tmp_path, run_id)
    run = asynctrack.start_run(run_id=run_id)
    run.set_tag("t", "newer")
    run.log_text("retrained", "model/weights.bin")
    run.terminate("FAILED")
    asynctrack.shutdown()
    found = retry_rejected(str(spool))
    assert found.accepted == 4
    assert f"run {run_id}: tag 't' is 'newer' there, and not '2'" in " ".join(found.problems)
    assert "artifact 'model/weights.bin' is another one there" in " ".join(found.problems)
    stored, weights = asynctrack.get_run(run_id), folder(tmp_path, run_id) / "artifacts/model/weights.bin"
    assert (stored.data.tags["t"], stored.info.status, weights.read_text()) == ("newer", "FAILED", "retrained")
    assert sorted(event.kind for event in read_rejected([str(spool)])) == ["artifact", "tag"]
    assert retry_rejected(str(spool), overwrite=True) == Retried(2, [])
    assert (asynctrack.get_run(run_id).data.tags["t"], weights.read_text()) == ("2", "weights")
    assert not spool.exists()


def test_what_an_earlier_try_has_stored_is_no_obstacle(refused: tuple[Path, str], tmp_path: Path) -> None:
    """One that was killed before it deleted what it had delivered."""
    spool, run_id = refused
    mend(tmp_path, run_id)
    shutil.copytree(spool, tmp_path / "again" / spool.name)
    assert retry_rejected(str(spool)) == Retried(6, [])
    assert retry_rejected(str(tmp_path / "again" / spool.name)) == Retried(6, [])
    assert len(only_run(tmp_path / "mlruns").metrics["taken"]) == 3


def test_of_several_refused_values_of_a_tag_the_last_one_stays(refused: tuple[Path, str], tmp_path: Path) -> None:
    spool, run_id = refused
    mend(tmp_path, run_id)
    (line,) = (line for line in read_lines(str(spool)) if b'"tag"' in line)
    later = {**json.loads(line), "value": "3"}
    with open(spool / "rejected.jsonl", "ab") as file:
        file.write(json.dumps(later).encode() + b"\n")
    for _ in range(2):
        copy = tmp_path / "again" / spool.name
        shutil.copytree(spool, copy, dirs_exist_ok=True)
        assert retry_rejected(str(copy)) == Retried(7, [])
        assert asynctrack.get_run(run_id).data.tags["t"] == "3"


def refuse_end(spool: Spool, run_id: str, end_time: int) -> None:
    """Keep the end FAILED of a run as one that its store has refused."""
    line = {"run_id": run_id, "kind": "end", "key": "FAILED", "reason": "why", "refused_at": 1}
    spool.reject([{**line, "value": end_time}])


def test_an_end_that_was_refused_does_not_undo_a_later_one(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        pass
    spool = Spool.create(str(tmp_path / "spools"), run.tracking_uri)
    refuse_end(spool, run.run_id, 1_000)
    assert retry_rejected(str(spool.path)) == Retried(1, [])
    assert asynctrack.get_run(run.run_id).info.status == "FINISHED"
    later = 4_000_000_000_000
    refuse_end(spool, run.run_id, later)
    assert retry_rejected(str(spool.path)) == Retried(1, [])
    info = asynctrack.get_run(run.run_id).info
    assert (info.status, info.end_time) == ("FAILED", later)
    spool.remove()


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


def test_a_store_that_is_away_leaves_everything_as_it_was(refused: tuple[Path, str], tmp_path: Path) -> None:
    spool, _ = refused
    (tmp_path / "disk").write_text("a file where a folder should be")
    with pytest.raises(asynctrack.UnavailableError):
        retry_rejected(str(spool), to=str(tmp_path / "disk" / "mlruns"))
    assert len(list(read_rejected([str(spool)]))) == 6


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_could_not_be_waited_for_is_delivered_once(
    refused: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, interrupted: bool
) -> None:
    """It is in the spool of the process that has tried: refused events that stayed besides were stored twice."""
    spool, run_id = refused
    asynctrack.configure(close_timeout=0.5)
    mend(tmp_path, run_id)
    only_points(spool)
    (tmp_path / "mlruns").rename(tmp_path / "away")
    if interrupted:

        def interrupt(*_: object) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(rejected_module, "wait_blocking", interrupt)
    with pytest.raises(KeyboardInterrupt if interrupted else asynctrack.FlushTimeoutError):
        retry_rejected(str(spool), timeout=0.3)
    assert not spool.exists()
    (tmp_path / "away").rename(tmp_path / "mlruns")
    asynctrack.shutdown()
    asynctrack.sync()
    assert len(only_run(tmp_path / "mlruns").metrics["taken"]) == 3


def test_an_end_is_not_given_to_a_run_that_a_living_program_has_taken_up(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        pass
    spool = Spool.create(str(tmp_path / "spools"), run.tracking_uri)
    refuse_end(spool, run.run_id, 4_000_000_000_000)
    with asynctrack.start_run(run_id=run.run_id) as again:
        again.flush()
        command = [sys.executable, "-m", "asynctrack", "spool", "retry", str(spool.path)]
        subprocess.run(command, check=True, timeout=60)
        assert asynctrack.get_run(run.run_id).info.status == "RUNNING"
    assert asynctrack.get_run(run.run_id).info.status == "FINISHED"
    spool.remove()


def only_points(spool: Path) -> None:
    """Leave the refused points, of whose place nothing needs to be known."""
    lines = (spool / "rejected.jsonl").read_text().splitlines(keepends=True)
    (spool / "rejected.jsonl").write_text("".join(line for line in lines if '"kind": "metric"' in line))


def test_what_another_store_has_refused_is_tried_there_again(tmp_path: Path) -> None:
    """The one that the spool was delivered to, and not the one that its program meant."""
    code = "import asynctrack\nwith asynctrack.start_run() as run:\n    run.log_param('p', 1)\n    print(run.run_id)"
    environment = {**os.environ, "ASYNCTRACK_MODE": "offline", "ASYNCTRACK_SPOOL_DIR": str(tmp_path / "spools")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    obstacle = tmp_path / "elsewhere" / "0" / done.stdout.strip() / "params" / "p"
    with asynctrack.start_run(tracking_uri=str(tmp_path / "elsewhere")):
        pass  # there is a store now
    obstacle.mkdir(parents=True)
    asynctrack.sync(spool_dir=tmp_path / "spools", to=tmp_path / "elsewhere")
    (spool,) = find_spools(str(tmp_path / "spools"))
    (event,) = read_rejected([spool])
    assert event.to == f"file://{tmp_path}/elsewhere"
    obstacle.rmdir()
    assert retry_rejected(spool) == Retried(1, [])
    assert obstacle.read_text() == "1"


def test_dropping_takes_the_artifacts_and_the_folder_along(refused: tuple[Path, str]) -> None:
    spool, _ = refused
    assert drop_rejected(str(spool)) == 6
    assert not spool.exists()
    with pytest.raises(asynctrack.InvalidInputError, match="is not a spool"):
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


def test_lines_that_no_store_can_have_refused_do_no_harm(refused: tuple[Path, str], tmp_path: Path) -> None:
    """The file may be damaged: an artifact named ".." would be the spool itself."""
    spool, run_id = refused
    mend(tmp_path, run_id)
    line = {"run_id": run_id, "kind": "artifact", "key": "model", "value": "", "reason": "r", "refused_at": 1}
    metric = line | {"kind": "metric", "key": "m", "value": "1.5", "step": 1, "timestamp": 1}
    of_metrics: list[dict[str, Any]] = [{"value": "x"}, {"value": None}, {"step": "1"}, {"timestamp": 1.5}]
    others: list[dict[str, Any]] = [
        *({"value": value} for value in ("", "/", "a/", "..", "a/..", ".", None, 7)),
        *({"kind": "end", "value": "x"}, {"kind": 7}, {"run_id": 5}, {"key": None}),
        *({"kind": "param", "value": 1}, {"spec": []}, {"refused_at": "1"}),
    ]
    odd = [*(metric | change for change in of_metrics), *(line | change for change in others)]
    with open(spool / "rejected.jsonl", "ab") as file:
        file.writelines(json.dumps(one).encode() + b"\n" for one in odd)
        file.write(b"[" * 100_000 + b"\n")
    assert len(read_lines(str(spool))) == 6
    assert retry_rejected(str(spool)) == Retried(6, [])
    assert (folder(tmp_path, run_id) / "artifacts/model/weights.bin").read_bytes() == b"weights"
    assert not spool.exists()


def test_a_run_whose_description_is_damaged_stays(refused: tuple[Path, str]) -> None:
    spool, _ = refused
    path = spool / "rejected.jsonl"
    lines = [json.loads(line) | {"spec": {"colour": "red"}} for line in path.read_bytes().splitlines()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    accepted, [problem] = retry_rejected(str(spool))
    assert accepted == 0
    assert "cannot be read" in problem
    assert len(read_lines(str(spool))) == 6
