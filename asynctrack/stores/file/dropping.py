"""Taking the points of an abandoned branch out of a run's metric files.

A file is written anew, beside the old one, and put in its place while the old one is locked: a reader finds the one or
the other, and a writer who waited for the lock finds that the file is gone and opens the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from asynctrack.platforms import CLOSE_ON_EXEC
from asynctrack.stores.file import layout
from asynctrack.stores.file.files import line_blocks, locked, open_regular, write_all

__all__ = ["drop_points"]

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
_MODELS = "models"

#: whether a line stays, by its fields
Keeps = Callable[[list[bytes]], bool]


def drop_points(run_dir: str, from_step: int, durable: bool) -> None:
    """Take out every point of a run at ``from_step`` and behind, also the copies that logged models have. To do it
    again changes nothing. Raises OSError, `UnavailableError`."""
    run_id = os.path.basename(run_dir).encode()

    def earlier(fields: list[bytes]) -> bool:
        return _step(fields, 2 if len(fields) > 2 else None) < from_step

    def earlier_or_other_run(fields: list[bytes]) -> bool:
        return len(fields) < 4 or fields[3] != run_id or _step(fields, 2) < from_step

    for path in _files(layout.key_path(run_dir, "metric", "")):
        _rewrite(path, run_dir, earlier, durable)
    models = os.path.join(os.path.dirname(run_dir), _MODELS)
    for model in _folders(models):
        for path in _files(os.path.join(models, model, layout.METRICS)):
            _rewrite(path, os.path.join(models, model), earlier_or_other_run, durable)


def _step(fields: list[bytes], at: int | None) -> int | float:
    """The step in a line; without one it is 0. What is no number is no point, and stays."""
    if at is None:
        return 0
    try:
        return int(fields[at])
    except ValueError:
        return float("-inf")


def _files(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)


def _folders(folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _rewrite(path: str, folder: str, keeps: Keeps, durable: bool) -> None:
    """Leave in a file only the lines that stay; without any, remove it, for MLflow cannot read an empty one."""
    while True:
        try:
            fd = open_regular(path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            with locked(fd, path):
                if os.fstat(fd).st_nlink:
                    _rewrite_locked(fd, path, folder, keeps, durable)
                    return
                # Somebody else has put another file in its place between our open and our lock: begin again.
        finally:
            os.close(fd)


def _rewrite_locked(fd: int, path: str, folder: str, keeps: Keeps, durable: bool) -> None:
    if all(keeps(line.split()) for block in line_blocks(fd) for line in block.splitlines()):
        return
    os.lseek(fd, 0, os.SEEK_SET)
    temporary = os.path.join(folder, f".{os.getpid()}-{os.urandom(8).hex()}.tmp")
    new = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOSE_ON_EXEC, 0o666)
    try:
        try:
            for block in line_blocks(fd):
                kept = b"".join(line for line in block.splitlines(keepends=True) if keeps(line.split()))
                write_all(new, kept)
            if durable:
                os.fsync(new)
            is_empty = not os.fstat(new).st_size
        finally:
            os.close(new)
        if is_empty:
            os.unlink(path)
        else:
            os.replace(temporary, path)
            temporary = ""
        if durable:
            _sync_folder(os.path.dirname(path))
    finally:
        if temporary:
            os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | CLOSE_ON_EXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
