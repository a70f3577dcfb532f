"""What is asked of the store before a run is logged to: so that a mistake is said at the call, and not at the end.

Nothing here makes a program depend on its store: where that is away, the answer is that nothing is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from asynctrack.constants import LifecycleStage
from asynctrack.current import rival_experiment, store_to_ask
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.io import InlineIO, ThreadedIO, drive, in_event_loop
from asynctrack.stores.uri import open_store

if TYPE_CHECKING:
    from asynctrack.engine.engine import Engine
    from asynctrack.entities import RunInfo
    from asynctrack.stores.base import AbstractStore

__all__ = ["Question", "ask_blocking", "ask_on_loop", "stored_params"]

T = TypeVar("T")


class Question(NamedTuple):
    """What a new or resumed run depends on. ``run_id``: the run to take up. ``parent``: the run it is nested in, if
    this process has not started that. ``experiment``: a name from the environment that its id may contradict."""

    run_id: str | None = None
    parent: str | None = None
    experiment: str | None = None

    @property
    def rival(self) -> str | None:
        """The id that contradicts the experiment's name, if it is not that of this experiment."""
        return None if self.experiment is None else rival_experiment(self.experiment)

    def __bool__(self) -> bool:
        return bool(self.run_id or self.parent or self.rival)


def ask_blocking(engine: Engine, question: Question) -> Mapping[str, str]:
    """Ask in this thread, for about ``connect_timeout`` seconds at most; the params of the run that is taken up.

    Raises NotFoundError, RefusedError for a deleted run, InvalidInputError for variables that contradict each other.
    """
    if engine.offline or not question:
        return {}
    return drive(_ask(store_to_ask(engine.store.uri), engine, question))


async def ask_on_loop(engine: Engine, question: Question) -> Mapping[str, str]:
    """`ask_blocking`, on asyncio or trio."""
    if engine.offline or not question:
        return {}
    store = open_store(engine.store.uri, ThreadedIO())
    store.patience = engine.settings.connect_timeout
    try:
        return await _ask(store, engine, question)
    finally:
        await store.aclose()


def stored_params(engine: Engine, run_id: str, store: AbstractStore | None = None) -> Mapping[str, str]:
    """The params of a run that is logged to by its id. Raises NotFoundError, RefusedError for a deleted run. Asks
    nothing on an event loop, where a log call must not wait."""
    if engine.offline or in_event_loop():
        return {}
    asked = store_to_ask(engine.store.uri) if store is None else store.over(InlineIO())
    try:
        return drive(_params(asked, engine, run_id))
    finally:
        if store is not None and asked is not store:
            drive(asked.aclose())


async def _ask(store: AbstractStore, engine: Engine, question: Question) -> Mapping[str, str]:
    if question.rival is not None:
        await _check_experiment(store, question)
    if question.parent is not None:
        await _known(store, engine, question.parent, _info(store, question.parent))
    return {} if question.run_id is None else await _params(store, engine, question.run_id)


async def _params(store: AbstractStore, engine: Engine, run_id: str) -> Mapping[str, str]:
    run = await _known(store, engine, run_id, lambda: store.get_run(run_id))
    if run is None:
        return {}
    _refuse_deleted(run.info)
    return run.data.params


def _info(store: AbstractStore, run_id: str) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        _refuse_deleted(await store.get_run_info(run_id))

    return check


async def _known(store: AbstractStore, engine: Engine, run_id: str, ask: Callable[[], Awaitable[T]]) -> T | None:
    """What ``ask`` finds out about a run; None if the store is away, or the run's start still waits in a spool."""
    try:
        return await ask()
    except NotFoundError:
        # Only now, because it loads most of the package.
        from asynctrack.delivery.missing import start_waits_below
        from asynctrack.journal.homes import homes_in_use, spool_homes

        homes = [*homes_in_use(), *spool_homes(engine.settings.spool_dir)]
        try:
            if await store.is_gone() or any(start_waits_below(home, run_id) is not None for home in homes):
                return None
        except OSError:
            return None  # the engine asks again
        raise
    except StoreError as error:
        if error.retryable:
            return None  # the engine meets the same and says so
        raise


def _refuse_deleted(info: RunInfo) -> None:
    if info.lifecycle_stage == LifecycleStage.DELETED:
        raise RefusedError(f"run {info.run_id} is deleted; restore it to log to it")


async def _check_experiment(store: AbstractStore, question: Question) -> None:
    try:
        found = await store.get_experiment_by_name(question.experiment or "")
    except StoreError as error:
        if error.retryable:
            return
        raise
    if found is not None and found.experiment_id != question.rival:
        raise InvalidInputError(
            f"MLFLOW_EXPERIMENT_NAME is {question.experiment!r}, which is experiment {found.experiment_id}, and "
            f"MLFLOW_EXPERIMENT_ID is {question.rival}; unset one of them"
        )
