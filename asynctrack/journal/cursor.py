"""How far a spool's consumer is: the file `cursor`, of which the last frame counts."""

from __future__ import annotations

import errno
import os
from typing import Any

from asynctrack.journal.disk import allocate, new_file, sync_folder
from asynctrack.journal.filesystem import keeps_room
from asynctrack.journal.frames import FrameFile, encode_frame, scan_frames
from asynctrack.journal.opening import open_regular

__all__ = ["CursorFile"]

#: a file of cursors is replaced when it has grown to that
_CURSOR_BYTES = 256 * 1024
#: room kept for the next file at least: two blocks, so that making a first cursor of it leaves one for the second
_ROOM_BYTES = 8192
_BLOCK = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT)


class CursorFile:
    """The cursor of the spool in ``folder`` (None: in memory, where nobody comes after). One consumer.

    Two files take turns: ``cursor``, and ``cursor.room``, which has its room on the disk and waits to be the next. So
    saving needs no free block, and on a full disk what is delivered can be noted, and deleted, which alone makes room.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._path = os.path.join(folder or "", "cursor")
        self._room = f"{self._path}.room"
        #: bytes that the room has
        self._kept = 0
        self._file: FrameFile | None = None

    def save(self, cursor: dict[str, Any], *, sync: bool = False) -> None:
        """Note how far the consumer is: after a crash there is this cursor or the one before. Raises OSError.

        ``sync``: hand it to the disk itself before returning. Where somebody has deleted the folder there is nothing
        to note: nobody comes after.

        Cursors are appended, which costs 2 µs, and the file is replaced when it has grown, or cannot grow: replacing
        it each time costs 200 µs (ext4).
        """
        if self._folder is None:
            return
        frame = encode_frame(cursor)
        try:
            if not self._append(frame, sync):
                self._replace(frame, sync)
        except FileNotFoundError:
            if os.path.exists(self._folder):
                raise
        else:
            self.keep_room(len(frame))

    def _append(self, frame: bytes, sync: bool) -> bool:
        """Whether there was room. Raises OSError for all else."""
        if self._file is None or self._file.size() > _CURSOR_BYTES or self._would_take_the_last_block(len(frame)):
            return False
        try:
            self._file.append(frame)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return False
        if sync:
            self._file.sync()
        return True

    def _would_take_the_last_block(self, more: int) -> bool:
        """Whether the file would grow on a disk that is nearly full: what was made free there by a delivery is for the
        events that wait for it."""
        assert self._file is not None
        size = self._file.size()
        if size + more <= _ROOM_BYTES or size // _BLOCK == (size + more) // _BLOCK:
            return False
        try:
            about = os.statvfs(self._path)
        except (OSError, AttributeError):
            return False
        return about.f_bavail * about.f_frsize < _CURSOR_BYTES

    def _replace(self, frame: bytes, sync: bool) -> None:
        try:
            file = FrameFile(self._room, create=False, writable=True)
        except (FileNotFoundError, ValueError):
            _unlink(self._room)  # no file of ours, if it is there
            file = FrameFile(self._room, create=True)
        try:
            file.restart(frame)
            if sync:
                file.sync()
            has_old = self._keep_old()
            os.replace(self._room, self._path)
        except OSError:
            file.close()
            raise
        self.close()
        self._file, self._kept = file, 0
        file.path = self._path
        if has_old:
            os.replace(f"{self._path}.new", self._room)
        if sync:
            sync_folder(str(self._folder))

    def _keep_old(self) -> bool:
        """Give the file that is replaced a second name, so that its room stays ours; whether that is done."""
        spare = f"{self._path}.new"
        _unlink(spare)  # a consumer died right here
        try:
            os.link(self._path, spare)
        except OSError:
            return False  # this is the first; or there are no links here: then it frees some room, which is taken again
        return True

    def keep_room(self, size: int = 0) -> None:
        """Have room on the disk for a cursor of twice ``size`` bytes: it may grow. Raises nothing."""
        room = max(_ROOM_BYTES, 2 * size)
        if self._folder is None or self._kept >= room:
            return
        try:
            try:
                fd = open_regular(self._room, os.O_RDWR)
            except FileNotFoundError:
                fd = new_file(self._room)
                keeps_room(fd)  # which asks btrfs for it
            try:
                allocate(fd, room)
                os.ftruncate(fd, room)  # what was a file of many cursors gives the rest back
            finally:
                os.close(fd)
        except (OSError, ValueError):
            return  # tried again with the next cursor
        self._kept = room

    def load(self) -> dict[str, Any] | None:
        """The last cursor; None when nothing was acknowledged yet. Raises ValueError when it is damaged, and OSError,
        which says nothing about the cursor."""
        if self._folder is None:
            return None
        try:
            fd = open_regular(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            data = file.read()
        entries, end, _ = scan_frames(data)
        if not entries or end < len(data) or not isinstance(entries[-1], dict):
            # Damage, or a consumer that died while writing it. An older cursor would not know what was sent since.
            raise ValueError("the cursor is damaged")
        cursor: dict[str, Any] = entries[-1]
        return cursor

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
