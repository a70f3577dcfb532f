"""What runs have used and made: datasets and logged models. MLflow 2.3 began with the one, MLflow 3 with the other."""

from __future__ import annotations

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
from asynctrack.stores.sql.session import Session

__all__ = ["inputs_and_outputs"]

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
