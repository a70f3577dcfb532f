"""What a run uses and has made, as it stands in a journal: a name, and JSON that says what it is.

=====================  =====================================================================
name                   JSON
=====================  =====================================================================
``dataset:``, a hash   ``name``, ``digest``, ``source_type``, ``source``, ``schema``, ``profile`` (the last two may be
                       null), and ``tags``: a map of texts
``model:``, its id     ``model_id``: a logged model that the run uses
``output:``, its id    ``model_id`` and ``step``: a logged model that the run has made
=====================  =====================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["DATASET", "MODEL", "OUTPUT", "dataset_entry", "input_of", "model_entry", "output_entry"]

DATASET, MODEL, OUTPUT = "dataset", "model", "output"
#: what each says: texts that are there, those that may be null, and other fields with their type
_TEXTS = {DATASET: ("name", "digest", "source_type", "source"), MODEL: ("model_id",), OUTPUT: ("model_id",)}
_OPTIONAL = {DATASET: ("schema", "profile"), MODEL: (), OUTPUT: ()}


def dataset_entry(fields: Mapping[str, str | None], tags: Mapping[str, str]) -> tuple[str, str]:
    """Name and JSON of a dataset that a run uses."""
    text = json.dumps({**fields, "tags": dict(tags)})
    return f"{DATASET}:{hashlib.sha256(text.encode()).hexdigest()[:16]}", text


def model_entry(model_id: str) -> tuple[str, str]:
    """The same of a logged model that a run uses."""
    return f"{MODEL}:{model_id}", json.dumps({"model_id": model_id})


def output_entry(model_id: str, step: int) -> tuple[str, str]:
    """The same of a logged model that a run has made."""
    return f"{OUTPUT}:{model_id}", json.dumps({"model_id": model_id, "step": step})


def input_of(name: str, text: str) -> tuple[str, dict[str, Any]]:
    """What it is (DATASET, MODEL, OUTPUT), and its fields. Raises ValueError where it cannot be used: a journal is not
    to be trusted."""
    kind = name.partition(":")[0]
    fields = json.loads(text)
    if kind not in _TEXTS or not isinstance(fields, dict):
        raise ValueError(f"an input of an unknown kind: {name[:80]!r}")
    found: dict[str, Any] = {field: fields.get(field) for field in (*_TEXTS[kind], *_OPTIONAL[kind])}
    if not all(isinstance(found[field], str) for field in _TEXTS[kind]):
        raise ValueError(f"{name[:80]!r} lacks something")
    if not all(found[field] is None or isinstance(found[field], str) for field in _OPTIONAL[kind]):
        raise ValueError(f"{name[:80]!r} has something else for a text")
    if kind == DATASET:
        tags = fields.get("tags", {})
        if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
            raise ValueError(f"{name[:80]!r} has tags that are no texts")
        found["tags"] = tags
    elif kind == OUTPUT:
        step = fields.get("step")
        if type(step) is not int or not -(1 << 63) <= step < 1 << 63:
            raise ValueError(f"{name[:80]!r} has no step")
        found["step"] = step
    return kind, found
