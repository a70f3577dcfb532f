"""What the engine asks of a store, and the batch it hands over.

To write a store of your own, subclass `AbstractStore` and inherit `asynctrack.testing.StoreContract` in a test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asynctrack.constants import ViewType
from asynctrack.errors import NotFoundError
from asynctrack.journal.slots import SLOT_SIZE, all_finite, records
from asynctrack.stores.io import InlineIO, StoreIO

if TYPE_CHECKING:
    from asynctrack.entities import Experiment, Metric, Run, RunInfo

__all__ = ["AbstractStore", "Batch", "Limits", "Page", "Point", "RecordBlock", "Refusal", "RunSpec"]

#: timestamp (ms), step, value; what the journal decodes carries the stream number as a fourth item, which stores ignore
Point = tuple[int, int, float] | tuple[int, int, float, int]


class Limits(NamedTuple):
    """How much of one run a store takes at once."""

    metrics: int = 1000
    params: int = 100
    tags: int = 100
    entities: int = 1000
    bytes: int = 1_000_000


class RunSpec(NamedTuple):
    """All that is needed to create a run, here or, from the journal, later and elsewhere.

    ``uid`` is 32 lower-case hex digits, unique to this ``start_run``: a store whose ids the client may choose uses it
    as the run id; others keep it in a tag, so that a creation whose answer was lost is found again. With ``run_id``
    the run exists already and is taken up again. Of ``experiment_id`` and ``experiment_name`` at most one is set
    (neither: the default experiment); an experiment named but missing is created. ``start_time`` is in ms.
    """

    uid: str
    run_id: str | None = None
    experiment_id: str | None = None
    experiment_name: str | None = None
    run_name: str | None = None
    user_id: str = ""
    start_time: int = 0
    #: not to be changed
    tags: dict[str, str] = {}  # noqa: RUF012  # a NamedTuple's default, never changed


class RecordBlock(NamedTuple):
    """Metric points as they stand in the journal: ``data`` is whole slots (see `asynctrack.journal.slots.records`),
    all of them points of this run's metrics; ``keys`` says which, by stream number."""

    data: bytes
    keys: dict[int, str]

    @property
    def finite(self) -> bool:
        """Whether no value is NaN or ±Inf; may be False for very large ones, too. An eighth of what a look at each
        costs."""
        return all_finite(self.data)

    @property
    def points(self) -> int:
        """How many points."""
        return len(self.data) // SLOT_SIZE


