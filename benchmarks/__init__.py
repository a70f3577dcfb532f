"""Speed as ratios: ours against something anybody can write, in one run on one machine.

    python -m benchmarks.hot_path       a log call against appending to a deque in memory
    python -m benchmarks.throughput     a million events into mlruns against one thread writing the same lines
    python -m benchmarks.rest           metrics into a real MLflow server against raw bodies sent as fast as it takes them
    python -m benchmarks.memory         resident memory while five million events wait for a store that does not answer

Absolute figures are printed beside the ratios and mean little: they belong to the machine and its other work.
"""

from __future__ import annotations

import os
import platform
import sys

__all__ = ["at_least", "judge", "machine"]


def machine() -> str:
    """One line that says where the figures come from."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()} "
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )


def judge(name: str, found: float, limit: float | None, unit: str = "") -> None:
    """End the program with status 1 where a limit is given and passed."""
    if limit is None:
        return
    passed = found <= limit
    print(f"\n{name}: {found:.2f}{unit}, limit {limit:g}{unit}: {'kept' if passed else 'EXCEEDED'}")
    if not passed:
        sys.exit(1)


def at_least(name: str, found: float, limit: float | None) -> None:
    """End the program with status 1 where a limit is given and not reached."""
    if limit is None:
        return
    print(f"\n{name}: {found:.2f}, at least {limit:g}: {'kept' if found >= limit else 'MISSED'}")
    if found < limit:
        sys.exit(1)
