"""kill -9 at random moments under full load: every event whose call had returned is in the store afterwards, once."""

from __future__ import annotations

import random
import signal
import struct
import time
from pathlib import Path

from tests.fault import programs
from tests.mlruns import read_runs

KILLS = 50

#: logs as fast as it can and keeps, in a shared file, the number of calls that have returned
TRAIN = """
import asynctrack, mmap
with open("acknowledged", "r+b") as file:
    # One machine word, stored in one instruction: a kill finds the old number or the new one. (struct.pack_into
    # clears the bytes first.)
    returned = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
keys = [f"m{number}" for number in range(10)]
asynctrack.configure(flush_interval=0.05)  # kills come between deliveries, and in the middle of one
run = asynctrack.start_run(run_name="train")
log = run.log_metric
print(run.run_id, flush=True)
step = 0
while True:
    log(keys[step % 10], step * 0.25, step)
    step += 1
    returned[0] = step
"""


def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    """50 processes, each killed at a random moment, each delivering what the last one left while it logs itself."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    acknowledged: dict[str, int] = {}
    rates = []
    counter = tmp_path / "acknowledged"
    for _ in range(KILLS):
        counter.write_bytes(bytes(8))
        process = programs.start(TRAIN, tmp_path)
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        started = time.perf_counter()
        # The random moment, not a wait for something. Long enough to fill several segments, and no longer: all that is
        # logged has to be delivered and checked.
        time.sleep(moments.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        seconds = time.perf_counter() - started
        process.communicate()
        (acknowledged[run_id],) = struct.unpack("=q", counter.read_bytes())
        if seconds > 0.1:
            rates.append(acknowledged[run_id] / seconds)
    programs.recover(tmp_path)
    assert programs.spools(tmp_path) == []

    runs = read_runs(tmp_path / "mlruns")
    assert len(acknowledged) == KILLS
    for run_id, count in acknowledged.items():
        if run_id not in runs:
            assert count == 0, f"seed {seed}: run {run_id} is missing with {count} acknowledged events"
            continue
        run = runs[run_id]
        points = sorted((step, value, name) for name, lines in run.metrics.items() for _, value, step in lines)
        # The call under way when the kill came may or may not have got there.
        assert len(points) in (count, count + 1), f"seed {seed}: run {run_id}: {len(points)} stored, {count} returned"
        assert points == [(i, i * 0.25, f"m{i % 10}") for i in range(len(points))], f"seed {seed}: run {run_id}"
        assert run.status == "KILLED"
    median = sorted(rates)[len(rates) // 2]
    print(f"{sum(acknowledged.values()):,} events acknowledged, {median:,.0f} a second while logging")
    assert median >= 20_000, "the kills are only worth something under load"
