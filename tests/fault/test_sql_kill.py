"""kill -9 while an SQLite database is being written: every event whose call had returned is in it afterwards, once."""

from __future__ import annotations

import random
import signal
import sqlite3
import struct
import time
from pathlib import Path

from tests.fault import programs

KILLS = 5

TRAIN = (
    programs.COUNTING
    + """
returned = counted()
run = asynctrack.start_run(run_name="train")
print(run.run_id, flush=True)
log_for_ever(run, returned)
"""
)


def test_kills_in_the_middle_of_transactions_lose_and_damage_nothing(tmp_path: Path, memory_path: Path) -> None:
    """Each program delivers what the last one left while it logs itself. What a killed writer has begun, SQLite takes
    back when the next one opens the file."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    database = memory_path / "mlflow.db"
    # 10,000 events between two short rests: what a kill leaves is delivered within seconds.
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", "LOG_AND_REST": "1000"}
    acknowledged = {}
    for _ in range(KILLS):
        process = programs.start(TRAIN, tmp_path, **environment)
        run_id = programs.line_for(process)
        time.sleep(moments.uniform(0.2, 0.8))  # the random moment, not a wait for something
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (acknowledged[run_id],) = struct.unpack("=q", (tmp_path / "acknowledged").read_bytes())
    programs.recover(tmp_path, **environment)
    assert programs.spools(tmp_path) == []

    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchone() is None
    for run_id, count in acknowledged.items():
        rows = connection.execute("SELECT step, key, value FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
        # The call under way when the kill came may or may not have got there.
        assert len(rows) in (count, count + 1), f"seed {seed}: run {run_id}: {len(rows)} stored, {count} returned"
        assert sorted(rows) == [(i, f"m{i % 4}", i * 0.25) for i in range(len(rows))], f"seed {seed}: run {run_id}"
        latest = dict(connection.execute("SELECT key, step FROM latest_metrics WHERE run_uuid = ?", (run_id,)))
        assert latest == {f"m{step % 4}": step for step in range(max(len(rows) - 4, 0), len(rows))}
        (status,) = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        assert status == "KILLED"
    connection.close()
