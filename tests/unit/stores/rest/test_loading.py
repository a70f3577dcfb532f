"""What it takes to load the client of servers."""

from __future__ import annotations

import subprocess
import sys


def test_it_draws_nothing_from_python_s_random() -> None:
    """A program that has seeded it draws the same numbers with a server as without one."""
    program = (
        "import random, sys; random.seed(7); import asynctrack.stores.rest.client; "
        "assert 'rich' not in sys.modules; assert random.random() == random.Random(7).random()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
