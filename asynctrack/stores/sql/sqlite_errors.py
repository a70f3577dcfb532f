"""What SQLite's errors mean to the engine. They are told apart by code: "database is locked" and "no such table" are of
one class."""

from __future__ import annotations

import os
import sqlite3

from asynctrack.errors import RefusedError, StoreError, UnavailableError, WrongServerError

__all__ = ["is_busy", "store_error"]

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: it may be well again later; what to do
_LATER = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked; find out which (`fuser` names it) if this goes on",
    sqlite3.SQLITE_LOCKED: "another connection keeps it locked",
    sqlite3.SQLITE_FULL: "free some space on that disk",
    sqlite3.SQLITE_IOERR: "check that disk",
    sqlite3.SQLITE_CANTOPEN: "check that its folder is there and may be written to",
    sqlite3.SQLITE_READONLY: "give this user the right to write to it and to its folder",
    sqlite3.SQLITE_PERM: "give this user the right to write there",
    sqlite3.SQLITE_PROTOCOL: "too many programs are using it",
    sqlite3.SQLITE_NOMEM: "the machine has no memory left",
}
#: somebody has to mend or to choose another one first
_WRONG = {
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; choose another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it, or save what can be read with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_ERROR: "it is no MLflow database that this version of asynctrack knows",
    sqlite3.SQLITE_SCHEMA: "its tables have changed",
}


def _code(error: sqlite3.Error) -> int:
    """The primary code: the rest says in which call it happened."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has a lock."""
    return _code(error) in _BUSY


def store_error(error: sqlite3.Error, path: str) -> StoreError:
    """The error that says what the engine does next."""
    code = _code(error)
    if code == sqlite3.SQLITE_CANTOPEN and os.path.isdir(path):
        return WrongServerError(f"{path} is a folder; write the path of a database in it, like {path}/mlflow.db")
    if code in _LATER and os.path.exists(path) and not os.path.isfile(path):
        return WrongServerError(f"{path} is no ordinary file, and holds no database; choose another path")
    if code in _LATER:
        return UnavailableError(f"{path}: {error}; {_LATER[code]}. Nothing is lost: it is tried again")
    if code in _WRONG:
        return WrongServerError(f"{path}: {error}; {_WRONG[code]}")
    if isinstance(error, sqlite3.IntegrityError):
        return RefusedError(f"{path}: {error}")
    return UnavailableError(f"{path}: {error!r}; it is tried again")
