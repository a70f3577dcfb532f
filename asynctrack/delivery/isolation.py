"""Finding the events of a batch that the store will never take, by halving, where it does not say which they are."""

from __future__ import annotations

from collections import deque
from typing import Any

from asynctrack.delivery.inputs import send_batch
from asynctrack.delivery.outcome import as_store_error
from asynctrack.delivery.work import split
from asynctrack.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, Limits, Refusal

__all__ = ["Isolation", "settings_are_wrong"]

#: batches sent in one turn of a run, at most: where everything is refused there are two for each event, and other runs
#: want to be delivered meanwhile
_TURN = 100
#: refused batches in a row after which the run may be one that takes nothing; halving one event out of 65,536 takes 17
_NOTHING_TAKEN = 20


class Isolation:
    """The batches that a work is sent in, and what came of those that are sent.

    It outlives an attempt that was cut short: what the store has taken or refused is not sent again.
    """

    def __init__(self, batch: Batch, limits: Limits) -> None:
        self.refusals: list[Refusal] = []
        #: the store fails at this work again and again: it may be an event's fault
        self.suspected = False
        self._left = deque(split(batch, limits))
        #: the store was seen to do something else for this run since it failed at this work
        self._probed = False
        #: batches refused in a row, and whether it is known that the run takes anything
        self._in_a_row, self._takes_some = 0, False
        #: events at which the store failed when they came alone
        self._suspects: list[tuple[Batch, StoreError]] = []

    async def turn(self, store: AbstractStore, run_id: str, bookmark: Any) -> bool:
        """Send the next batches; whether all is dealt with. Raises `StoreError` where it has to be tried again, and
        `NotFoundError` where the run is not there."""
        for _ in range(_TURN):
            if not self._left:
                break
            batch = self._left[0]
            try:
                self.refusals += await send_batch(store, run_id, batch, bookmark)
            except NotFoundError:
                raise  # no event is at fault
            except Exception as problem:
                if isinstance(problem, InvalidInputError) and not await settings_are_wrong(store):
                    problem = RefusedError(str(problem))
                error = as_store_error(problem)
                if error.retryable and not (self.suspected and error.suspicious):
                    raise
                if not error.retryable:
                    await self._refused(store, run_id, batch, error)
                elif self._probed:
                    self._failed_at(batch, error)
                else:
                    await self._probe(store, run_id)
            else:
                self._left.popleft()
                self._in_a_row, self._takes_some = 0, True
        if self._left:
            return False
        for suspect, why in self._suspects:
            self._refuse(suspect, str(why))
        self._suspects = []
        return True

    async def _probe(self, store: AbstractStore, run_id: str) -> None:
        """A server that cannot write at all (its disk is full, say) fails at everything: nobody is guilty then."""
        try:
            await store.probe(run_id)
        except StoreError as error:
            if error.retryable or isinstance(error, NotFoundError):
                raise
        self._probed = True  # and the batch comes once more: the store may have recovered just before that

    def _failed_at(self, batch: Batch, error: StoreError) -> None:
        self._left.popleft()
        if len(batch) == 1:
            self._suspects.append((batch, error))
        else:
            self._left.extendleft(reversed(batch.halves()))

    async def _refused(self, store: AbstractStore, run_id: str, batch: Batch, error: StoreError) -> None:
        self._in_a_row += 1
        if self._in_a_row >= _NOTHING_TAKEN and not self._takes_some:
            try:
                await store.probe(run_id)
            except StoreError as refusal:
                if refusal.retryable or isinstance(refusal, NotFoundError):
                    raise
                self.refuse_rest(str(error))
                return
            self._takes_some = True
        self._left.popleft()
        if error.splittable and len(batch) > 1:
            self._left.extendleft(reversed(batch.halves()))
        else:
            self._refuse(batch, str(error))

    def refuse_rest(self, reason: str) -> list[Refusal]:
        """What was not taken so far will not be; all refusals."""
        for batch in self._left:
            self._refuse(batch, reason)
        self._left.clear()
        return self.refusals

    def _refuse(self, batch: Batch, reason: str) -> None:
        self.refusals += [Refusal(*item, reason=reason) for item in batch.items()]


async def settings_are_wrong(store: AbstractStore) -> bool:
    """Whether the store refuses as invalid whatever it is asked: then a setting is at fault, and no event. Raises
    `StoreError` where it cannot answer now."""
    try:
        await store.search_experiments(max_results=1)
    except InvalidInputError:
        return True
    return False
