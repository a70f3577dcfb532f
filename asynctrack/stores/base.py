"""The interface of a store, `AbstractStore`, and the batches that the engine gives it.

To write a store, subclass `AbstractStore` and inherit `asynctrack.testing.StoreContract` in a test (docs/stores.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.constants import ViewType
from asynctrack.errors import NotFoundError, RefusedError
from asynctrack.stores.batch import Batch, RecordBlock, Refusal
from asynctrack.stores.columns import ReadsColumns
from asynctrack.stores.io import InlineIO, StoreIO
from asynctrack.stores.points import Point

if TYPE_CHECKING:
    from asynctrack.entities import Experiment, Metric, Run, RunInfo

__all__ = ["AbstractStore", "Batch", "Limits", "Page", "Point", "RecordBlock", "Refusal", "RunSpec"]


class Limits(NamedTuple):
    """The most that one `log_batch` call may contain: metric points, params, tags, all of these together
    (``entities``), and about how many ``bytes``."""

    metrics: int = 1000
    params: int = 100
    tags: int = 100
    entities: int = 1000
    bytes: int = 1_000_000


class RunSpec(NamedTuple):
    """Everything needed to create a run. It is kept in the journal, so another program can create the run later.

    ``uid``: 32 lower-case hex digits, unique to this ``start_run``. A store that lets the client choose run ids uses it
    as the run id. Other stores keep it in a tag, so that a run is found again when the answer to its creation was lost.

    ``run_id``: set if the run exists already and is logged to again.

    ``experiment_id``, ``experiment_name``: at most one is set; neither is the default experiment. A named experiment is
    created if it is missing.

    ``start_time``: ms since the epoch. ``tags`` must not be changed.
    """

    uid: str
    run_id: str | None = None
    experiment_id: str | None = None
    experiment_name: str | None = None
    run_name: str | None = None
    user_id: str = ""
    start_time: int = 0
    tags: dict[str, str] = {}  # noqa: RUF012  # a NamedTuple's default, never changed


class Page(NamedTuple):
    """One page of a search. ``token`` is the ``page_token`` of the next page, None on the last page."""

    items: list[Any]
    token: str | None = None


class AbstractStore(ReadsColumns, ABC):
    """Base class of every store: the place where runs and their events are kept.

    The methods are coroutines that block only through ``io``. The engine awaits them on its event loop; blocking
    callers run them with `asynctrack.stores.io.drive`. They raise subclasses of `StoreError` only. The engine reports
    any other exception as a bug in the store, and tries again later. Methods may be called for several runs at once,
    and for one run with up to ``overlap`` batches at once.
    """

    #: how the store blocks; the engine replaces it at interpreter exit. Stores that never block need not set it
    io: StoreIO = InlineIO()
    #: gives access to the artifacts of a tracking server (`asynctrack.artifacts.proxied.ArtifactClient`); None for
    #: other stores
    client: Any = None
    #: canonical URI, without credentials: it is written into spools, logs and messages
    uri: str
    limits: Limits = Limits()
    #: True if the store chooses run ids; otherwise the id of a new run is its ``spec.uid``
    chooses_run_ids: bool = False
    #: how many batches of one run may be in flight at once; params, tags, start and end keep their order in any case
    overlap: int = 1
    #: most requests in flight at once; the engine measures which number up to that works best. None: no limit, for a
    #: store that has a lock or a queue of its own
    most_requests: int | None = None
    #: set by the engine with ``durability="system"``: a batch must survive a crash of the machine once `log_batch`
    #: returns
    durable: bool = False
    #: True if every store opened at ``uri`` is equivalent to this one; they then share one engine
    uri_says_all: bool = False
    #: set by the engine when the time for closing is short: seconds that one call may wait for an answer
    patience: float | None = None
    #: True if the keys "a" and "a/b" cannot both exist in one run, because they are a file and a folder
    keys_are_paths: bool = False

    def over(self, io: StoreIO) -> AbstractStore:
        """The same store with another ``io``: `InlineIO` for blocking callers, `ThreadedIO` for an event loop.

        Called when a user passes a store object to a service: once for the service, once for the engine. A store that
        never blocks returns itself, as here. Other stores return a copy.
        """
        return self

    # ── keys: pure, called in the logging thread

    @abstractmethod
    def check_key(self, kind: str, key: str) -> None:
        """Raise `InvalidInputError` for a key that this store can never hold. The message says what is allowed.

        ``kind`` is "metric", "param" or "tag".
        """

    # ── delivery: called by the engine

    @abstractmethod
    async def create_run(self, spec: RunSpec) -> RunInfo:
        """Create the run, or set the existing run ``spec.run_id`` to RUNNING again. A second call with the same spec
        changes nothing. Raises `NotFoundError` for a run or experiment that does not exist, `RefusedError` for a
        deleted one."""

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        """The run that `create_run` made from this ``spec``, perhaps for a process that died; None if there is none.

        Called before `create_run` is repeated, if the store chooses run ids.
        """
        try:
            return await self.get_run_info(spec.run_id or spec.uid)
        except NotFoundError:
            return None

    async def takes_inputs(self) -> bool:
        """Whether it keeps the datasets and models that runs use and make, and may be told of them more than once (see
        `asynctrack.stores.inputs.KeepsInputs`). Raises `StoreError` where it cannot say now."""
        return False

    async def probe(self, run_id: str) -> None:  # optional: for stores that raise suspicious errors
        """Write something harmless to the run. Raises `StoreError` if the store cannot write at the moment.

        Called when one batch fails again and again: if the probe succeeds, an event in the batch is the cause.
        """

    async def bookmark(self, run_id: str, batch: Batch) -> Any:
        """The position of the store before ``batch``: any value that msgpack can encode.

        It is kept in the cursor while the batch is in flight, and passed to `log_batch` if the batch is sent again and
        may be stored already. None if sending a batch twice changes nothing.
        """
        return None

    @abstractmethod
    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        """Store a batch. With a ``bookmark``, some events may be stored already, after that position: store the rest.

        Returns the events that are refused for good; all others are stored. Raises `RefusedError` if the store cannot
        tell which event is refused (the engine halves the batch), `UnavailableError` to be called again later,
        `NotFoundError` if the run does not exist (its start may still wait in the spool of another program).
        """

    @abstractmethod
    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        """Set the given fields. ``status``: a `RunStatus` name. ``end_time``: ms since the epoch. Raises
        `NotFoundError`; `RefusedError` for a deleted run."""

    # ── reading and managing

    @abstractmethod
    async def get_run(self, run_id: str) -> Run:
        """The run with its latest metrics. Raises `NotFoundError`."""

    async def get_tags(self, run_id: str) -> dict[str, str]:
        """The run's tags alone. Raises `NotFoundError`. Override it if reading the rest of the run takes long."""
        return dict((await self.get_run(run_id)).data.tags)

    async def is_gone(self) -> bool:
        """Whether nothing at all is there, as where a file system is not mounted: what is not found may come back."""
        return False

    def experiment_page(self, experiment_id: str) -> str | None:
        """The address of an experiment's page in a browser; None for a store that has none."""
        return None

    async def get_run_info(self, run_id: str) -> RunInfo:
        """The run without its data. Raises `NotFoundError`.

        Override it if reading the data takes long: the file store reads all points of a run to find the latest ones.
        """
        return (await self.get_run(run_id)).info

    @abstractmethod
    async def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Runs that match a filter in MLflow's syntax; the latest start first, unless ``order_by`` is given."""

    async def outline_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """As `search_runs`, for a list that shows metrics: params, tags, inputs and outputs may be missing. Override it
        if reading these takes long."""
        return await self.search_runs(
            experiment_ids, filter_string, run_view_type, max_results, order_by, page_token=page_token
        )

    async def list_run_infos(
        self,
        experiment_id: str,
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Page:
        """The `RunInfo` of an experiment's runs, the latest start first. Override it if reading the data takes long."""
        found = await self.search_runs([experiment_id], "", run_view_type, max_results, (), page_token)
        return Page([run.info for run in found.items], found.token)

    @abstractmethod
    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every point of one metric, in the order of the store; empty if the run has no such metric."""

    @abstractmethod
    async def delete_run(self, run_id: str) -> None:
        """Mark a run deleted. Raises `NotFoundError`."""

    @abstractmethod
    async def restore_run(self, run_id: str) -> None:
        """Mark a deleted run active. Raises `NotFoundError`."""

    @abstractmethod
    async def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag of a run. Raises `NotFoundError` if the run or the tag does not exist."""

    @abstractmethod
    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        """Create an experiment and return its id. Raises `AlreadyExistsError`, also when a deleted experiment has the
        name."""

    @abstractmethod
    async def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment, also a deleted one. Raises `NotFoundError`."""

    @abstractmethod
    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        """An experiment, also a deleted one, or None if no experiment has that name."""

    @abstractmethod
    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Experiments that match a filter in MLflow's syntax; the last created first, unless ``order_by`` is given."""

    @abstractmethod
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an active experiment another name. Raises `NotFoundError`, `AlreadyExistsError`."""

    @abstractmethod
    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs deleted. Raises `NotFoundError`, also for a deleted one."""

    @abstractmethod
    async def restore_experiment(self, experiment_id: str) -> None:
        """Mark a deleted experiment and its runs active. Raises `NotFoundError`, also for an active one."""

    @abstractmethod
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an experiment."""

    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an experiment. Raises `NotFoundError`; `RefusedError` where there is no way to do it."""
        raise RefusedError(f"{self.uri} cannot remove a tag of an experiment")

    async def aclose(self) -> None:  # optional: most stores hold nothing
        """Close connections and files."""
