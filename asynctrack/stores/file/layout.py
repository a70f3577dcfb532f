"""Where MLflow's file store keeps what: names, ids and addresses. Nothing here touches the disk.

::

    <root>/
      .trash/                     deleted experiments, moved here whole
      <experiment id>/
        meta.yaml
        tags/<key>                experiment tags
        <run id>/
          meta.yaml
          metrics/<key>           "<timestamp ms> <value> <step>" lines; a key's slashes are sub-directories
          params/<key>  tags/<key>
          artifacts/
        models/<model id>/        logged models, which MLflow makes
          metrics/<key>           "<timestamp ms> <value> <step> <run id>" lines
"""

from __future__ import annotations

import os
import re

__all__ = [
    "ARTIFACTS",
    "DEFAULT_EXPERIMENT_ID",
    "DEFAULT_EXPERIMENT_NAME",
    "FOLDERS",
    "META",
    "METRICS",
    "PARAMS",
    "RUN_NAME_TAG",
    "TAGS",
    "TRASH",
    "append_to_uri",
    "is_experiment_id",
    "is_run_id",
    "key_path",
    "local_uri",
    "model_dir",
    "new_experiment_id",
]

TRASH = ".trash"
META = "meta.yaml"
METRICS, PARAMS, TAGS, ARTIFACTS = "metrics", "params", "tags", "artifacts"
#: the folder that holds each kind of event
FOLDERS = {"metric": METRICS, "param": PARAMS, "tag": TAGS}
DEFAULT_EXPERIMENT_ID = "0"
DEFAULT_EXPERIMENT_NAME = "Default"
RUN_NAME_TAG = "mlflow.runName"

_EXPERIMENT_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,63}", re.ASCII)
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,254}", re.ASCII)
#: a colon behind one letter belongs to a drive
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]+:")
#: folders beside the experiments, and beside the runs of one, which are neither. A run's own parts are no runs: the
#: artifacts of an experiment may be kept in the store's root, and anybody may log one called meta.yaml
_NOT_EXPERIMENTS = {"models"}
_NOT_RUNS = {METRICS, PARAMS, TAGS, ARTIFACTS, "datasets", "traces", "models", "inputs", "outputs"}


#: what a URI has for a byte of a path; quicker than pathlib is loaded
_ESCAPES = {byte: f"%{byte:02X}" for byte in range(256) if not (chr(byte).isascii() and chr(byte).isalnum())}
for _byte in b"_.-~/":
    del _ESCAPES[_byte]


def is_experiment_id(text: object) -> bool:
    """Whether an experiment may have this id; False for anything that could lead out of the store."""
    return isinstance(text, str) and _EXPERIMENT_ID.fullmatch(text) is not None and text not in _NOT_EXPERIMENTS


def is_run_id(text: object) -> bool:
    """Whether a run may have this id; False for anything that could lead out of the store."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None and text not in _NOT_RUNS


def new_experiment_id() -> str:
    """18 random decimal digits, the first not zero: MLflow's migration keeps integer ids only."""
    return str(10**17 + int.from_bytes(os.urandom(16)) % (9 * 10**17))


def model_dir(run_dir: str, model_id: str) -> str | None:
    """Where a logged model of the run's experiment is; None for an id that no model has."""
    return os.path.join(os.path.dirname(run_dir), "models", model_id) if is_run_id(model_id) else None


def key_path(run_dir: str, kind: str, key: str) -> str:
    """The file of one checked key; ``kind`` is "metric", "param" or "tag"."""
    return os.path.join(run_dir, FOLDERS[kind], key)


def local_uri(path: str) -> str:
    """``file:///absolute/path``, percent-encoded."""
    return f"file://{os.fsencode(os.path.abspath(path)).decode('latin-1').translate(_ESCAPES)}"


def append_to_uri(uri: str, *parts: str) -> str:
    """``uri`` with more path parts, before its query and fragment where it has some. In a plain path, "?" and "#" are
    characters like others."""
    end = re.search(r"[?#]", uri) if _SCHEME.match(uri) else None
    at = len(uri) if end is None else end.start()
    return "/".join([uri[:at].rstrip("/"), *parts]) + uri[at:]
