"""The clock of everything that waits.

A test that freezes the time (for example with freezegun) replaces ``time.monotonic`` in every module that has it. This
wrapper, made at import, keeps the real clock, so that delivery goes on during the freeze.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

__all__ = ["monotonic"]

#: seconds that never go back and never stop
monotonic: Callable[[], float] = partial(time.monotonic)
