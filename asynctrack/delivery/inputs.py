"""Sending a batch with what its run uses and has made, which a store takes by calls of its own."""

from __future__ import annotations

from typing import Any

from asynctrack.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
from asynctrack.errors import NotFoundError, RefusedError, WrongServerError
from asynctrack.journal.inputs import DATASET, MODEL, input_of
from asynctrack.stores.base import AbstractStore, Batch, Refusal
from asynctrack.stores.inputs import KeepsInputs

__all__ = ["send_batch"]


async def send_batch(store: AbstractStore, run_id: str, batch: Batch, bookmark: Any) -> list[Refusal]:
    """What the store has refused of a batch. Raises as `AbstractStore.log_batch`; nothing of the rest is stored then if
    it is the inputs that are refused."""
    if not batch.inputs:
        return await store.log_batch(run_id, batch, bookmark)
    refusals = await _send_inputs(store, run_id, batch.inputs)
    rest = Batch(dict(batch.decoded), batch.params, batch.tags, batch.blocks)
    return refusals + (await store.log_batch(run_id, rest, bookmark) if rest else [])


async def _send_inputs(store: AbstractStore, run_id: str, inputs: list[tuple[str, str]]) -> list[Refusal]:
    if not isinstance(store, KeepsInputs):
        reason = f"{store.uri} does not keep which datasets and models a run uses"
        return [Refusal("input", name, text, reason) for name, text in inputs]
    refusals: list[Refusal] = []
    datasets: list[DatasetInput] = []
    models: list[LoggedModelInput] = []
    outputs: list[LoggedModelOutput] = []
    for name, text in inputs:
        try:
            kind, fields = input_of(name, text)
        except (ValueError, RecursionError) as error:
            refusals.append(Refusal("input", name, text, str(error)))
            continue
        if kind == DATASET:
            tags = [InputTag(key, value) for key, value in fields.pop("tags").items()]
            datasets.append(DatasetInput(Dataset(**fields), tags))
        elif kind == MODEL:
            models.append(LoggedModelInput(**fields))
        else:
            outputs.append(LoggedModelOutput(**fields))

    async def send() -> None:
        if datasets or models:
            await store.log_inputs(run_id, datasets, models)
        if outputs:
            await store.log_outputs(run_id, outputs)

    try:
        await send()
    except (NotFoundError, WrongServerError):
        await store.get_run_info(run_id)  # raises where it is the run, or the server, that is not there
        try:
            await send()  # the server may have come back just before that
        except (NotFoundError, WrongServerError) as error:
            # It does not know a model, or, as MLflow before 2.4, the call. The run's other events are none of that.
            raise RefusedError(str(error)) from error
    return refusals
