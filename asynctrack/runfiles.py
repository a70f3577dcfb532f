"""Artifacts of a run: put aside at once, uploaded in the background. The verbs, and the receipt they return."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrack.errors import DeliveryError, FlushTimeoutError, InvalidInputError, SpoolFullError

if TYPE_CHECKING:
    from asynctrack.artifacts.content import Content
    from asynctrack.artifacts.snapshot import Snapshot, SnapshotMode
    from asynctrack.engine.receipts import Receipt
    from asynctrack.runlog import RunState

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
        self._check(self._receipt.wait(timeout), timeout)

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
        from asynctrack.artifacts.paths import artifact_folder, join

        source = os.path.abspath(local_path)
        target = self._saying_run(lambda: join(artifact_folder(artifact_path), os.path.basename(source)))
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

        source = os.path.abspath(local_dir)
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

        self._state.check_open_now()
        contents = self._saying_run(make)
        durable = self._state.engine.settings.durability == "system"
        return self._log(
            [
                (lambda folder, data=content.data: write_snapshot(data, folder, durable=durable), content.artifact_file)
                for content in contents
            ]
        )

    def _saying_run(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except InvalidInputError as error:
            raise InvalidInputError(f"run {self._state.run_id}: {error}") from None

    def _log(self, wanted: list[Any]) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import remove_snapshot

        state = self._state
        journal = state.engine.journal
        folder = journal.spool.artifacts()
        logged = []
        for put_aside, target in wanted:
            try:
                snapshot: Snapshot = self._saying_run(lambda: put_aside(folder))  # noqa: B023  # called at once
            except SpoolFullError as error:
                if state.engine.settings.spool_full != "drop_new":
                    raise
                journal.dropped += 1
                logger.error("asynctrack: run %s: artifact %s is dropped: %s", state.run_id, target, error)
                continue
            try:
                kept = state.artifact(snapshot, target)
            except BaseException:
                remove_snapshot(snapshot, folder)
                raise
            if kept:
                journal.put_aside(snapshot.bytes)
                logged.append((snapshot.name, target))
            else:
                remove_snapshot(snapshot, folder)
        if len(logged) < len(wanted):
            from asynctrack.engine.receipts import Receipt

            lost: Receipt[Any] = Receipt()
            lost.fail(DeliveryError(f"run {state.run_id}: the artifact was dropped, because the spool was full"))
            return ArtifactReceipt(state, lost, logged or [("", target) for _, target in wanted])
        return ArtifactReceipt(state, state.engine.uploaded(state.number), logged)
