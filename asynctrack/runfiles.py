"""Artifacts of a run: put aside at once, uploaded in the background. The verbs, and the receipt they return."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrack.errors import DeliveryError, FlushTimeoutError, InvalidInputError, SpoolError, SpoolFullError

if TYPE_CHECKING:
    from asynctrack.artifacts.content import Content
    from asynctrack.artifacts.snapshot import Snapshot, SnapshotMode
    from asynctrack.engine.receipts import Receipt
    from asynctrack.runlog import RunState

    #: puts something aside in the folder it is given
    PutAside = Callable[[str], Snapshot]

__all__ = ["ArtifactLog", "ArtifactReceipt"]

logger = logging.getLogger("asynctrack")

T = TypeVar("T")


class ArtifactReceipt:
    """What becomes of an artifact: `wait` for it in a thread, or await it on asyncio or trio. Nobody has to."""

    __slots__ = ("_names", "_receipt", "_state", "artifact_paths")

    def __init__(self, state: RunState, receipt: Receipt[Any], logged: list[tuple[str, str]]) -> None:
        self._state = state
        self._receipt = receipt
        self._names = [name for name, _ in logged]
        #: where the run has it, or them, from its artifact root
        self.artifact_paths = [path for _, path in logged]

    def __repr__(self) -> str:
        return f"<ArtifactReceipt {', '.join(self.artifact_paths)}: {'done' if self.done else 'on its way'}>"

    @property
    def done(self) -> bool:
        """Whether it is stored, or refused."""
        return self._receipt.done

    def wait(self, timeout: float | None = None) -> None:
        """Block until it is stored, for at most ``timeout`` seconds. Raises FlushTimeoutError then, and DeliveryError
        where it was refused; the message says why."""
        from asynctrack.run import wait_blocking

        self._check(wait_blocking(self._state, self._receipt, timeout), timeout)

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._receipt.wait_async().__await__()
        self._check(True, None)

    def _check(self, done: bool, timeout: float | None) -> None:
        what = ", ".join(self.artifact_paths)
        if not done:
            raise FlushTimeoutError(
                f"run {self._state.run_id}: artifact {what} is not stored after {timeout:g} s; it is kept in "
                f"{self._state.engine.journal.spool.path or 'a temporary folder'} and goes on being uploaded"
            )
        self._receipt.result()
        for name in self._names:
            reason = self._state.engine.artifact_failure(self._state.number, name)
            if reason is not None:
                raise DeliveryError(f"run {self._state.run_id}: artifact {what} was refused: {reason}")


class ArtifactLog:
    """The artifact verbs of a run.

    Each puts the content aside in the spool and returns: afterwards the file may be overwritten or deleted, and what is
    put aside survives the process. It is uploaded beside everything else; the run's end waits for it. From any thread.
    A file is copied (see ``snapshot``), which blocks for as long as the disk takes: 0.2 ms for 1 kB, a second a
    gigabyte.

    Raises InvalidInputError for a path or an object that can never be stored, RunEndedError after the run's end,
    SpoolFullError where there is no room (with ``spool_full="drop_new"`` it is counted as dropped instead).
    """

    __slots__ = ("_state",)

    _state: RunState

    def log_artifact(
        self,
        local_path: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        snapshot: SnapshotMode | None = None,
    ) -> ArtifactReceipt:
        """Log a file under its own name (or a folder as one) in the run's artifact folder ``artifact_path``.

        ``snapshot``: "copy", or "link", which takes no time whatever the size, but then the file must not be written
        into any more, only deleted or replaced. Default: `Settings.snapshot`.
        """
        from asynctrack.artifacts.paths import artifact_folder, check_artifact_path, join

        source = self._source(local_path)
        target = self._saying_run(
            lambda: check_artifact_path(join(artifact_folder(artifact_path), os.path.basename(source)))
        )
        return self._log_path(source, target, snapshot)

    def log_artifacts(
        self,
        local_dir: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        snapshot: SnapshotMode | None = None,
    ) -> ArtifactReceipt:
        """Log everything in a folder, sub-folders included, into the run's artifact folder ``artifact_path``."""
        from asynctrack.artifacts.paths import artifact_folder

        source = self._source(local_dir)
        if not os.path.isdir(source):
            raise InvalidInputError(f"run {self._state.run_id}: log_artifacts takes a folder, and {source} is none")
        return self._log_path(source, self._saying_run(lambda: artifact_folder(artifact_path)), snapshot)

    def log_text(self, text: str, artifact_file: str) -> ArtifactReceipt:
        """Log text as a file, in UTF-8."""
        from asynctrack.artifacts.content import text_content

        return self._log_content(lambda: [text_content(text, artifact_file)])

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> ArtifactReceipt:
        """Log a dictionary as YAML (.yml, .yaml) or JSON (any other ending)."""
        from asynctrack.artifacts.content import dict_content

        return self._log_content(lambda: [dict_content(dictionary, artifact_file)])

    def log_figure(
        self, figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None
    ) -> ArtifactReceipt:
        """Log a matplotlib or plotly figure in the format that the file's ending says."""
        from asynctrack.artifacts.content import figure_content

        return self._log_content(lambda: [figure_content(figure, artifact_file, save_kwargs)])

    def log_image(
        self,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
    ) -> ArtifactReceipt:
        """Log a NumPy array, a PIL image or the like (needs Pillow): as ``artifact_file``, or as the image of one
        ``step`` under ``key``, which MLflow's UI shows in a row."""
        from asynctrack.artifacts.images import LOGGED_IMAGES_TAG, image_content, stepped_image_contents

        if (artifact_file is None) == (key is None):
            raise InvalidInputError(f"run {self._state.run_id}: log_image takes either artifact_file or key")
        if artifact_file is not None:
            return self._log_content(lambda: [image_content(image, artifact_file)])
        receipt = self._log_content(lambda: stepped_image_contents(image, key or "", step or 0, timestamp))
        self._state.frame("tags", {LOGGED_IMAGES_TAG: "True"})
        return receipt

    # ── inside

    def _source(self, path: str | os.PathLike[str]) -> str:
        from asynctrack.artifacts.paths import path_text

        return os.path.abspath(self._saying_run(lambda: path_text(path)))

    def _log_path(self, source: str, target: str, mode: SnapshotMode | None) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import take_snapshot

        journal = self._state.engine.journal
        settings = self._state.engine.settings
        self._state.check_open_now()

        def put_aside(folder: str) -> Snapshot:
            home = os.path.dirname(journal.spool.path) if journal.spool.path else None
            return take_snapshot(
                source,
                folder,
                mode or settings.snapshot,
                room=journal.room(),
                leave_out=home,
                durable=settings.durability == "system",
            )

        return self._log([(put_aside, target)])

    def _log_content(self, make: Callable[[], list[Content]]) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import write_snapshot

        journal = self._state.engine.journal
        durable = self._state.engine.settings.durability == "system"
        self._state.check_open_now()

        def put_aside(data: bytes) -> PutAside:
            return lambda folder: write_snapshot(data, folder, room=journal.room(), durable=durable)

        return self._log([(put_aside(content.data), content.artifact_file) for content in self._saying_run(make)])

    def _saying_run(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except InvalidInputError as error:
            raise InvalidInputError(f"run {self._state.run_id}: {error}") from None
        except SpoolError as error:
            error.args = (f"run {self._state.run_id}: {error}",)
            raise

    def _log(self, wanted: list[tuple[PutAside, str]]) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import remove_snapshot

        state = self._state
        folder = state.engine.journal.spool.artifacts()
        logged = []
        for put_aside, target in wanted:
            snapshot = self._put_aside(put_aside, folder, target)
            if snapshot is None:
                continue
            kept = False
            try:
                kept = state.artifact(snapshot, target)
            finally:
                if not kept:
                    remove_snapshot(snapshot, folder)
            if kept:
                state.engine.journal.put_aside(snapshot.bytes)
                logged.append((snapshot.name, target))
        if len(logged) < len(wanted):
            from asynctrack.engine.receipts import Receipt

            lost: Receipt[Any] = Receipt()
            lost.fail(DeliveryError(f"run {state.run_id}: the artifact was dropped, because the spool was full"))
            return ArtifactReceipt(state, lost, logged or [("", target) for _, target in wanted])
        return ArtifactReceipt(state, state.engine.uploaded(state.number), logged)

    def _put_aside(self, put_aside: PutAside, folder: str, target: str) -> Snapshot | None:
        """Apply ``spool_full`` where there is no room; None: dropped."""
        from asynctrack.artifacts.snapshot import NoRoomError

        state = self._state
        journal, settings = state.engine.journal, state.engine.settings
        waits = False
        while True:
            try:
                return self._saying_run(lambda: put_aside(folder))
            except SpoolFullError as error:
                fits_never = isinstance(error, NoRoomError) and error.needed > settings.max_spool_bytes
                if settings.spool_full == "raise" or (settings.spool_full == "block" and fits_never):
                    raise
                if settings.spool_full == "drop_new":
                    journal.dropped += 1
                    logger.error("asynctrack: run %s: artifact %s is dropped: %s", state.run_id, target, error)
                    return None
                if not waits:
                    logger.error("asynctrack: run %s: artifact %s waits for room: %s", state.run_id, target, error)
            waits = True
            journal.wait_for_room()
            state.check_open_now()
