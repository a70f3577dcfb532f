"""The clock, and the chance, of everything that waits.

A test that freezes the time (for example with freezegun) replaces ``time.monotonic`` in every module that has it. This
wrapper, made at import, keeps the real clock, so that delivery goes on during the freeze.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

__all__ = ["chance", "monotonic"]

#: seconds that never go back and never stop
monotonic: Callable[[], float] = partial(time.monotonic)


def chance() -> float:
    """A random number from 0 to 1. It does not come from Python's `random`: what a program that seeds it draws from
    there does not depend on who has waited for what."""
    return int.from_bytes(os.urandom(4)) / 0xFFFFFFFF
