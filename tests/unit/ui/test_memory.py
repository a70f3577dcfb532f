"""A process that replaces large arrays by larger ones all the time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_glibc_is_told_to_give_large_blocks_back() -> None:
    """What that saves takes many minutes to see: benchmarks.view looks."""
    program = "from asynctrack.ui.memory import give_back_large_blocks; print(give_back_large_blocks())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n"