class Batch:
    """Events of one run, in order within each metric, and within params and tags.

    ``metrics`` is what a store reads. ``blocks`` is for one that would rather go through undecoded records itself:
    what stands there has not been decoded into ``metrics`` yet.
    """

    __slots__ = ("_metrics", "blocks", "params", "points", "tags")

    def __init__(
        self,
        metrics: dict[str, list[Point]] | None = None,
        params: Iterable[tuple[str, str]] = (),
        tags: Iterable[tuple[str, str]] = (),
        blocks: Iterable[RecordBlock] = (),
    ) -> None:
        self._metrics = {} if metrics is None else metrics
        self.params = list(params)
        self.tags = list(tags)
        self.blocks = list(blocks)
        #: how many metric points it holds
        self.points = sum(map(len, self._metrics.values())) + sum(block.points for block in self.blocks)

    def __len__(self) -> int:
        return self.points + len(self.params) + len(self.tags)

    def __repr__(self) -> str:
        return f"<Batch of {self.points} points, {len(self.params)} params, {len(self.tags)} tags>"

    @property
    def metrics(self) -> dict[str, list[Point]]:
        """The points of each metric. Not to be changed."""
        blocks, self.blocks = self.blocks, []
        for block in blocks:
            for record in records(block.data):
                self._metrics.setdefault(block.keys[record[3]], []).append(record)
        return self._metrics

    @property
    def decoded(self) -> dict[str, list[Point]]:
        """The points of each metric, without those in ``blocks``, which come behind them."""
        return self._metrics

    def metric_keys(self) -> set[str]:
        """The metrics it has points of."""
        return set(self._metrics).union(*(block.keys.values() for block in self.blocks))

    def add(self, key: str, points: Sequence[Point]) -> None:
        """Add points of one metric."""
        self._metrics.setdefault(key, []).extend(points)
        self.points += len(points)

    def add_block(self, block: RecordBlock) -> None:
        """Add undecoded points."""
        self.blocks.append(block)
        self.points += block.points

    def plus(self, later: Batch) -> Batch:
        """A batch of this one's events and then the later one's."""
        if later._metrics:
            self.metrics  # noqa: B018  # decodes: in a batch the points in ``blocks`` are the last ones
        metrics = {key: list(points) for key, points in self._metrics.items()}
        for key, points in later._metrics.items():
            metrics.setdefault(key, []).extend(points)
        return Batch(metrics, self.params + later.params, self.tags + later.tags, self.blocks + later.blocks)

    def items(self) -> Iterator[tuple[str, str, Any]]:
        """Every event as (kind, key, value): kind is "metric", "param" or "tag", a metric's value its `Point`."""
        for key, value in self.params:
            yield "param", key, value
        for key, points in self.metrics.items():
            for point in points:
                yield "metric", key, point
        for key, value in self.tags:
            yield "tag", key, value

    @classmethod
    def of(cls, items: Iterable[tuple[str, str, Any]]) -> Batch:
        """The batch whose `items` these are."""
        batch = cls()
        for kind, key, value in items:
            if kind == "metric":
                batch.add(key, (value,))
            elif kind == "param":
                batch.params.append((key, value))
            else:
                batch.tags.append((key, value))
        return batch

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches that together hold the same events in the same order."""
        items = list(self.items())
        middle = len(items) // 2
        return Batch.of(items[:middle]), Batch.of(items[middle:])


class Refusal(NamedTuple):
    """One event that a store will never accept, and why."""

    kind: str
    key: str
    value: Any
    reason: str


class Page(NamedTuple):
    """One page of a search; ``token`` asks for the next, None at the end."""

    items: list[Any]
    token: str | None = None


class AbstractStore(ABC):
    """Where batches go.

    Methods are coroutines over a `StoreIO`: the engine awaits them on its loop, blocking callers `drive` them. They
    raise `StoreError` classes only; anything else is a bug in the store, which the engine reports and treats like
    an unavailable store. Methods may be called for several runs at once; for one run, batches may overlap as
    ``overlap`` says.
    """

    #: how it waits; the engine exchanges it at interpreter exit. Stores that never block may leave it as it is
    io: StoreIO = InlineIO()
    #: what reaches the artifacts of a tracking server (`asynctrack.artifacts.proxied.ArtifactClient`); None elsewhere
    client: Any = None
    #: canonical URI, without credentials: goes into the spool, logs and messages
    uri: str
    limits: Limits = Limits()
    #: True where the store gives runs ids of its own; elsewhere a new run's id is its ``spec.uid``
    chooses_run_ids: bool = False
    #: how many batches of one run may be under way at once; params, tags, start and end keep their order in any case
    overlap: int = 1
    #: how many requests the store may ever be given at once; the engine finds out how many serve it best. None: any
    #: number, as where a store has a lock or a queue of its own
    most_requests: int | None = None
    #: set by the engine with ``durability="system"``: what `log_batch` returns from must survive the machine
    durable: bool = False
    #: True where any store opened at ``uri`` does what this one does: then they share one engine
    uri_says_all: bool = False
    #: set by the engine when time is running out: seconds that one call may wait for an answer
    patience: float | None = None
    #: True where key "a" and key "a/b" cannot both exist in one run (files and folders)
    keys_are_paths: bool = False

    def over(self, io: StoreIO) -> AbstractStore:
        """This store for callers that wait in another way: over `InlineIO` for blocking ones, over `ThreadedIO` on an
        event loop. Called when a user hands a store object to a service, once for the service and once for the
        engine. As it stands, right for a store whose coroutines never suspend; any other returns a twin."""
        return self

    # ── keys: pure, called in the logging thread

    @abstractmethod
    def check_key(self, kind: str, key: str) -> None:
        """Raise `InvalidInputError`, saying what is wrong and what is allowed, for a key this store can never hold.

        ``kind`` is "metric", "param" or "tag".
        """

    # ── delivering: called by the engine

    @abstractmethod
    async def create_run(self, spec: RunSpec) -> RunInfo:
        """Create the run, or with ``spec.run_id`` set its status to RUNNING again. Repeating it changes nothing."""

    async def find_run(self, spec: RunSpec) -> RunInfo | None:
        """The run that `create_run` has made of this ``spec``, maybe in a process that died; None where there is none.

        Asked where a run's id is the store's choice, before a creation is repeated.
        """
        try:
            return await self.get_run_info(spec.run_id or spec.uid)
        except NotFoundError:
            return None

    async def probe(self, run_id: str) -> None:  # noqa: B027  # optional: for stores that raise suspicious errors
        """Write something harmless to the run. Raises `StoreError` where the store cannot write just now.

        Asked when the store fails at one batch again and again, before the events in it are suspected.
        """

    async def bookmark(self, run_id: str, batch: Batch) -> Any:
        """Where the store stands before ``batch``: anything msgpack can hold, kept in the cursor while the batch is
        under way, given back to `log_batch` when its outcome is unknown. None where re-sending changes nothing."""
        return None

    @abstractmethod
    async def log_batch(self, run_id: str, batch: Batch, bookmark: Any = None) -> list[Refusal]:
        """Store a batch. With a ``bookmark``, some of it may be stored already, behind that mark: complete it, once.

        Returns the events that are refused for good, where the store can tell which they are; all others are stored.
        Raises `RefusedError` where it cannot tell (the engine halves the batch), `UnavailableError` to be asked again.
        """

    @abstractmethod
    async def update_run(
        self, run_id: str, *, status: str | None = None, end_time: int | None = None, run_name: str | None = None
    ) -> RunInfo:
        """Set what is given: ``status`` a `RunStatus` name, ``end_time`` in ms."""

    # ── reading and managing

    @abstractmethod
    async def get_run(self, run_id: str) -> Run:
        """The run with its latest metrics. Raises `NotFoundError`."""

    async def get_run_info(self, run_id: str) -> RunInfo:
        """The run without its data. Raises `NotFoundError`.

        For stores where the data costs something: the file store reads all points of a run for its latest ones.
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
        """Runs that match MLflow's filter, latest start first unless ``order_by`` says otherwise."""

    async def list_run_infos(
        self,
        experiment_id: str,
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Page:
        """`RunInfo` of an experiment's runs, latest start first. Worth overriding where reading what the runs have
        logged takes longer than finding them."""
        found = await self.search_runs([experiment_id], "", run_view_type, max_results, (), page_token)
        return Page([run.info for run in found.items], found.token)

    @abstractmethod
    async def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        """Every point of one metric, in the order the store keeps them; empty when the run has no such metric."""

    @abstractmethod
    async def delete_run(self, run_id: str) -> None:
        """Mark a run deleted."""

    @abstractmethod
    async def restore_run(self, run_id: str) -> None:
        """Mark a deleted run active."""

    @abstractmethod
    async def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag of a run. Raises `NotFoundError` where there is none."""

    @abstractmethod
    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        """The new experiment's id. Raises `AlreadyExistsError`, also when a deleted experiment holds the name."""

    @abstractmethod
    async def get_experiment(self, experiment_id: str) -> Experiment:
        """Also deleted ones. Raises `NotFoundError`."""

    @abstractmethod
    async def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Also deleted ones; None where no experiment has that name."""

    @abstractmethod
    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str = "",
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Page:
        """Experiments that match, last created first unless ``order_by`` says otherwise."""

    @abstractmethod
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an active experiment another name."""

    @abstractmethod
    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment deleted."""

    @abstractmethod
    async def restore_experiment(self, experiment_id: str) -> None:
        """Mark a deleted experiment active."""

    @abstractmethod
    async def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an experiment."""

    async def aclose(self) -> None:  # noqa: B027  # optional: most stores hold nothing
        """Let go of connections and files."""
