"""What PostgreSQL's errors mean to the engine, by their SQLSTATE: classes of exceptions do not tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrack.errors import AuthenticationError, RefusedError, StoreError, UnavailableError, WrongServerError

if TYPE_CHECKING:
    import psycopg

__all__ = ["store_error"]

#: rolled back: the same may work the next time
_AGAIN = frozenset({"40001", "40P01", "55P03", "57014", "25006"})
#: somebody has to mend it, or to choose another database
_WRONG = frozenset({"3D000", "42P01", "42703", "42501", "3F000"})
_LATER = ("08", "57", "53", "58", "25", "XX")
#: what to do if it goes on
_ADVICE = {
    "55P03": "; another transaction keeps it locked: find out which (`pg_blocking_pids` names it) if this goes on",
    "53100": "; free some space on the server's disk",
}


def store_error(error: psycopg.Error, uri: str, secret: str) -> StoreError:
    """The error that says what the engine does next."""
    text = str(error).strip().splitlines()
    said = text[0] if text else type(error).__name__
    if secret:
        said = said.replace(secret, "***")
    state = error.sqlstate or ""
    if state in ("28P01", "28000") or "password authentication failed" in said or "no password supplied" in said:
        return AuthenticationError(
            f"{uri}: {said}; give the password in the tracking URI, in PGPASSWORD or in the file that PGPASSFILE names"
        )
    # What goes wrong while connecting has no code.
    if state in _WRONG or (not state and "does not exist" in said):
        return WrongServerError(f"{uri}: {said}; choose another database, or have its owner give you the right")
    if state in _AGAIN or state[:2] in _LATER or not state:
        return _later(error, uri, said)
    return RefusedError(f"{uri}: {said}")


def _later(error: psycopg.Error, uri: str, said: str) -> StoreError:
    import psycopg

    if isinstance(error, psycopg.DataError):  # a value that cannot be sent, and was not
        return RefusedError(f"{uri}: {said}")
    if isinstance(error, psycopg.ProgrammingError) and "connection option" in said:
        return WrongServerError(f"{uri}: {said}")
    advice = _ADVICE.get(error.sqlstate or "", "")
    unavailable = UnavailableError(f"{uri}: {said}{advice}. Nothing is lost: it is tried again")
    unavailable.ambiguous = error.sqlstate is None  # the connection broke; maybe behind the COMMIT
    return unavailable
