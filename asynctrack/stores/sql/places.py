"""What a database's URI means: which file, and where artifacts go. Nothing here opens a database."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote

from asynctrack.errors import InvalidInputError
from asynctrack.platforms import check_folder_name
from asynctrack.values import shortened

__all__ = ["artifact_root", "local_place", "sqlite_path", "sqlite_uri"]

_PREFIX = "sqlite:///"
#: arguments that only say how a driver connects
_DRIVERS_OWN = frozenset({"timeout", "check_same_thread", "cached_statements", "detect_types", "isolation_level"})
_FORMS = "write sqlite:///relative.db or sqlite:////absolute/path.db"


def sqlite_uri(text: str) -> str:
    """The one spelling of an SQLite database's URI: ``sqlite:////absolute/path.db``, with links followed.

    A relative path is below the working directory of now. Nothing in it is percent-encoded: SQLAlchemy 2.0 takes "%20"
    as it stands, and 2.1 does not. Raises `InvalidInputError`.
    """
    return _PREFIX + os.path.realpath(sqlite_path(text))


def sqlite_path(text: str) -> str:
    """The file that an SQLite URI means. Raises `InvalidInputError`."""
    scheme, _, rest = text.partition(":")
    _, _, driver = scheme.partition("+")
    if driver not in ("", "pysqlite"):
        raise InvalidInputError(
            f"tracking URI {_shown(text)}: there is no driver {shortened(driver)} for SQLite; {_FORMS}"
        )
    if not rest.startswith("///"):
        raise InvalidInputError(f"tracking URI {_shown(text)} names no SQLite database; {_FORMS}")
    path, _, query = rest[3:].partition("?")
    unknown = [name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in _DRIVERS_OWN]
    if unknown or path.startswith("file:"):
        what = f"the argument {shortened(unknown[0])}" if unknown else "a file: URI of SQLite's"
        raise InvalidInputError(f"tracking URI {_shown(text)}: {what} is not supported; {_FORMS}")
    if path in ("", ":memory:"):
        raise InvalidInputError(
            f"tracking URI {_shown(text)} is a database in memory, which nothing could be read from once the "
            f"program has ended; {_FORMS}"
        )
    return _decoded(text, path)


def _decoded(text: str, path: str) -> str:
    """The decoded name, unless only the literal one exists: MLflow opens either, as SQLAlchemy 2.1 or 2.0 has it."""
    decoded = unquote(path)
    check_folder_name("tracking URI", decoded)
    if decoded != path and os.path.exists(path) and not os.path.exists(decoded):
        return path
    if "%" in decoded or "?" in decoded or "\0" in decoded:
        raise InvalidInputError(
            f"tracking URI {_shown(text)}: MLflow does not find a database again that has '%' or '?' in its path; "
            f"choose another"
        )
    return decoded


def _shown(text: str) -> str:
    return shortened(text, 200)


def artifact_root(path: str) -> str:
    """The folder that holds a folder of artifacts for each experiment: ``mlruns`` beside the database.

    MLflow puts it into the working directory, where its default database is, too. But runs are also created by other
    processes, elsewhere: by a shipper, or by ``asynctrack sync``.
    """
    return os.path.join(os.path.dirname(path), "mlruns")


def local_place(location: str) -> str:
    """An artifact location as it is kept: a path is made absolute, anything else stays."""
    return location if ":" in location.partition("/")[0] else os.path.abspath(location)
