"""A few rounds of the torture; ``python -m tests.fault.torture`` runs as many as one likes."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fault.torture import FileBench, torture


def test_random_deaths_with_random_faults_of_the_store_lose_and_double_nothing(tmp_path: Path) -> None:
    """Kills and signals at random moments, the store taken away, blocked or slow: each event is there, once."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    assert torture(6, seed, FileBench, tmp_path / "torture", verbose=True) > 1000
