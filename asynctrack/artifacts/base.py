"""What every place for artifacts can do, and how whole folders go there and back."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable

from asynctrack.artifacts import files
from asynctrack.artifacts.paths import RESERVED_PREFIX, artifact_folder, check_artifact_path, join
from asynctrack.entities import FileInfo
from asynctrack.errors import InvalidInputError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.file.files import check_inside
from asynctrack.stores.io import StoreIO

__all__ = ["ArtifactRepository", "make_folder_inside"]


class ArtifactRepository(ABC):
    """The artifacts of one run, or below one folder of them.

    Methods are coroutines over a `StoreIO`, as a store's are: awaited on an event loop, or driven by blocking callers
    (`asynctrack.stores.io.drive`). They raise `StoreError` classes, and `InvalidInputError` for a path that no artifact
    can have. Nothing is retried here: whoever calls looks at the error's ``retryable``. Storing an artifact again
    replaces it, so a repeated call does no harm.
    """

    def __init__(self, uri: str, io: StoreIO) -> None:
        #: the artifact URI, without credentials
        self.uri = uri
        #: set by the engine with ``durability="system"``: what is stored must survive this machine
        self.durable = False
        self._io = io

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    # ── up

    async def log_artifact(self, local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Store a file, under its own name in the folder ``artifact_path``; a folder is stored as that sub-folder."""
        source = _absolute(local_path)
        target = join(artifact_folder(artifact_path), os.path.basename(source))
        if await self._io.call(os.path.isdir, source):
            await self.log_artifacts(source, target)
        else:
            await self.upload(source, target)

    async def log_artifacts(
        self, local_dir: str | os.PathLike[str], artifact_path: str | None = None, *, done: set[str] | None = None
    ) -> None:
        """Store everything in a folder, sub-folders included, in the folder ``artifact_path``.

        ``done`` lists what need not be stored, and is added to: give the same set to the next attempt and it goes on
        where this one stopped. A file that is refused keeps none of the others back: the `RefusedError` comes at the
        end and names it.
        """
        source, folder = _absolute(local_dir), artifact_folder(artifact_path)
        done = set() if done is None else done
        refused: list[Exception] = []
        for file in await self._io.call(_files_of, source):
            target = join(folder, file.relative)
            if target in done:
                continue
            try:
                await self.upload(file.path, target)
            except (StoreError, InvalidInputError) as error:
                if isinstance(error, StoreError) and error.retryable:
                    raise
                refused.append(error)
            else:
                done.add(target)
        if refused:
            raise RefusedError(f"{len(refused)} of the files in {source} were not stored: {_first(refused)}")

    @abstractmethod
    async def upload(self, local_file: str, artifact_file: str) -> None:
        """Store one file as ``artifact_file``, a path from the root. It is there whole or not at all.

        A file that is written to meanwhile raises `UnavailableError`: the next attempt stores it as it is then.
        """

    async def probe(self) -> None:
        """Store an empty file and delete it again, to see whether anything at all is taken. Raises `StoreError`."""
        import tempfile

        name = f"asynctrack-probe-{os.urandom(4).hex()}.txt"
        empty = await self._io.call(tempfile.NamedTemporaryFile)
        try:
            await self.upload(empty.name, name)
        finally:
            await self._io.call(empty.close)
        await self.delete_artifacts(name)

    # ── down

    @abstractmethod
    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What is in a folder (None: the root), sorted; paths are from the root. Empty for a file, or for nothing."""

    async def download_artifacts(self, path: str = "", dst_path: str | os.PathLike[str] | None = None) -> str:
        """Copy a file, or a folder with all that is in it ("": everything), to this machine; returns where it is.

        That is ``path`` below ``dst_path``, which is created; None: below a new temporary folder. Nothing is written
        outside it, whatever the server says. Raises `NotFoundError`.
        """
        path = artifact_folder(path)
        root = await self._io.call(_destination, dst_path)
        try:
            entries = await self.list_artifacts(path)
            if not entries and path:
                await self._download(path, root)
            while entries:
                entry = entries.pop()
                if entry.is_dir:
                    entries += await self.list_artifacts(entry.path)
                else:
                    await self._download(entry.path, root)
        except BaseException:
            if dst_path is None:
                _remove_folder(root)
            raise
        return os.path.join(root, path) if path else root

    async def _download(self, path: str, root: str) -> None:
        destination = os.path.join(root, check_artifact_path(path))
        temporary = os.path.join(os.path.dirname(destination), f"{RESERVED_PREFIX}{os.urandom(8).hex()}")
        try:
            await self._io.call(make_folder_inside, os.path.dirname(destination), root)
            await self._fetch(path, temporary)
            await self._io.call(os.replace, temporary, destination)
        except OSError as error:
            reason = f"{error.filename or destination}: {error.strerror or error}"
            raise UnavailableError(
                f"artifact {path!r} of {self.uri} cannot be written to this disk: {reason}"
            ) from error
        finally:
            _remove(temporary)

    @abstractmethod
    async def _fetch(self, path: str, destination: str) -> None:
        """Write one artifact to ``destination``. Raises `NotFoundError`, OSError."""

    @abstractmethod
    async def delete_artifacts(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it. What is not there is no error."""


def _files_of(folder: str) -> list[files.SourceFile]:
    try:
        return list(files.files_below(folder))
    except OSError as error:
        raise files.source_error(error, folder) from error


def _destination(dst_path: str | os.PathLike[str] | None) -> str:
    if dst_path is None:
        import tempfile

        return tempfile.mkdtemp(prefix="artifacts-")
    root = os.path.abspath(dst_path)
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{root}: {error.strerror}; choose another dst_path") from error
    return root


def make_folder_inside(folder: str, root: str) -> None:
    """Create a folder below ``root``. Raises `RefusedError` where a link on the way leads out of it; OSError."""
    check_inside(folder, os.path.realpath(root))
    os.makedirs(folder, exist_ok=True)


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)


def _remove_folder(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the usual case: it has been renamed


def _first(errors: Iterable[Exception], limit: int = 3) -> str:
    texts = [str(error) for error in errors]
    return "; ".join(texts[:limit]) + (f"; and {len(texts) - limit} more" if len(texts) > limit else "")
