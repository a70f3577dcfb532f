"""Which file systems keep the room that a file was given, so that it can be written through a mapping.

A write to a mapped page cannot fail: where the disk turns out to be full it kills the process (SIGBUS). So the room
must be the file's before. File systems that write in place have given it when `posix_fallocate` returns. Those that
write each change to a new place (btrfs, ZFS), compress, or are somewhere else (NFS, FUSE) have promised nothing.
"""

from __future__ import annotations

import os
import re
import sys
from array import array

from asynctrack.platforms import HAS_LOCKS, fcntl

__all__ = ["filesystem_of", "keeps_room"]

#: they write in place what was allocated; tmpfs has its pages then. (Full disks of these were tried under a program:
#: ext4, btrfs and tmpfs; under a mapping alone: XFS. The others by what the kernel documents.)
_IN_PLACE = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs"})
#: from this Linux on btrfs lets a full disk's mapped file be written where that takes no new room (commit 6599716de2d6)
_BTRFS_SINCE = (6, 17)
#: <linux/fs.h>: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOCOW_FL
_GET_FLAGS, _SET_FLAGS, _NO_COPY_ON_WRITE = 0x80086601, 0x40086602, 0x00800000

#: by device: which file system it is
_known: dict[int, str] = {}


def keeps_room(fd: int) -> str:
    """ "" where a new, empty file keeps the room that it is given from now on; else the file system's name. Raises
    OSError."""
    device = os.fstat(fd).st_dev
    if device not in _known:
        _known[device] = filesystem_of(fd)
    name = _known[device]
    if name in _IN_PLACE or (name == "overlay" and _is_over_blocks(fd)):
        return ""
    if name == "btrfs" and _linux_version() >= _BTRFS_SINCE and _write_in_place(fd):
        return ""
    return name


def _linux_version() -> tuple[int, ...]:
    """The kernel's first two numbers; () elsewhere."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release) if sys.platform == "linux" else None
    return (int(found[1]), int(found[2])) if found else ()


def filesystem_of(fd: int) -> str:
    """The name of the file system that a file is on, as the kernel has it."""
    try:
        with open(f"/proc/thread-self/fdinfo/{fd}", encoding="utf-8") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="replace") as file:
            fields = next(line.split() for line in file if line.split(None, 1)[0] == mount)
        return fields[fields.index("-") + 1]
    except (OSError, StopIteration, ValueError, IndexError):
        return "unknown"  # no Linux, or /proc is not there


def _is_over_blocks(fd: int) -> bool:
    """Whether an overlay's files lie on ext4, XFS or the like. It gives the figures of the file system below, and these
    have a fixed number of inodes, which btrfs has not, and whole blocks of one size, which ZFS has not."""
    found = os.fstatvfs(fd)
    return found.f_files > 0 and found.f_bsize == found.f_frsize <= 4096


def _write_in_place(fd: int) -> bool:
    """Have btrfs do so for this file, which must be empty."""
    if not HAS_LOCKS:
        return False  # nor anything else of fcntl
    flags = array("l", [0])
    try:
        fcntl.ioctl(fd, _GET_FLAGS, flags, True)
        flags[0] |= _NO_COPY_ON_WRITE
        fcntl.ioctl(fd, _SET_FLAGS, flags, True)
        fcntl.ioctl(fd, _GET_FLAGS, flags, True)
    except OSError:
        return False
    return bool(flags[0] & _NO_COPY_ON_WRITE)
