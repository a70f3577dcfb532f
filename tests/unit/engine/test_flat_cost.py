"""What the engine does for one run does not grow with the number of runs beside it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import asynctrack
from asynctrack.engine.thread import EngineThread

OURS = tuple(str(Path(asynctrack.__file__).parent / layer) for layer in ("delivery", "engine", "journal"))


def calls_for(runs: int, store: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the engine's thread calls a function of ours, where so many runs are open at once."""
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(OURS)

    def deliver(self: EngineThread) -> None:
        sys.setprofile(count)
        try:
            delivers(self)
        finally:
            sys.setprofile(None)

    async def one() -> None:
        async with asynctrack.start_run() as run:
            run.log_metric("loss", 1.0, step=0)

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(runs)))

    delivers = EngineThread._deliver
    with monkeypatch.context() as patch:
        patch.setattr(EngineThread, "_deliver", deliver)
        asynctrack.set_tracking_uri(str(store))
        asyncio.run(all_of_them())
        asynctrack.shutdown()
    return calls


def test_a_run_costs_as_much_beside_four_hundred_as_beside_a_hundred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (calls_for(runs, tmp_path / str(runs), monkeypatch) for runs in (100, 400))
    assert many / 400 < 1.5 * few / 100, "it was 2.2 times as much where each piece of work walked all runs"
