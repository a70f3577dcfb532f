"""Some schedules of ranks; ``python -m tests.fault.schedules`` carries out as many as one likes."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fault.programs import file_lab
from tests.fault.schedules import schedules


def test_ranks_that_end_die_and_begin_again_make_one_exact_run(tmp_path: Path) -> None:
    """Every point once, and the end that a model says."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    schedules(5, seed, file_lab, tmp_path / "schedules", print)
