"""What runs have used and made: datasets and logged models. MLflow 2.3 began with the one, MLflow 3 with the other.

*Once.* A dataset is there once in an experiment, and an input once in a run; whoever comes first has written it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from asynctrack.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    RunInputs,
    RunOutputs,
)
from asynctrack.errors import RefusedError
from asynctrack.stores.inputs import check_dataset
from asynctrack.stores.keys import shorten
from asynctrack.stores.sql.rows import storable
from asynctrack.stores.sql.runs import check_active
from asynctrack.stores.sql.session import Session

__all__ = ["inputs_and_outputs", "write_inputs", "write_outputs"]

_DATASETS = (
    "SELECT inputs.destination_id, inputs.input_uuid, datasets.name, digest, dataset_source_type, dataset_source, "
    "dataset_schema, dataset_profile FROM inputs JOIN datasets ON datasets.dataset_uuid = inputs.source_id "
    "WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND inputs.destination_id IN ({0}) "
    "ORDER BY datasets.name, digest"
)
_TAGS = (
    "SELECT inputs.input_uuid, name, value FROM input_tags JOIN inputs ON inputs.input_uuid = input_tags.input_uuid "
    "WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' AND inputs.destination_id IN ({0}) "
    "ORDER BY name"
)
_MODELS = (
    "SELECT source_id, destination_type, destination_id, step FROM inputs "
    "WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id IN ({0}) ORDER BY step, destination_id"
)
#: characters of a logged model's id, at most
_MODEL_ID = 36
_INSERT_DATASET = (
    "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, "
    "dataset_schema, dataset_profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_FIND_DATASET = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
_INSERT_USE = (
    "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) "
    "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_INSERT_OUTPUT = (
    "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
    "VALUES (?, 'RUN_OUTPUT', ?, 'MODEL_OUTPUT', ?, ?) ON CONFLICT DO NOTHING"
)
_INSERT_TAG = "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)"


def write_inputs(
    session: Session, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[LoggedModelInput]
) -> None:
    """Note what a run has used. Raises `NotFoundError`, `RefusedError`."""
    check_active(session, run_id)
    if datasets and not session.schema.datasets:
        raise RefusedError("the tables are those of MLflow before 2.3, which keep no datasets")
    used: dict[tuple[str, str], DatasetInput] = {}
    for each in datasets:
        check_dataset(each)
        used.setdefault((storable(each.dataset.name), storable(each.dataset.digest)), each)
    if used:
        [(experiment_id,)] = session.rows("SELECT experiment_id FROM runs WHERE run_uuid = ?", (run_id,))
        for names in sorted(used):  # other runs write the same: the same order, so that none waits for the other
            _write_dataset(session, experiment_id, names, used[names])
        for names, each in used.items():  # MLflow reads them as they are there: in the order of the calls
            _write_use(session, run_id, experiment_id, names, each)
    _check_models(session, models)
    for model_id in dict.fromkeys(storable(model.model_id) for model in models):
        session.execute(_INSERT_USE, (_new_id(), "RUN_INPUT", run_id, "MODEL_INPUT", model_id))


def write_outputs(session: Session, run_id: str, models: Sequence[LoggedModelOutput]) -> None:
    """Note the models that a run has logged. Raises `NotFoundError`, `RefusedError`."""
    check_active(session, run_id)
    _check_models(session, models)
    for model in models:
        session.execute(_INSERT_OUTPUT, (_new_id(), run_id, storable(model.model_id), model.step))


def _write_dataset(session: Session, experiment_id: int, names: tuple[str, str], used: DatasetInput) -> None:
    about = used.dataset
    texts = (about.source_type, about.source, about.schema, about.profile)
    session.execute(
        _INSERT_DATASET,
        (_new_id(), experiment_id, *names, *(None if text is None else storable(text) for text in texts)),
    )


def _write_use(session: Session, run_id: str, experiment_id: int, names: tuple[str, str], used: DatasetInput) -> None:
    [(dataset_id,)] = session.rows(_FIND_DATASET, (experiment_id, *names))
    input_id = _new_id()
    if session.execute(_INSERT_USE, (input_id, "DATASET", dataset_id, "RUN", run_id)):
        tags = {storable(tag.key): storable(tag.value) for tag in used.tags}
        session.many(_INSERT_TAG, [(input_id, key, value) for key, value in tags.items()])


def _check_models(session: Session, models: Sequence[LoggedModelInput | LoggedModelOutput]) -> None:
    if models and not session.schema.outputs:
        raise RefusedError("the tables are those of MLflow before 3.0, which keep no logged models")
    for model in models:
        if len(model.model_id) > _MODEL_ID:
            raise RefusedError(f"{shorten(model.model_id)} cannot be the id of a logged model")


def _new_id() -> str:
    return uuid.uuid4().hex


def inputs_and_outputs(session: Session, run_ids: Sequence[str]) -> tuple[dict[str, RunInputs], dict[str, RunOutputs]]:
    """The datasets and models of some runs, by run; no more of these than fit one statement."""
    inputs = {run_id: RunInputs([], []) for run_id in run_ids}
    outputs = {run_id: RunOutputs([]) for run_id in run_ids}
    marks = ",".join("?" * len(run_ids))
    if session.schema.datasets and run_ids:
        datasets = session.rows(_DATASETS.format(marks), run_ids)
        tags: dict[str, list[InputTag]] = {}
        if datasets:
            for input_id, key, value in session.rows(_TAGS.format(marks), run_ids):
                tags.setdefault(input_id, []).append(InputTag(key, value))
        for run_id, input_id, *about in datasets:
            inputs[run_id].dataset_inputs.append(DatasetInput(Dataset(*about), tags.get(input_id, [])))
    if session.schema.outputs and run_ids:
        for run_id, kind, model_id, step in session.rows(_MODELS.format(marks), run_ids):
            if kind == "MODEL_INPUT":
                inputs[run_id].model_inputs.append(LoggedModelInput(model_id))
            elif kind == "MODEL_OUTPUT":
                outputs[run_id].model_outputs.append(LoggedModelOutput(model_id, step))
    return inputs, outputs
