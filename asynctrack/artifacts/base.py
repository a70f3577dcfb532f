"""What every place for artifacts can do, and how whole folders go there and back."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable

from asynctrack.artifacts import files
from asynctrack.artifacts.paths import RESERVED_PREFIX, artifact_folder, check_artifact_path, join, path_text
from asynctrack.entities import FileInfo
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError, UnavailableError
from asynctrack.platforms import check_folder_name
from asynctrack.stores.file.files import check_inside
from asynctrack.stores.io import StoreIO
from asynctrack.stores.keys import shorten

__all__ = ["ArtifactRepository", "make_folder_inside"]

#: folders within folders; a server could say that each holds another
_MOST_FOLDERS = 200


class _OwnDiskError(UnavailableError):
    """An artifact cannot be written to this machine."""


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
        #: set by the engine: raises where the run's store is away now. On the same disk, what is written is lost then
        self.check_store: Callable[[], Awaitable[None]] | None = None
        self._io = io

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    async def follows_its_run(self) -> bool:
        """Whether nothing is written where the run's own folder, which the store has made, is not there."""
        return False

    # ── up

    async def log_artifact(
        self,
        local_path: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        leave_out: Collection[str] = (),
    ) -> None:
        """Store a file, under its own name in the folder ``artifact_path``; a folder is stored as that sub-folder."""
        source = _absolute(local_path)
        target = join(artifact_folder(artifact_path), os.path.basename(source))
        if await self._io.call(os.path.isdir, source):
            await self.log_artifacts(source, target, leave_out=leave_out)
        else:
            await self.upload(source, target)

    async def log_artifacts(
        self,
        local_dir: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        done: set[str] | None = None,
        leave_out: Collection[str] = (),
    ) -> None:
        """Store everything in a folder, sub-folders included, in the folder ``artifact_path``. Where there are folders
        (on this machine), those in which nothing is are made too.

        ``done`` lists what need not be stored, and is added to: give the same set to the next attempt and it goes on
        where this one stopped. A file that is refused keeps none of the others back: the `RefusedError` comes at the
        end and names it. ``leave_out``: files and folders in it that are not stored.
        """
        source, folder = _absolute(local_dir), artifact_folder(artifact_path)
        done = set() if done is None else done
        refused: list[Exception] = []
        found, empty = await self._io.call(_files_of, source, leave_out)
        for relative in empty:
            await self._make_folder("/".join(part for part in (folder, relative) if part))
        for file in found:
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

    async def _make_folder(self, path: str) -> None:  # noqa: B027  # servers have only files: nothing to do
        """Make a folder in which nothing is ("": the root), where there are folders."""

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
        outside it, whatever the server says. Where single ones cannot be fetched the others are, and the error at the
        end names them. Raises `NotFoundError`.
        """
        path = artifact_folder(path)
        root = await self._io.call(_destination, dst_path)
        failed: dict[str, StoreError] = {}
        fetched = 0
        try:
            entries = await self.list_artifacts(path)
            if not entries and path:
                await self._download_named(path, root)
            while entries:
                entry = entries.pop()
                if entry.is_dir and entry.path.count("/") >= _MOST_FOLDERS:
                    raise RefusedError(f"{self.uri} lists folders within folders without an end: {entry.path[:80]}…")
                try:
                    if entry.is_dir:
                        inside = await self.list_artifacts(entry.path)
                        if not inside:
                            await self._io.call(_make_empty, os.path.join(root, check_artifact_path(entry.path)), root)
                        entries += inside
                    else:
                        await self._download(entry.path, root)
                        fetched += 1
                except StoreError as error:
                    failed[entry.path] = await self._its_own_fault(entry.path, error)
            if failed and not fetched:
                raise await self._incomplete(path, failed, "")
        except BaseException:
            if dst_path is None:
                _remove_folder(root)
            raise
        if failed:
            raise await self._incomplete(path, failed, f". The others ({fetched}) are in {root}")
        return os.path.join(root, path) if path else root

    async def _download_named(self, path: str, root: str) -> None:
        try:
            await self._download(path, root)
        except StoreError as error:
            raise await self._its_own_fault(path, error) from error

    async def _its_own_fault(self, path: str, error: StoreError) -> StoreError:
        """What is wrong with one artifact. Raises what is wrong with more than that: the store is away, the disk full.

        MLflow's servers before 3.11 fail (500) where an artifact is not there, and at names that they cannot serve some
        lose the connection: only the folder above tells these from a server in trouble.
        """
        if isinstance(error, _OwnDiskError) or error.held:
            raise error
        if not error.retryable:
            return error
        beside = await self.list_artifacts(path.rpartition("/")[0])
        if any(entry.path == path for entry in beside):
            return error
        return NotFoundError(f"no artifact {shorten(path)} in {self.uri}")

    async def _incomplete(self, path: str, failed: dict[str, StoreError], rest: str) -> StoreError:
        """The error for a folder of which some artifacts could not be fetched, by path."""
        kinds = {type(error) for error in failed.values()}
        kind = kinds.pop() if len(kinds) == 1 else UnavailableError
        reasons = _first(f"{shorten(name)}: {error}" for name, error in failed.items())
        where = shorten(path) if path else "the root"
        return kind(
            f"{len(failed)} of the artifacts in {where} of {self.uri} could not be fetched"
            f"{await self._by_whom()}: {reasons}{rest}"
        )

    async def _by_whom(self) -> str:
        """Which server it was, for messages: " from MLflow 2.9.2"; raises nothing."""
        return ""

    async def _download(self, path: str, root: str) -> None:
        destination = os.path.join(root, check_artifact_path(path))
        temporary = os.path.join(os.path.dirname(destination), f"{RESERVED_PREFIX}{os.urandom(8).hex()}")
        try:
            await self._io.call(make_folder_inside, os.path.dirname(destination), root)
            await self._fetch(path, temporary)
            await self._io.call(os.replace, temporary, destination)
        except OSError as error:
            reason = f"{error.filename or destination}: {error.strerror or error}"
            raise _OwnDiskError(
                f"artifact {shorten(path)} of {self.uri} cannot be written to this disk: {reason}"
            ) from error
        finally:
            _remove(temporary)

    @abstractmethod
    async def _fetch(self, path: str, destination: str) -> None:
        """Write one artifact to ``destination``. Raises `NotFoundError`, OSError."""

    @abstractmethod
    async def delete_artifacts(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it. What is not there is no error."""


