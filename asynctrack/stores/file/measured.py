"""What MLflow 3 keeps of a metric beside its points: the dataset, in the run's own file, and the logged model's copy.

A model's metric file has ``<timestamp ms> <value> <step> <run id>`` lines, with the name and the digest of a dataset
behind them where there is one. Only metrics of models that are there are written. Like a run's, such a file is created
with its first lines, because MLflow cannot read an empty one, and a line that its writer has left torn is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from asynctrack.stores.file.files import (
    LinksUnsupportedError,
    create_whole,
    locked,
    make_folder,
    open_regular,
    write_all,
)
from asynctrack.stores.points import MeasuredOn, Point, measured_on

__all__ = ["append_lines", "dataset_of", "model_lines"]

_FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
#: bytes of a file in which a line is looked for before it is appended
_WINDOW = 1 << 16


def dataset_of(point: Point) -> str:
    """What stands behind a point for its dataset: `` name digest``, or nothing. MLflow takes the line apart at its
    spaces, so a name with a space is left out: with it, no run of the experiment could be read."""
    on = measured_on(point)
    if on is None or on.dataset_name is None or on.dataset_digest is None:
        return ""
    fields = f" {on.dataset_name} {on.dataset_digest}".encode("utf-8", "replace").decode()
    return fields if len(fields.split()) == 2 and len(fields.split(" ")) == 3 else ""


def model_lines(points: Iterable[Point], run_id: str) -> dict[MeasuredOn, list[tuple[Point, str]]]:
    """The lines that logged models get of a run's points, by what these were measured on, each with its point."""
    found: dict[MeasuredOn, list[tuple[Point, str]]] = {}
    for point in points:
        on = measured_on(point)
        if on is not None and on.model_id is not None:
            line = f"{point[0]} {float(point[2])!r} {point[1]} {run_id}{dataset_of(point)}\n"
            found.setdefault(on, []).append((point, line))
    return found


def append_lines(path: str, lines: Sequence[str], folder: str, *, whole: bool) -> None:
    """Append those of ``lines`` that are not among the file's last ones; among all of them where ``whole``. ``folder``,
    in the same file system, is for a temporary file. Raises OSError: what was written of a line then is cut off the
    next time."""
    flags = _FLAGS
    while True:
        try:
            fd = open_regular(path, flags)
            break
        except FileNotFoundError:
            make_folder(path, folder)
        try:
            if create_whole(path, "".join(lines).encode(), folder):
                return
        except LinksUnsupportedError:
            flags |= os.O_CREAT
    try:
        with locked(fd, path):
            size = os.fstat(fd).st_size
            read = size if whole else min(size, _WINDOW)
            data = os.pread(fd, read, size - read)
            torn = len(data) - (data.rfind(b"\n") + 1)
            if torn:
                os.ftruncate(fd, size - torn)
            there = set(data.decode("utf-8", "replace").splitlines(keepends=True))
            write_all(fd, "".join(line for line in lines if line not in there).encode())
    finally:
        os.close(fd)
