"""What a time may be, for every store."""

from __future__ import annotations

from asynctrack.errors import RefusedError

__all__ = ["check_time"]


def check_time(what: str, value: object) -> None:
    """Raise `RefusedError`, naming ``what``, unless ``value`` is whole milliseconds of 64 bits. A server takes anything
    else for absent, and says that all is well."""
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise RefusedError(f"{what} is {value!r}, not a whole number of milliseconds")
