"""Params that have changed in a run that goes on from an earlier step (``start_run(run_id=…, from_step=…)``).

A param never changes, so a tag says what it would be now. Where the store is there when the run is taken up, that is
said at the call; else only the store knows, when it refuses the param.
"""

from __future__ import annotations

import logging

from asynctrack.constants import PARAM_CHANGED
from asynctrack.delivery.lane import Lane
from asynctrack.delivery.work import split
from asynctrack.errors import InvalidInputError, NotFoundError, StoreError
from asynctrack.stores.base import AbstractStore, Batch, Refusal
from asynctrack.stores.branches import branch_of
from asynctrack.values import is_stored_as

__all__ = ["tell_changed_params"]

logger = logging.getLogger("asynctrack")


async def tell_changed_params(store: AbstractStore, lane: Lane, run_id: str, refusals: list[Refusal]) -> list[Refusal]:
    """What is left of the ``refusals`` once those of changed params are tags. Done twice it changes nothing. Raises
    `StoreError`."""
    params = [refusal for refusal in refusals if refusal.kind == "param"]
    if not params or branch_of(lane.spec.uid, lane.spec.tags) is None:
        return refusals
    stored = (await store.get_run(run_id)).data.params
    changes = {
        key: f"{stored[key]} -> {value}"
        for _, key, value, _ in params
        if key in stored and not is_stored_as(value, stored[key])
    }
    if not changes:
        return refusals
    tags = [(PARAM_CHANGED + key, change) for key, change in changes.items()]
    refused: set[str] = set()
    for batch in split(Batch(tags=tags), store.limits):
        try:
            refused |= {refusal.key for refusal in await store.log_batch(run_id, batch)}
        except (StoreError, InvalidInputError) as error:
            if isinstance(error, NotFoundError) or (isinstance(error, StoreError) and error.retryable):
                raise
            refused |= {key for key, _ in batch.tags}  # then the params stay refused, for the store's own reasons
    told = {key: change for key, change in changes.items() if PARAM_CHANGED + key not in refused}
    if told:
        logger.warning(
            "asynctrack: run %s: other params than before: %s. A param never changes: the tags %s* say so",
            run_id, "; ".join(f"{key}: {change}"[:200] for key, change in list(told.items())[:10]), PARAM_CHANGED,
        )  # fmt: skip
    return [refusal for refusal in refusals if refusal.kind != "param" or refusal.key not in told]
