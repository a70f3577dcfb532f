"""Refused events: kept beside the journal, on the disk where that is asked for, and in memory where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import asynctrack
from asynctrack.journal.refusals import RefusalLog


def test_a_refused_event_is_no_failure_where_the_folder_has_been_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes to memory and to the log: all the others, which the store takes, are delivered."""
    log = RefusalLog(str(tmp_path / "spool"))
    log.append([{"key": "loss", "reason": "too long"}, {"key": "acc", "reason": "too"}])
    assert [line["key"] for line in log.in_memory] == ["loss", "acc"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert '"loss"' in caplog.text
    assert not (tmp_path / "spool").exists()
    (tmp_path / "spool").mkdir()
    log.append([{"key": "next"}])
    assert Path(log.path).read_text() == '{"key": "next"}\n'


def test_where_refused_events_are_is_said_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and in the error; where somebody has deleted the spool, no file is named that is not there."""
    monkeypatch.chdir(tmp_path)
    asynctrack.configure(flush_interval=0.05)
    for deleted in (False, True):
        run = asynctrack.start_run(tracking_uri="mlruns")
        run.flush()
        (tmp_path / "mlruns" / "0" / run.run_id / "params" / "p").mkdir(parents=True)
        spool = Path(str(run._state.engine.journal.spool.path))
        if deleted:
            shutil.rmtree(spool)
        caplog.clear()
        run.log_param("p", "1")
        with pytest.raises(asynctrack.DeliveryError) as raised:
            run.flush()
        where = "memory only" if deleted else str(spool / "rejected.jsonl")
        assert f"They are kept in {where}" in str(raised.value)
        (said,) = [record.message for record in caplog.records if "Refused events are counted" in record.message]
        assert f"kept in {where}" in said
        run.terminate()
        asynctrack.shutdown()


def test_what_is_kept_in_memory_does_not_grow_without_end() -> None:
    """A store may refuse every event of a long run."""
    log = RefusalLog(None)
    for number in range(2100):
        log.append([{"key": str(number)}])
    assert len(log.in_memory) == 1000
    assert log.in_memory[-1]["key"] == "2099"


def test_refused_events_are_on_the_disk_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`durability="system"`: before the cursor says that they are dealt with. The folder too, when the file is new."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    log = RefusalLog(str(tmp_path))
    log.append([{"key": "a"}])
    assert synced == []
    log.append([{"key": "b"}], sync=True)
    assert synced == ["rejected.jsonl"]
    os.unlink(log.path)
    log.append([{"key": "c"}], sync=True)
    assert synced[1:] == ["rejected.jsonl", tmp_path.name]


def test_a_folder_that_cannot_be_entered_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there: what is written later is found."""

    def no(*some: object, **more: object) -> int:
        raise PermissionError(13, "Permission denied")

    log = RefusalLog(str(tmp_path))
    monkeypatch.setattr(os, "open", no)
    with pytest.raises(PermissionError):
        log.append([{"key": "loss"}])
    assert not log.in_memory
