"""A run that goes on from an earlier step, or after its end."""

from __future__ import annotations

import json
import logging
import random
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

import asynctrack
from asynctrack.entities import Metric
from asynctrack.errors import InvalidInputError, RunEndedError
from asynctrack.journal.writer import Journal
from asynctrack.stores.branches import Branch, branch_of, branches_of, latest_branch
from asynctrack.stores.file.dropping import drop_points
from tests.mlruns import only_run


def trained(first: int, last: int, **arguments: Any) -> str:
    with asynctrack.start_run(**arguments) as run:
        for step in range(first, last):
            run.log_metrics({"loss": step / 2, "train/acc": 1.0}, step=step)
    return run.run_id


def steps(tmp_path: Path, key: str = "loss") -> list[int]:
    return [step for *_, step in only_run(tmp_path / "mlruns").metrics.get(key, ())]


def test_what_was_logged_from_that_step_on_is_replaced(tmp_path: Path) -> None:
    run_id = trained(0, 10)
    assert trained(6, 12, run_id=run_id, from_step=6) == run_id
    assert steps(tmp_path) == steps(tmp_path, "train/acc") == list(range(12))
    assert trained(3, 5, run_id=run_id, from_step=3) == run_id
    assert steps(tmp_path) == list(range(5))
    assert only_run(tmp_path / "mlruns").status == "FINISHED"
    for branches in ("all", "latest"):
        history = asynctrack.get_metric_history(run_id, "loss", branches)
        assert [point.step for point in history] == list(range(5))


def test_a_metric_of_which_nothing_is_left_is_gone(tmp_path: Path) -> None:
    run_id = trained(5, 7)
    with asynctrack.start_run(run_id=run_id, from_step=0) as run:
        run.log_metric("other", 1.0)
    assert only_run(tmp_path / "mlruns").metrics.keys() == {"other"}


def test_without_a_step_everything_stays(tmp_path: Path) -> None:
    run_id = trained(0, 4)
    trained(2, 6, run_id=run_id)
    assert sorted(steps(tmp_path)) == [0, 1, 2, 2, 3, 3, 4, 5]


def test_a_new_run_has_nothing_to_replace(tmp_path: Path) -> None:
    """So the same line does for the first start and for each later one."""
    run_id = trained(0, 3, from_step=0)
    assert steps(tmp_path) == [0, 1, 2]
    assert not branches_of(asynctrack.get_run(run_id).data.tags)


def test_the_step_is_checked_at_the_call() -> None:
    run_id = trained(0, 1)
    for wrong in (1.5, "x", 1 << 63, float("nan")):
        with pytest.raises(InvalidInputError, match="from_step="):
            asynctrack.start_run(run_id=run_id, from_step=wrong)  # type: ignore[arg-type]
    assert asynctrack.active_run() is None
    with pytest.raises(InvalidInputError, match="branches='newest': it must be 'all' or 'latest'"):
        asynctrack.get_metric_history(run_id, "loss", "newest")  # type: ignore[arg-type]


def test_what_still_waits_is_delivered_before(tmp_path: Path) -> None:
    """The abandoned branch is in the spool when the run is taken up again: what is older goes first."""
    asynctrack.configure(mode="offline")
    run_id = trained(0, 10)
    trained(6, 8, run_id=run_id, from_step=6)
    asynctrack.shutdown()
    asynctrack.sync()
    assert steps(tmp_path) == list(range(8))


def test_params_that_have_changed_are_tags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asynctrack.start_run() as run:
        run.log_params({"lr": 0.1, "epochs": 2, "seed": 7})
    with caplog.at_level(logging.WARNING), asynctrack.start_run(run_id=run.run_id, from_step=5, strict=True) as again:
        again.log_params({"lr": 0.2, "epochs": 3, "seed": 7, "new": 1})
        again.log_params({"lr": 0.2})
        with pytest.raises(InvalidInputError, match="cannot become"):
            again.log_param("lr", 0.3)
    [record] = [record for record in caplog.records if "other params" in record.message]
    assert "lr: 0.1 -> 0.2; epochs: 2 -> 3" in record.message
    stored = only_run(tmp_path / "mlruns")
    assert stored.params == {"lr": "0.1", "epochs": "2", "seed": "7", "new": "1"}
    assert stored.tags["param_changed.lr"] == "0.1 -> 0.2"
    assert stored.tags["param_changed.epochs"] == "2 -> 3"
    assert "param_changed.seed" not in stored.tags
    assert again.stats().rejected == 0


