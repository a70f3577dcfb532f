"""Artifacts in a directory: of a file store, or of a server on a file system that this machine shares."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from asynctrack.artifacts import files
from asynctrack.artifacts.base import ArtifactRepository, make_folder_inside
from asynctrack.artifacts.paths import RESERVED_PREFIX, artifact_folder, check_artifact_path, join
from asynctrack.entities import FileInfo
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError, UnavailableError
from asynctrack.stores.file.files import check_inside, make_folders, unnameable
from asynctrack.stores.io import StoreIO
from asynctrack.stores.keys import shorten

__all__ = ["LocalArtifacts"]


class LocalArtifacts(ArtifactRepository):
    """The directory ``root``, which is created when the first artifact is stored.

    Nothing is written or read outside it: a symbolic link in it that leads out is refused, and left out of listings.
    What is stored gets the permissions of any new file, whatever those of its source are.

    ``store`` is the directory of the run's file store. Where ``root`` lies in it, the run's own folder has to be there:
    its file system may not be mounted, and what is then written in its place is lost (`NotFoundError`). ``beside`` is
    the directory of the run's database, which is never made either (`UnavailableError`). Elsewhere ``check_store`` has
    to say whether the run's store is there.
    """

    def __init__(
        self, uri: str, root: str, io: StoreIO, store: str | None = None, *, beside: str | None = None
    ) -> None:
        super().__init__(uri, io)
        self.root = os.path.abspath(root)
        self._store = store
        self._beside = beside

    async def follows_its_run(self) -> bool:
        return self._store is not None and await self._io.call(self._is_in_the_store)

    def _is_in_the_store(self) -> bool:
        return self._store is not None and _is_below(os.path.dirname(self.root), self._store)

    async def upload(self, local_file: str, artifact_file: str) -> None:
        async with self._while_the_store_is_there():
            await self._upload(local_file, artifact_file)

    @contextlib.asynccontextmanager
    async def _while_the_store_is_there(self) -> AsyncIterator[None]:
        """Where it has gone meanwhile, what was written may stand in its old place, and an error says nothing of the
        artifact: it is written again."""
        try:
            yield
        except (StoreError, InvalidInputError):
            if self.check_store is not None:
                await self.check_store()
            raise
        if self.check_store is not None:
            await self.check_store()

    async def _upload(self, local_file: str, artifact_file: str) -> None:
        target = os.path.join(self.root, check_artifact_path(artifact_file))
        source = await self._io.call(files.open_source, local_file)
        try:
            before = os.fstat(source)
            staged = await self._io.call(self._stage, target)
            try:
                while await self._io.call(files.copy_piece, source, staged.fd):
                    pass
                files.check_unchanged(before, os.fstat(source), local_file)
                await self._io.call(staged.publish, target, self.durable)
            finally:
                staged.close()
        except OSError as error:
            raise files.disk_error(error, target) from error
        finally:
            os.close(source)

    async def _make_folder(self, path: str) -> None:
        target = self._where(artifact_folder(path))
        async with self._while_the_store_is_there():
            try:
                await self._io.call(self._create, target)
            except OSError as error:
                raise files.disk_error(error, target) from error

    def _stage(self, target: str) -> files.StagedFile:
        folder = os.path.dirname(target)
        self._create(folder)
        return files.StagedFile(folder)

    def _create(self, folder: str) -> None:
        self._check_inside(folder)
        if self._is_in_the_store():
            run_folder = os.path.dirname(self.root)
            try:
                make_folders(folder, run_folder)
            except FileNotFoundError as error:
                raise NotFoundError(f"{run_folder} is not there; check that its file system is mounted") from error
        elif self._beside is not None and _is_below(folder, beside := os.path.realpath(self._beside)):
            try:
                make_folders(os.path.realpath(folder), beside)
            except FileNotFoundError as error:
                raise UnavailableError(
                    f"{self._beside} is not there; check that its file system is mounted. Nothing is lost: it is tried "
                    "again"
                ) from error
        else:
            make_folders(folder, Path(folder).anchor)

    def _where(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    def _check_inside(self, path: str) -> None:
        check_inside(path, os.path.realpath(self.root))

    async def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = artifact_folder(path)
        try:
            return await self._io.call(self._list, folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise files.disk_error(error, self._where(folder)) from error
        except UnicodeEncodeError as error:
            raise unnameable(error) from error

    def _list(self, folder: str) -> list[FileInfo]:
        where = self._where(folder)
        self._check_inside(where)
        root, here = os.path.realpath(self.root), os.path.realpath(where)
        found = []
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.name.startswith(RESERVED_PREFIX):
                    continue
                if entry.is_symlink() and not _leads_on(os.path.realpath(entry.path), root, here):
                    continue
                path = join(folder, entry.name)
                size = entry.stat().st_size if entry.is_file() else None
                found.append(FileInfo(path, is_dir=size is None, file_size=size))
        return sorted(found, key=lambda info: info.path)

    async def download_artifacts(self, path: str = "", dst_path: str | os.PathLike[str] | None = None) -> str:
        """As everywhere; but without ``dst_path`` nothing is copied, and what is returned is the artifact itself."""
        path = artifact_folder(path)
        where = self._where(path)
        try:
            await self._io.call(self._check_inside, where)
        except UnicodeEncodeError as error:
            raise unnameable(error) from error
        if await self._io.call(os.path.exists, where):
            if dst_path is None:
                return where
        elif path:
            raise NotFoundError(f"no artifact {shorten(path)} in {self.root}")
        return await super().download_artifacts(path, dst_path)

    async def _download(self, path: str, root: str) -> None:
        if await self._io.call(os.path.isdir, self._where(path)):
            await self._io.call(make_folder_inside, os.path.join(root, path), root)  # one without entries
        else:
            await super()._download(path, root)

    async def _fetch(self, path: str, destination: str) -> None:
        where = self._where(path)
        await self._io.call(self._check_inside, where)
        source = await self._io.call(files.open_source, where)
        try:
            target = await self._io.call(
                os.open, destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            try:
                while await self._io.call(files.copy_piece, source, target):
                    pass
            finally:
                os.close(target)
        finally:
            os.close(source)

    async def delete_artifacts(self, path: str) -> None:
        where = os.path.join(self.root, check_artifact_path(path))
        try:
            await self._io.call(self._delete, where)
        except (FileNotFoundError, NotADirectoryError):
            pass  # it is not there, as was asked
        except OSError as error:
            raise files.disk_error(error, where) from error

    def _delete(self, where: str) -> None:
        self._check_inside(os.path.dirname(where))
        if stat.S_ISDIR(os.lstat(where).st_mode):
            shutil.rmtree(where)
        else:
            os.unlink(where)


def _is_below(path: str, folder: str) -> bool:
    """Whether a path lies in ``folder``, which is a real one."""
    return os.path.realpath(path).startswith(folder.rstrip(os.sep) + os.sep)


def _leads_on(target: str, root: str, folder: str) -> bool:
    """Whether a link in ``folder`` leads to something that exists inside ``root`` and does not contain the folder:
    then following links comes to an end, and never outside. All three are real paths."""
    inside = f"{target}/".startswith(f"{root.rstrip('/')}/")
    return inside and not f"{folder}/".startswith(f"{target}/") and os.path.exists(target)
