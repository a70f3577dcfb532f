"""The artifact verbs of a run, and the receipt they return. A snapshot is taken at once and uploaded later."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, SupportsIndex, TypeVar, get_args

from asynctrack.arguments import moment_of, timeout_of
from asynctrack.errors import (
    AsynctrackError,
    DeliveryError,
    FlushTimeoutError,
    InvalidInputError,
    InvalidTypeError,
    SpoolError,
    SpoolFullError,
)
from asynctrack.platforms import check_file_name, why
from asynctrack.runs.waiting import wait_blocking
from asynctrack.settings import SnapshotOption
from asynctrack.stores.uri import own_paths
from asynctrack.values import shortened, to_step

if TYPE_CHECKING:
    from asynctrack.artifacts.content import Content
    from asynctrack.artifacts.snapshot import Snapshot, SnapshotMode
    from asynctrack.delivery.receipts import Receipt
    from asynctrack.runs.state import RunState

    #: takes a snapshot of something in the folder it is given
    PutAside = Callable[[str], Snapshot]

__all__ = ["ArtifactLog", "ArtifactReceipt"]

logger = logging.getLogger("asynctrack")

T = TypeVar("T")
P = ParamSpec("P")


class ArtifactReceipt:
    """Tells when an artifact is stored: `wait` for it in a thread, or await it
    on asyncio or trio. Both are optional.

    Awaiting raises what `wait` raises.
    """

    __slots__ = ("_names", "_receipt", "_state", "artifact_paths")

    def __init__(self, state: RunState, receipt: Receipt[Any], logged: list[tuple[str, str]]) -> None:
        self._state = state
        self._receipt = receipt
        self._names = [name for name, _ in logged]
        #: paths of the files, relative to the run's artifact root
        self.artifact_paths = [path for _, path in logged]

    def __repr__(self) -> str:
        return f"<ArtifactReceipt {', '.join(self.artifact_paths)}: {'done' if self.done else 'on its way'}>"

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"the receipt of {', '.join(self.artifact_paths)} cannot be pickled: wait for it in the process that has "
            "logged it"
        )

    @property
    def done(self) -> bool:
        """Whether the artifact is stored or refused."""
        return self._receipt.done

    def wait(self, timeout: float | None = None) -> None:
        """Block this thread until the artifact is stored. Raises
        FlushTimeoutError after ``timeout`` seconds (None: no limit),
        DeliveryError with the reason if the artifact was refused."""
        timeout = timeout_of(timeout)
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


def _saying_limits(verb: Callable[P, T]) -> Callable[P, T]:
    """Have a verb raise SpoolError where no file can be opened, for a module that is imported only now, say."""

    @wraps(verb)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except OSError as error:
            if isinstance(error, AsynctrackError):
                raise
            raise SpoolError(error.errno, f"nothing was logged: {why(error)}") from error

    return called


class ArtifactLog:
    """The artifact verbs of a run.

    Each takes a snapshot of the content in the spool and returns. After that
    the file may be overwritten or deleted, and the snapshot survives the
    process. It is uploaded in the background; the run's end waits for it. Any
    thread may call. The copy blocks for as long as the disk takes: 0.2 ms for
    1 kB, about a second for a gigabyte.

    Raises InvalidInputError for a path or an object that can never be stored,
    RunEndedError after the run's end, SpoolError when the snapshot cannot be
    written, SpoolFullError when there is no room for it (with
    ``spool_full="drop_new"`` the artifact is dropped and counted instead).
    """

    __slots__ = ("_state",)

    _state: RunState

    @_saying_limits
    def log_artifact(
        self,
        local_path: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        snapshot: SnapshotMode | None = None,
    ) -> ArtifactReceipt:
        """Log a file (or a folder) under its own name in the run's artifact
        folder ``artifact_path``.

        ``snapshot``: "copy" or "link", default `Settings.snapshot`. A link
        takes no time for any size, but the file may then only be deleted or
        replaced, not written to.
        """
        from asynctrack.artifacts.paths import artifact_folder, check_artifact_path, join

        source = self._source(local_path)
        target = self._saying_run(
            lambda: check_artifact_path(join(artifact_folder(artifact_path), os.path.basename(source)))
        )
        return self._log_path(source, target, snapshot)

    @_saying_limits
    def log_artifacts(
        self,
        local_dir: str | os.PathLike[str],
        artifact_path: str | None = None,
        *,
        snapshot: SnapshotMode | None = None,
    ) -> ArtifactReceipt:
        """Log everything in a folder, sub-folders included, into the run's
        artifact folder ``artifact_path``."""
        from asynctrack.artifacts.paths import artifact_folder

        source = self._source(local_dir)
        if not os.path.isdir(source):
            raise InvalidInputError(
                f"run {self._state.run_id}: log_artifacts takes a folder, and {shortened(source, 1000)} is not one"
            )
        return self._log_path(source, self._saying_run(lambda: artifact_folder(artifact_path)), snapshot)

    @_saying_limits
    def log_text(self, text: str, artifact_file: str) -> ArtifactReceipt:
        """Log text as a file, in UTF-8."""
        from asynctrack.artifacts.content import text_content

        return self._log_content(lambda: [text_content(text, artifact_file)])

    @_saying_limits
    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> ArtifactReceipt:
        """Log a dictionary as YAML (.yml, .yaml) or JSON (any other ending)."""
        from asynctrack.artifacts.content import dict_content

        return self._log_content(lambda: [dict_content(dictionary, artifact_file)])

    @_saying_limits
    def log_figure(
        self, figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None
    ) -> ArtifactReceipt:
        """Log a matplotlib or plotly figure. The ending of ``artifact_file``
        chooses the format."""
        from asynctrack.artifacts.content import figure_content

        return self._log_content(lambda: [figure_content(figure, artifact_file, save_kwargs)])

    @_saying_limits
    def log_image(
        self,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
    ) -> ArtifactReceipt:
        """Log a NumPy array or a PIL image (needs Pillow).

        With ``artifact_file`` it is one file. With ``key`` it is the image of
        one ``step`` (default 0) at ``timestamp`` (ms since the epoch, default
        now); MLflow's UI shows the images of a key in a row.
        """
        from asynctrack.artifacts.images import LOGGED_IMAGES_TAG, image_content, stepped_image_contents

        is_step = key is not None or step is not None or timestamp is not None
        if (artifact_file is None) != is_step or (is_step and key is None):
            raise InvalidTypeError(
                f"run {self._state.run_id}: log_image takes either artifact_file, or key with a step and a timestamp"
            )
        if artifact_file is not None:
            return self._log_content(lambda: [image_content(image, artifact_file)])
        at, when = (
            self._saying_run(lambda: to_step(key, 0 if step is None else step)),
            self._saying_run(lambda: moment_of("timestamp", timestamp, time.time_ns() // 1_000_000)),
        )
        receipt = self._log_content(lambda: stepped_image_contents(image, "" if key is None else key, at, when))
        self._state.frame("tags", {LOGGED_IMAGES_TAG: "True"})
        return receipt

    # ── inside

    def _source(self, path: str | os.PathLike[str]) -> str:
        from asynctrack.artifacts.paths import path_text

        text = self._saying_run(lambda: path_text(path))
        if not text:
            raise InvalidInputError(f"run {self._state.run_id}: the path of what is to be logged is empty")
        self._saying_run(lambda: check_file_name("the path", text))
        return os.path.abspath(text)

    def _log_path(self, source: str, target: str, mode: SnapshotMode | None) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import take_snapshot

        journal = self._state.engine.journal
        settings = self._state.engine.settings
        if mode is not None and not (isinstance(mode, str) and mode in get_args(SnapshotOption)):
            legal = ", ".join(get_args(SnapshotOption))
            raise InvalidInputError(f"run {self._state.run_id}: snapshot={shortened(mode)}: it must be one of {legal}")
        self._state.check_open_now()

        def put_aside(folder: str) -> Snapshot:
            homes = [os.path.dirname(journal.spool.path)] if journal.spool.path else []
            return take_snapshot(
                source,
                folder,
                mode or settings.snapshot,
                room=journal.room(),
                leave_out=[*homes, *own_paths(self._state.engine.store.uri)],
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
        except (InvalidInputError, SpoolError) as error:
            error.args = (f"run {self._state.run_id}: {error}",)
            raise

    def _log(self, wanted: list[tuple[PutAside, str]]) -> ArtifactReceipt:
        for _, target in wanted:
            if not target.isascii() and own_paths(self._state.engine.store.uri):
                self._saying_run(lambda: check_file_name("artifact path", target))  # noqa: B023  # called here
        with self._state.at_work():
            return self._log_into_spool(wanted)

    def _log_into_spool(self, wanted: list[tuple[PutAside, str]]) -> ArtifactReceipt:
        from asynctrack.artifacts.snapshot import remove_snapshot

        state = self._state
        folder = state.engine.journal.spool.artifacts()
        logged = []
        for put_aside, target in wanted:
            snapshot = self._put_aside(put_aside, folder, target)
            if snapshot is None:
                continue
            kept = False
            state.engine.journal.put_aside(snapshot.name)
            try:
                kept = state.artifact(snapshot, target)
            finally:
                if not kept:
                    remove_snapshot(snapshot, folder)
                    state.engine.journal.budget.drop_snapshot(snapshot.name)
            if kept:
                logged.append((snapshot.name, target))
        if len(logged) < len(wanted):
            from asynctrack.delivery.receipts import Receipt

            lost: Receipt[Any] = Receipt()
            lost.fail(DeliveryError(f"run {state.run_id}: the artifact was dropped, because the spool was full"))
            return ArtifactReceipt(state, lost, logged or [("", target) for _, target in wanted])
        return ArtifactReceipt(state, state.engine.uploaded(state.number), logged)

    def _put_aside(self, put_aside: PutAside, folder: str, target: str) -> Snapshot | None:
        """Take a snapshot. When there is no room, do what ``spool_full`` says; None if the artifact was dropped."""
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
                    journal.drop()
                    logger.error("asynctrack: run %s: artifact %s is dropped: %s", state.run_id, target, error)
                    return None
                if not waits:
                    logger.error("asynctrack: run %s: artifact %s waits for room: %s", state.run_id, target, error)
            waits = True
            journal.wait_for_room()
            state.check_open_now()
