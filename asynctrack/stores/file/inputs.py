"""What MLflow keeps of the datasets and models that a run has used or logged. It is only read here.

::

    <experiment id>/datasets/<dataset id>/meta.yaml
    <experiment id>/<run id>/inputs/<id>/meta.yaml     a dataset or a model that was used
    <experiment id>/<run id>/outputs/<id>/meta.yaml    a model that was logged
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from asynctrack.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    RunInputs,
    RunOutputs,
)
from asynctrack.stores.file.tree import DamagedError, Tree

__all__ = ["inputs_of", "outputs_of"]


def inputs_of(tree: Tree, run_dir: str) -> RunInputs:
    """The datasets and models that a run has used. What cannot be read is left out, with a warning. Raises OSError."""
    datasets, models = [], []
    for edge in _edges(tree, os.path.join(run_dir, "inputs")):
        source = str(edge.get("source_id", ""))
        if edge.get("source_type") == "MODEL":
            models.append(LoggedModelInput(source))
        elif edge.get("source_type") == "DATASET" and source.isalnum():
            found = _meta(tree, os.path.join(os.path.dirname(run_dir), "datasets", source))
            if found is not None:
                tags = edge.get("tags")
                pairs = tags.items() if isinstance(tags, dict) else ()
                datasets.append(DatasetInput(_dataset(found), [InputTag(str(key), str(value)) for key, value in pairs]))
    return RunInputs(datasets, models)


def outputs_of(tree: Tree, run_dir: str) -> RunOutputs:
    """The models that a run has logged. What cannot be read is left out, with a warning. Raises OSError."""
    found = []
    for edge in _edges(tree, os.path.join(run_dir, "outputs")):
        step = edge.get("step")
        if edge.get("destination_type") == "MODEL_OUTPUT":
            found.append(LoggedModelOutput(str(edge.get("destination_id", "")), step if isinstance(step, int) else 0))
    return RunOutputs(found)


def _edges(tree: Tree, folder: str) -> Iterator[dict[str, Any]]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        found = _meta(tree, os.path.join(folder, name))
        if found is not None:
            yield found


def _meta(tree: Tree, folder: str) -> dict[str, Any] | None:
    try:
        return tree.meta(folder)
    except DamagedError as problem:
        tree.warn_once(folder, problem)
        return None


def _dataset(meta: dict[str, Any]) -> Dataset:
    name, digest, source_type, source = (
        str(meta.get(field, "")) for field in ("name", "digest", "source_type", "source")
    )
    schema, profile = (None if meta.get(field) is None else str(meta[field]) for field in ("schema", "profile"))
    return Dataset(name, digest, source_type, source, schema, profile)