def test_a_changed_param_whose_tag_was_dropped_is_told_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asynctrack.start_run() as run:
        run.log_params({"lr": 0.1, "seed": 7})
    with asynctrack.start_run(run_id=run.run_id, from_step=5) as again:
        with monkeypatch.context() as full:
            full.setattr(Journal, "write_frame", lambda journal, entry, **how: False)
            again.log_params({"lr": 0.2, "new": 1})
            assert "other params" not in caplog.text
        again.log_params({"lr": 0.3, "new": 2})
    stored = only_run(tmp_path / "mlruns")
    assert stored.params == {"lr": "0.1", "seed": "7", "new": "2"}
    assert stored.tags["param_changed.lr"] == "0.1 -> 0.3"
    assert "lr: 0.1 -> 0.3" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "sqlite"])
@pytest.mark.parametrize("ended", [True, False], ids=["delivered", "the old branch still waits"])
def test_a_run_that_goes_on_while_its_store_is_away(
    kind: str, ended: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is logged is right when it is delivered later: the old branch is replaced once, before what is logged now;
    params that have changed are tags, although nobody could know it at the call."""
    place = tmp_path / ("mlruns" if kind == "folder" else "runs.db")
    asynctrack.set_tracking_uri(str(place) if kind == "folder" else f"sqlite:///{place}")
    asynctrack.configure(connect_timeout=0.2)
    away = tmp_path / "away"
    with asynctrack.start_run(wait=ended) as run:
        run.log_params({"lr": 0.1, "epochs": 2, "seed": 7})
        for step in range(8):
            run.log_metric("loss", step / 2, step)
        run.flush()
        if not ended:
            place.rename(away)
        for step in range(8, 10):
            run.log_metric("loss", step / 2, step)
    if ended:
        place.rename(away)
    with asynctrack.start_run(run_id=run.run_id, from_step=6) as again:
        again.log_params({"lr": 0.2, "epochs": 2})
        again.log_params({"seed": 8, "new": 1})
        for step in range(6, 9):
            again.log_metric("loss", step / 4, step)
        away.rename(place)
        again.log_metric("loss", 9 / 4, 9)
    stored = asynctrack.get_run(run.run_id)
    history = [(point.step, point.value) for point in asynctrack.get_metric_history(run.run_id, "loss")]
    assert sorted(history) == [(step, step / 2 if step < 6 else step / 4) for step in range(10)]
    assert stored.data.params == {"lr": "0.1", "epochs": "2", "seed": "7", "new": "1"}
    changed = {key: value for key, value in stored.data.tags.items() if key.startswith("param_changed.")}
    assert changed == {"param_changed.lr": "0.1 -> 0.2", "param_changed.seed": "7 -> 8"}
    assert (stored.info.status, again.stats().rejected) == ("FINISHED", 0)
    assert len(branches_of(stored.data.tags)) == 1
    assert [record.getMessage() for record in caplog.records if "lr: 0.1 -> 0.2" in record.getMessage()]
    assert not list(tmp_path.rglob("rejected.jsonl"))


def test_a_param_that_is_refused_in_a_run_that_replaces_nothing_stays_refused(tmp_path: Path) -> None:
    asynctrack.configure(connect_timeout=0.2)
    with asynctrack.start_run() as run:
        run.log_param("lr", 0.1)
    (tmp_path / "mlruns").rename(tmp_path / "away")
    with asynctrack.start_run(run_id=run.run_id) as again:
        again.log_param("lr", 0.2)
        (tmp_path / "away").rename(tmp_path / "mlruns")
    assert again.stats().rejected == 1
    assert "param_changed.lr" not in only_run(tmp_path / "mlruns").tags


def test_a_resumed_run_has_no_end_time(tmp_path: Path) -> None:
    run_id = trained(0, 1)
    assert asynctrack.get_run(run_id).info.end_time
    with asynctrack.start_run(run_id=run_id) as run:
        run.flush()
        assert (run.info.status, asynctrack.get_run(run_id).info.end_time) == ("RUNNING", None)
    assert asynctrack.get_run(run_id).info.end_time


# ── after the end


def test_a_run_can_be_logged_to_again_after_its_end(tmp_path: Path) -> None:
    with asynctrack.start_run() as run:
        run.log_metric("loss", 1.0, 1)
        run.log_param("lr", 0.1)
        name = hash(run)
    with pytest.raises(RunEndedError, match="start_run"):
        run.log_metric("loss", 1.0, 2)
    assert run.reopen() is run
    assert not run.ended
    assert asynctrack.active_run() is run
    run.log_metric("loss", 1.0, 2)
    run.log_metric("test/loss", 3.0)
    with pytest.raises(InvalidInputError, match="cannot become"):
        run.log_param("lr", 0.2)
    run.flush()
    assert only_run(tmp_path / "mlruns").status == "RUNNING"
    assert run.reopen() is run  # it is open
    with pytest.raises(InvalidInputError, match="is open"):
        run.reopen(from_step=1)
    run.terminate()
    assert asynctrack.active_run() is None
    assert steps(tmp_path) == [1, 2]
    assert only_run(tmp_path / "mlruns").status == "FINISHED"
    assert hash(run) == name

    with run.reopen(from_step=2) as again:
        assert again is run
        asynctrack.log_metric("loss", 2.0, 2)
        asynctrack.log_metric("loss", 2.0, 3)
    assert steps(tmp_path) == [1, 2, 3]
    assert run.stats().delivered == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_task_too(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        async with asynctrack.start_run() as run:
            run.log_metric("loss", 1.0, 1)
        run.reopen().log_metric("loss", 1.0, 2)
        await run.terminate("FAILED")

    anyio.run(main, backend=backend)
    assert steps(tmp_path) == [1, 2]
    assert only_run(tmp_path / "mlruns").status == "FAILED"


def test_a_run_reopened_many_times_by_threads_that_log(tmp_path: Path) -> None:
    run = asynctrack.start_run()
    logged: list[int] = []
    done = threading.Event()

    def logs() -> None:
        step = 0
        while not done.is_set():
            step += 1
            try:
                run.log_metric("loss", 1.0, step)
            except RunEndedError:
                continue
            logged.append(step)

    thread = threading.Thread(target=logs)
    thread.start()
    for _ in range(20):
        run.terminate()
        run.reopen()
    done.set()
    thread.join()
    run.terminate()
    assert sorted(steps(tmp_path)) == logged


# ── the parts


def test_tags_tell_of_branches_and_bad_ones_of_none() -> None:
    branch = Branch.begun("ab", 7, 100)
    assert branches_of(branch.tag) == [branch]
    assert branch_of("ab", branch.tag) == branch
    assert branch_of("cd", branch.tag) is None
    bad = ("", "7", "[]", '{"from_step": 1}', '{"from_step": "x", "began": 2}', '{"from_step": Infinity, "began": 1}')
    for text in (*bad, "[" * 100_000):
        assert branches_of({branch.key: text}) == []


def test_readers_leave_out_what_every_branch_has_replaced() -> None:
    tags = Branch.begun("a", 5, 100).tag | Branch.begun("b", 3, 200).tag
    points = [Metric("m", 0.0, time, step) for time, step in [(1, 2), (1, 5), (100, 5), (150, 2), (150, 3), (200, 3)]]
    left = [(point.timestamp, point.step) for point in latest_branch(points, tags)]
    assert left == [(1, 2), (150, 2), (200, 3)]


def test_files_of_every_kind_of_line(tmp_path: Path) -> None:
    """Lines of datasets, without a step, torn, of nobody; the copies of logged models, which other runs share."""
    run, model = tmp_path / "0" / ("a" * 32), tmp_path / "0" / "models" / "m-1" / "metrics"
    (run / "metrics" / "deep").mkdir(parents=True)
    model.mkdir(parents=True)
    (run / "metrics" / "deep" / "m").write_text("1 0.5\n1 0.5 4\n2 1.0 5 data digest\n3 nan 6\n9 x y\n4 1.0 7")
    (run / "metrics" / "gone").write_text("1 0.5 5\n")
    (run / "metrics" / "disk.tmp").write_text("1 0.5 4\n1 0.5 5\n")
    (run / "metrics" / "stays").write_text("1 0.5 -5\n")
    (model / "m").write_text(f"1 0.5 5 {'a' * 32}\n1 0.5 5 {'b' * 32}\n1 0.5 4 {'a' * 32}\n")
    before = (run / "metrics" / "stays").stat().st_ino
    for _ in range(2):
        drop_points(str(run), 5, durable=True)
        assert (run / "metrics" / "deep" / "m").read_text() == "1 0.5\n1 0.5 4\n9 x y\n"
        assert not (run / "metrics" / "gone").exists()
        assert (run / "metrics" / "disk.tmp").read_text() == "1 0.5 4\n"
        assert (run / "metrics" / "stays").stat().st_ino == before
        assert (model / "m").read_text() == f"1 0.5 5 {'b' * 32}\n1 0.5 4 {'a' * 32}\n"
    assert [path.name for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == ["disk.tmp"]


def test_random_lives_against_a_model(tmp_path: Path) -> None:
    """A run that is trained, dies and goes on, from this step and that, with and without a pause between."""
    chance = random.Random(7)
    run_id = trained(0, 5)
    expected = list(range(5))
    for _ in range(12):
        begin, end = chance.randrange(8), chance.randrange(8, 14)
        trained(begin, end, run_id=run_id, from_step=begin)
        expected = [step for step in expected if step < begin] + list(range(begin, end))
        assert steps(tmp_path) == expected
    tags = asynctrack.get_run(run_id).data.tags
    assert len([key for key in tags if key.startswith("mlflow.asynctrack.branch.")]) == 12
    assert all(json.loads(value) for key, value in tags.items() if key.startswith("mlflow.asynctrack.branch."))