def _files_of(folder: str, leave_out: Collection[str]) -> tuple[list[files.SourceFile], list[str]]:
    empty: list[str] = []
    try:
        return list(files.files_below(folder, leave_out, empty=empty)), empty
    except OSError as error:
        raise files.source_error(error, folder) from error


def _destination(dst_path: str | os.PathLike[str] | None) -> str:
    if dst_path is None:
        import tempfile

        return tempfile.mkdtemp(prefix="artifacts-")
    text = path_text(dst_path, "dst_path")
    if "\0" in text:
        raise InvalidInputError(f"dst_path {shorten(text)} is not the path of a folder")
    check_folder_name("dst_path", text)
    root = os.path.abspath(text)
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{root}: {error.strerror}; choose another dst_path") from error
    return root


def make_folder_inside(folder: str, root: str) -> None:
    """Create a folder below ``root``. Raises `RefusedError` where a link on the way leads out of it; OSError."""
    check_inside(folder, os.path.realpath(root))
    os.makedirs(folder, exist_ok=True)


def _make_empty(folder: str, root: str) -> None:
    try:
        make_folder_inside(folder, root)
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be made on this disk: {error.strerror}") from error


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


def _first(errors: Iterable[object], limit: int = 3) -> str:
    texts = [str(error) for error in errors]
    return "; ".join(texts[:limit]) + (f"; and {len(texts) - limit} more" if len(texts) > limit else "")
