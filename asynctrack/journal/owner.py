"""Who writes a spool: the entry that stands in its owner file, and once more in its registry."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any, NamedTuple

from asynctrack.journal.frames import FrameFile, decode_frame, scan_frames
from asynctrack.journal.locks import own_spools
from asynctrack.journal.opening import open_regular

__all__ = [
    "FORMAT_VERSION",
    "READABLE_VERSIONS",
    "Owner",
    "decode_owner",
    "host_name",
    "lost_owner",
    "not_ours",
    "read_owner",
]

FORMAT_VERSION = 3
#: in the first one, slots did not say where they belong
READABLE_VERSIONS = (1, 2, FORMAT_VERSION)
#: bytes in which both copies of the entry stand
_ENTRY = 65536
#: what is read of a spool beside its segments
_READ = ("owner", "registry", "cursor", "rejected.jsonl", "artifacts")


class Owner(NamedTuple):
    """Who writes a spool. ``store`` is a URI without credentials, ``created`` in ms since the epoch."""

    version: int
    host: str
    pid: int
    store: str
    created: int
    #: where the spool was made, and its owner file's inode there: neither is right in a copy
    path: str = ""
    inode: int = 0
    #: the owner, or its shipper, delivers: it is not offline
    ships: bool = False

    def made(self, path: str) -> bool:
        """Whether the spool at ``path`` is the one that was made, moved maybe, and no copy of it. Raises OSError."""
        if not self.path or self.path == os.path.realpath(path):
            return True
        return self.inode == _inode(path) and not _has_links_of(self.path, path)


def _has_links_of(place: str, path: str) -> bool:
    """Whether the folder ``path`` is a copy of the one in ``place``, made of links to its files (``cp -l``). Seen at
    two places (a bind mount), it is one folder."""
    try:
        return os.path.samestat(
            os.stat(os.path.join(place, "owner")), os.stat(os.path.join(path, "owner"))
        ) and not os.path.samestat(os.stat(place), os.stat(path))
    except OSError:
        return False  # moved: there is nothing in the old place


def host_name() -> str:
    """This machine's name, as spools record it."""
    return os.uname().nodename if hasattr(os, "uname") else sys.platform


def decode_owner(data: bytes, registry: FrameFile | None) -> Owner:
    """The entry in an owner file, else its copy. Raises ValueError where both are damaged, and OSError."""
    try:
        return _owner(decode_frame(data))
    except ValueError:
        for entry in scan_frames(registry.read(0, _ENTRY))[0] if registry is not None else ():
            if isinstance(entry, list) and entry and entry[0] == "owner":
                return _owner(entry[1:])
        raise ValueError("both copies of the spool's owner are damaged") from None


def _owner(entry: object) -> Owner:
    """Raises ValueError for what is no owner's entry."""
    kinds = (int, str, int, str, int, str, int, bool)
    items: list[Any] = []
    for item, kind in zip(entry if isinstance(entry, list) else (), kinds, strict=False):
        if type(item) is not kind:
            break  # in a later version the items behind the fifth may be others
        items.append(item)
    if len(items) < 5:
        raise ValueError("it is no owner's entry")
    return Owner(*items)


def read_owner(path: str) -> Owner | None:
    """Who writes the spool at ``path``; None where that is no spool, or cannot be read now."""
    try:
        return owner_of(path)
    except (OSError, ValueError):
        return None


def owner_of(path: str, *, missing: bool = False) -> Owner:
    """The same. Raises OSError, and ValueError where both copies are damaged. ``missing``: only the registry is."""
    data, registry = b"", None
    try:
        with own_spools() as own:
            if not (missing or own(path)):
                fd = open_regular(os.path.join(path, "owner"), os.O_RDONLY)
                try:
                    data = os.pread(fd, _ENTRY, 0)
                finally:
                    os.close(fd)
        registry = _registry_of(path)
        return decode_owner(data, registry)
    finally:
        if registry is not None:
            registry.close()


def lost_owner(path: str) -> str | None:
    """Of a folder with a journal of which nobody can tell whose it is: why, and what to do. None for all others."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    # A spool that is just being made, or deleted, has no segments: its owner file comes before them, and goes last.
    if not any(name.endswith(".slots") for name in names):
        return None
    missing = "owner" not in names
    try:
        owner = owner_of(path, missing=missing)
    except FileNotFoundError:
        return None  # deleted just now
    except OSError as error:
        return f"its owner file cannot be read now ({error}): try again later"
    except ValueError as error:
        why = "its owner file is missing, and the copy in its registry cannot be read" if missing else str(error)
        return (
            f"{why}, so nobody can tell to which store its events go: put the file back from a backup, or delete {path}"
        )
    if not missing:
        return None
    return (
        f"its owner file is missing, so nobody can tell whether its program runs: when that (process {owner.pid} on "
        f"{owner.host}) has ended, make an empty file {os.path.join(path, 'owner')} and run `asynctrack sync` again; "
        "its registry has a copy of the contents"
    )


def _registry_of(path: str) -> FrameFile | None:
    try:
        return FrameFile(os.path.join(path, "registry"), create=False)
    except FileNotFoundError:
        return None  # everything is delivered; what is left are refused events


def _inode(path: str) -> int:
    return os.stat(os.path.join(path, "owner")).st_ino


def not_ours(path: str) -> str | None:
    """Why the spool at ``path`` must not be delivered by this user; None where it may. Raises OSError.

    Whoever can write to a spool can have our files read, sent to a store and deleted. So it must be a folder of this
    user's that nobody else can write to: then all that ever gets into it is this user's, too.
    """
    if not hasattr(os, "geteuid"):
        return None
    about = os.lstat(path)
    things = [(path, about, stat.S_ISDIR(about.st_mode))]
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name not in _READ and not entry.name.endswith((".slots", ".frames")):
                continue  # nothing of ours, and never read
            about = entry.stat(follow_symlinks=False)
            right = stat.S_ISDIR(about.st_mode) if entry.name == "artifacts" else stat.S_ISREG(about.st_mode)
            things.append((entry.path, about, right))
    for name, about, right in things:
        if not right:
            return f"{name} is no file or folder of asynctrack's"
        if about.st_uid != os.geteuid() and about.st_uid != _user_seen_at(path):
            return f"{name} belongs to another user ({about.st_uid}), who should deliver it"
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"{name} can be written by other users; if it is yours, `chmod -R go-w` it"
    return None


def _user_seen_at(path: str) -> int:
    """Who a file system says we are: an NFS server may take root for somebody else. Raises OSError."""
    import tempfile  # late: it would be a tenth of `import asynctrack`

    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as file:
        return os.fstat(file.fileno()).st_uid
