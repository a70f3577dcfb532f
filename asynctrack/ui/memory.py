"""Memory of a process that replaces large arrays all the time."""

from __future__ import annotations

__all__ = ["give_back_large_blocks"]

#: <malloc.h>
_MMAP_THRESHOLD = -3
#: bytes
_LARGE = 256 * 1024


def give_back_large_blocks() -> bool:
    """Have the C library give each freed block of 256 KiB or more back to the system. Whether it will: only glibc can
    be told.

    Arrays that grow with a run are replaced by slightly larger ones at each look. glibc would put them on its heaps,
    where the gap that one leaves is too small for the next: 340 MB instead of 180 at 600,000 points.
    """
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE))
    except (AttributeError, OSError, TypeError):
        return False
