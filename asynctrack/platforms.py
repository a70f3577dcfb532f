"""What asynctrack needs from the operating system. It logs on any POSIX system, and works without Linux's own features.

Only Linux is tested. The package imports on every system; `check_platform` says at a run's start what is missing.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from asynctrack.errors import InvalidInputError, SpoolError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # Windows; `check_platform` is asked before anything is locked
try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]  # Windows

__all__ = [
    "CLOSE_ON_EXEC",
    "HAS_LOCKS",
    "check_file_name",
    "check_folder_name",
    "check_platform",
    "fcntl",
    "interpreter",
    "largest_file",
    "names_need_utf8",
    "passes",
    "unquoted_path",
    "why",
]

#: opens files so that programs started from here do not inherit them; 0 on Windows, where files are not inherited
CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
#: whether the system has file locks that are released when their process ends
HAS_LOCKS = fcntl is not None

#: errors that come of a limit of this process: the limit's name, and how a shell raises it
_LIMITS = {errno.EMFILE: ("RLIMIT_NOFILE", "ulimit -n"), errno.EFBIG: ("RLIMIT_FSIZE", "ulimit -f")}
#: errors that say more about this moment than about the file that was to be read
_PASSING = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT,
    errno.ENOLCK,
)  # fmt: skip
#: bytes: of a path on Linux, and of one name in it on all common file systems
_LONGEST_PATH, _LONGEST_NAME = 4095, 255
#: folders in one another; Python makes them one in the other, and has 1000 calls for that
_DEEPEST_PATH = 500
#: characters of a name, in messages about it
_SHOWN = 60
#: functions without a substitute: a spool is read at one place while it is written at another
_NEEDED = ("pread", "pwrite")


def passes(error: OSError) -> bool:
    """Whether what could not be read now may be readable in a moment: another file has had no better luck."""
    return error.errno in _PASSING


def check_platform() -> None:
    """Called before a run is started. Raises SpoolError on a system where no journal can be kept."""
    _fill_standard_streams()
    missing = [] if HAS_LOCKS else ["fcntl"]
    missing += [f"os.{name}" for name in _NEEDED if not hasattr(os, name)]
    if missing:
        raise SpoolError(
            f"asynctrack cannot log here: its journal needs {', '.join(missing)}, which Python on {sys.platform} does "
            f"not have; it runs on Linux and macOS, and on Windows under WSL"
        )


def _fill_standard_streams() -> None:
    """Open the null device for each standard stream that is closed, as in some daemons. Otherwise a file of the spool
    would get its number, and what a library in C prints would be written into that file."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):  # no descriptor is left: then none of ours gets the number either
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def interpreter() -> str | None:
    """The executable that runs a module of ours in a process of its own; None where there is none.

    A frozen program (PyInstaller, cx_Freeze) calls itself ``sys.executable``: started once more, it would not run our
    module but train once more. A program that embeds Python (uWSGI) may do so, too.
    """
    path = sys.executable
    frozen = getattr(sys, "frozen", False)
    return path if path and not frozen and "py" in os.path.basename(path).lower() else None


def check_file_name(what: str, name: str) -> None:
    """Raise InvalidInputError for a name or path that no file can have in this process. ``what`` is it, for the
    message."""
    try:
        path = os.fsencode(name)
    except UnicodeEncodeError as error:
        shown = ascii(name) if len(name) <= _SHOWN else f"{name[:_SHOWN]!a}…"
        raise InvalidInputError(f"{what} {shown}: {names_need_utf8(error) or error}") from None
    if len(path) > _LONGEST_PATH or path.count(b"/") > _DEEPEST_PATH:
        raise InvalidInputError(
            f"{what} {name[:_SHOWN]!a}… has {len(path)} bytes; a path has at most {_LONGEST_PATH}, and leads through "
            f"{_DEEPEST_PATH} folders at most"
        )


def check_folder_name(what: str, name: str) -> None:
    """`check_file_name`, for a path that is to be made."""
    check_file_name(what, name)
    if any(len(part) > _LONGEST_NAME for part in os.fsencode(name).split(b"/")):
        raise InvalidInputError(f"{what} {name[:_SHOWN]!a}… has a part that is too long for the name of a folder")


def absolute(what: str, path: str) -> str:
    """The path from here, whatever becomes the working directory. Raises InvalidInputError where that is gone."""
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise InvalidInputError(
            f"{what} {path[:_SHOWN]!a} is relative, and the working directory of this process has been deleted"
        ) from None


def names_need_utf8(error: UnicodeEncodeError) -> str | None:
    """What to do where a file cannot be named because Python writes names in something less than UTF-8 (by ``LC_ALL=C``
    together with ``PYTHONUTF8=0``, or in a language's old encoding); None where that is not the trouble."""
    if error.encoding.lower().replace("-", "").startswith("utf"):
        return None
    character = error.object[error.start]
    return (
        f"the file system's encoding is {error.encoding} in this program, which cannot name a file with {character!a}; "
        "set PYTHONUTF8=1"
    )


def why(error: OSError) -> str:
    """What the system says, for messages; where that is about a limit of this process, which one, and what to do."""
    said = str(error) if error.filename is not None or not error.strerror else error.strerror
    name, command = _LIMITS.get(error.errno or 0, ("", ""))
    limit = _limit(name)
    return said if limit is None else f"{said} (the limit {name} is {limit} in this process; `{command}` raises it)"


def largest_file() -> int:
    """Bytes that a file may have that this process writes to."""
    limit = _limit("RLIMIT_FSIZE")
    return sys.maxsize if limit is None else limit


def _limit(name: str) -> int | None:
    """A limit of this process; None where there is none."""
    number = getattr(resource, name, None)
    if number is None:
        return None
    limit = resource.getrlimit(number)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def unquoted_path(path: str) -> str:
    """The path in a ``file:`` URI, which percent-encodes the bytes that the file system knows. Raises
    InvalidInputError."""
    from urllib.parse import unquote_to_bytes  # late: it would be a twentieth of `import asynctrack`

    try:
        return os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
    except UnicodeEncodeError:
        raise InvalidInputError(f"{path!a}: half a character (a lone surrogate) is in the path") from None
