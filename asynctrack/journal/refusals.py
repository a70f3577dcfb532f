"""Events that the store will never accept, with its reasons: the file `rejected.jsonl` of a spool."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from typing import Any

from asynctrack.journal.disk import sync_folder
from asynctrack.journal.locks import locked_file
from asynctrack.journal.opening import open_regular

__all__ = ["RefusalLog"]

logger = logging.getLogger("asynctrack")

#: refused events that are kept in memory where there is no folder, and characters of one in the log
_KEPT = 1000
_SHOWN = 500


class RefusalLog:
    """The refused events of the spool in ``folder`` (None: there is none). Several processes may append."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self.path = os.path.join(folder or "", "rejected.jsonl")
        #: the last ones that could be kept nowhere else
        self.in_memory: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    @property
    def place(self) -> str:
        """Where they are, for people."""
        if self._folder is not None and os.path.exists(self.path):
            return self.path
        return "memory only, as there is no spool folder (any more)"

    def append(self, lines: list[dict[str, Any]], *, sync: bool = False) -> None:
        """Keep some more; ``sync``: on the disk itself. Raises OSError.

        Without a folder, or where somebody has deleted it, they go to memory and to the log: that one event is refused
        is no reason to keep back the others.
        """
        if not lines:
            return
        if self._folder is not None:
            try:
                self._write(lines, sync)
            except FileNotFoundError:
                if os.path.exists(self._folder):
                    raise
            else:
                return
        self.in_memory.extend(lines)
        for line in lines:
            logger.error("asynctrack: a refused event, kept in memory only: %s", _encode(line)[:_SHOWN])

    def _write(self, lines: list[dict[str, Any]], sync: bool) -> None:
        data = "".join(_encode(line) + "\n" for line in lines).encode("utf-8", "replace")
        with locked_file(self.path, create=True) as fd:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # its last writer died within a line
            while data:
                data = data[os.write(fd, data) :]
            if sync:
                os.fsync(fd)
        if sync and not size:
            sync_folder(str(self._folder))

    def snapshots(self) -> set[str]:
        """The snapshots of artifacts that were refused, by name: their users may want them back. Raises OSError."""
        try:
            fd = open_regular(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return set()
        with open(fd, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if '"artifact"' in line]
        names = set()
        for line in lines:
            try:
                names.add(os.path.basename(json.loads(line)["value"]))
            except (ValueError, KeyError, TypeError):
                continue  # its writer died within it
        return names


def _encode(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, default=str)
