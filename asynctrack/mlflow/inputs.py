"""What MLflow says a run uses and has made, for the journal; and a run as MLflow knows it, with that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow.entities import Run, RunInputs

from asynctrack.errors import InvalidInputError
from asynctrack.journal.inputs import dataset_entry, model_entry, output_entry

__all__ = ["entries_made", "entries_used", "with_inputs"]

#: the longest that a server takes; of the others, a request has to hold them
_LENGTHS = {"name": 500, "digest": 36, "source_type": 36}
_TAG_KEY, _TAG_VALUE = 255, 500
#: characters of what one call says: what is longer goes MLflow's own way
_MOST = 60_000


def entries_used(datasets: Any, models: Any, known: Iterable[str]) -> dict[str, str]:
    """Datasets and models that a run uses. ``known``: the models that are there. Raises InvalidInputError for what
    MLflow may refuse."""
    entries = dict(_dataset(each) for each in _listed(datasets))
    entries.update(model_entry(_model_id(each, known)) for each in _listed(models))
    return _bounded(entries)


def entries_made(models: Any, known: Iterable[str], before: Any) -> dict[str, str]:
    """Models that a run has made, ``before`` aside: MLflow takes each once. Raises InvalidInputError as
    `entries_used`."""
    seen = {each.model_id for each in before.model_outputs}
    entries = {}
    for each in _listed(models):
        model_id, step = _model_id(each, known), each.step
        if model_id in seen or type(step) is not int or not -(1 << 63) <= step < 1 << 63:
            raise InvalidInputError(f"output {model_id!r}")
        seen.add(model_id)
        name, text = output_entry(model_id, step)
        entries[name] = text
    return _bounded(entries)


def _listed(found: Any) -> list[Any]:
    if found is not None and type(found) is not list:
        raise InvalidInputError("no list")
    return found or []


def _bounded(entries: dict[str, str]) -> dict[str, str]:
    if not entries or sum(map(len, entries.values())) > _MOST:
        raise InvalidInputError("nothing, or too much of it")
    return entries


def _dataset(given: Any) -> tuple[str, str]:
    dataset = given.dataset
    fields = {name: getattr(dataset, name) for name in ("name", "digest", "source_type", "source", "schema", "profile")}
    for name, value in fields.items():
        missing = value is None and name in ("schema", "profile")
        if not missing and (type(value) is not str or not 0 < len(value) <= _LENGTHS.get(name, _MOST)):
            raise InvalidInputError(f"dataset: {name} {value!r}")
    tags: dict[str, str] = {}
    for tag in given.tags:
        key, value = tag.key, tag.value
        good = type(key) is str and type(value) is str and 0 < len(key) <= _TAG_KEY and len(value) <= _TAG_VALUE
        if not good or key in tags:
            raise InvalidInputError(f"dataset: tag {key!r}")
        tags[key] = value
    return dataset_entry(fields, tags)


def _model_id(given: Any, known: Iterable[str]) -> str:
    model_id = given.model_id
    if type(model_id) is not str or model_id not in known:
        raise InvalidInputError(f"model {model_id!r}")
    return model_id


def with_inputs(run: Any, datasets: Any = None, models: Any = None, outputs: Any = None) -> Any:
    """A copy of a run that uses these, too, and has made ``outputs``; None where this MLflow has no such runs."""
    try:
        from mlflow.entities import RunOutputs

        used = {(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs}
        new = [each for each in datasets or () if (each.dataset.name, each.dataset.digest) not in used]
        ids = {each.model_id for each in run.inputs.model_inputs}
        more = [each for each in models or () if each.model_id not in ids]
        make: Any = RunInputs
        inputs = make([*run.inputs.dataset_inputs, *new], [*run.inputs.model_inputs, *more])
        return Run(run.info, run.data, inputs, RunOutputs([*run.outputs.model_outputs, *(outputs or ())]))
    except (ImportError, AttributeError, TypeError):  # MLflow 2
        return None
