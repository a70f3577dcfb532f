"""An asyncio service with 200 concurrent sessions, each logging to a run of its own.

    python examples/async_service.py

The log calls are plain calls, without ``await``: they cannot hold up the event loop, so the simulated requests keep
their latency. One session fails and one is cancelled on purpose: a run's status tells how its block was left.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter

import asynctrack

FAILING, CANCELLED = 7, 11


async def infer(rng: random.Random) -> int:
    """A stand-in for a model: takes about 20 ms, sometimes five times that; the number of tokens it gave."""
    await asyncio.sleep(rng.expovariate(50.0) * (5.0 if rng.random() < 0.02 else 1.0))
    return rng.randint(10, 200)


def client_hangs_up_after(seconds: float) -> None:
    """Cancel the current task later, as web frameworks do when a connection is lost."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(seconds, task.cancel)


async def session(number: int, requests: int, run_ids: dict[int, str]) -> None:
    """One client's session: some requests, one after another, each logged under its number."""
    rng = random.Random(number)
    # Each task has an active run of its own, however many are open.
    async with asynctrack.start_run(run_name=f"session-{number:03d}", tags={"client": f"client-{number % 10}"}) as run:
        run_ids[number] = run.run_id
        if number == CANCELLED:
            client_hangs_up_after(0.5)
        run.log_params({"requests": requests, "seed": number})
        for request in range(requests):
            begun = time.perf_counter()
            tokens = await infer(rng)
            seconds = time.perf_counter() - begun
            run.log_metric("latency_ms", seconds * 1e3, step=request)
            run.log_metric("tokens", tokens, step=request)
            run.log_metric("tokens_per_second", tokens / seconds, step=request)
            if number == FAILING and request == requests // 2:
                raise RuntimeError("the model ran out of memory")
    # Here everything this session logged is in the store. Other sessions went on meanwhile.


async def watch_event_loop(longest: list[float]) -> None:
    """Keep the longest time (seconds) by which the event loop was late."""
    while True:
        due = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        longest[0] = max(longest[0], time.perf_counter() - due)


async def serve(sessions: int, requests: int) -> dict[int, str]:
    """Run all sessions at once; the run id of each."""
    run_ids: dict[int, str] = {}
    late = [0.0]
    watcher = asyncio.create_task(watch_event_loop(late))
    begun = time.perf_counter()
    tasks = [asyncio.create_task(session(number, requests, run_ids)) for number in range(sessions)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    took = time.perf_counter() - begun
    watcher.cancel()

    unexpected = [error for error in outcomes if isinstance(error, asynctrack.AsynctrackError)]
    if unexpected:
        raise unexpected[0]
    print(f"{sessions} sessions of {requests} requests took {took:.1f} s; the event loop was never later than", end=" ")
    print(f"{late[0] * 1e3:.0f} ms")
    return run_ids


def main() -> None:
    parser = argparse.ArgumentParser(description="A simulated inference service that logs each session to a run.")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()

    asynctrack.set_experiment("async-service")
    run_ids = asyncio.run(serve(options.sessions, options.requests))

    runs = {number: asynctrack.get_run(run_id) for number, run_id in run_ids.items()}
    print("\nstatus      runs")
    for status, count in Counter(run.info.status for run in runs.values()).most_common():
        print(f"{status:10} {count:5}")
    print("\nsession      status      last latency   tokens/s")
    for number in (FAILING, CANCELLED, 0, 1):
        if number in runs:
            info, metrics = runs[number].info, runs[number].data.metrics
            latency, rate = metrics.get("latency_ms", 0.0), metrics.get("tokens_per_second", 0.0)
            print(f"{info.run_name:11}  {info.status:10}  {latency:9.1f} ms  {rate:9,.0f}")


if __name__ == "__main__":
    main()
