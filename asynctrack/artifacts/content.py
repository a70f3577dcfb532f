"""From an object to the file that MLflow's client would make of it: same name, same format. No disk, no network.

Whatever an object needs (matplotlib, plotly) is loaded already, or the object could not be.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from asynctrack.artifacts.paths import artifact_file as checked
from asynctrack.errors import InvalidInputError, InvalidTypeError
from asynctrack.values import as_text, shortened

__all__ = ["Content", "dict_content", "figure_content", "text_content"]

_YAML = (".yml", ".yaml")
_PLOTLY_IMAGES = (".png", ".jpeg", ".webp", ".svg", ".pdf")


class Content(NamedTuple):
    """An artifact in memory: its path from the run's root, and its bytes."""

    artifact_file: str
    data: bytes


def text_content(text: str, artifact_file: str) -> Content:
    """Text, in UTF-8; characters that it cannot express become '?'. Raises `InvalidInputError`."""
    path = checked(artifact_file)
    plain = as_text(text)
    if plain is None:
        raise InvalidTypeError(f"artifact {path}: log_text takes a string, not {type(text).__name__}")
    return Content(path, plain.encode("utf-8", "replace"))


def dict_content(dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> Content:
    """YAML for .yml and .yaml, JSON for everything else; what these cannot express is written as its ``str``.

    Unlike MLflow's, the YAML never holds Python objects, so that ``yaml.safe_load`` reads it. Raises
    `InvalidInputError` for what cannot be written all the same, such as a list that contains itself.
    """
    path = checked(artifact_file)
    try:
        if os.path.splitext(path)[1] in _YAML:
            return Content(path, _yaml(dictionary))
        return Content(path, json.dumps(dictionary, indent=2, default=str).encode())
    except Exception as error:  # whatever the str() of something in it raises
        raise InvalidInputError(f"artifact {path}: the dictionary cannot be written: {error}") from error


def figure_content(figure: Any, artifact_file: str, save_kwargs: Mapping[str, Any] | None = None) -> Content:
    """A matplotlib or plotly figure, in the format that the file's ending says. ``save_kwargs`` go to the method that
    saves it. Raises `InvalidInputError`."""
    path = checked(artifact_file)
    suffix = os.path.splitext(path)[1]
    if save_kwargs is not None and not isinstance(save_kwargs, Mapping):
        raise InvalidInputError(f"artifact {path}: save_kwargs={shortened(save_kwargs)} is not a dictionary")
    options = dict(save_kwargs or {})
    if _is(figure, "matplotlib.figure", "Figure"):
        save = _save_matplotlib
    elif _is(figure, "plotly.basedatatypes", "BaseFigure"):
        save = _save_plotly
    else:
        kind = f"{type(figure).__module__}.{type(figure).__qualname__}"
        raise InvalidTypeError(f"artifact {path}: {kind} is no figure of matplotlib or plotly")
    try:
        return Content(path, save(figure, suffix, options))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:  # the last: plotly without a browser
        raise InvalidInputError(f"artifact {path}: the figure cannot be saved: {error}") from error


def _is(thing: object, module: str, name: str) -> bool:
    found = sys.modules.get(module)
    return found is not None and isinstance(thing, getattr(found, name))


def _save_matplotlib(figure: Any, suffix: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    if len(suffix) > 1:
        options.setdefault("format", suffix[1:])
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _save_plotly(figure: Any, suffix: str, options: dict[str, Any]) -> bytes:
    if suffix == ".html":
        text = io.StringIO()
        figure.write_html(text, **{"include_plotlyjs": "cdn", "auto_open": False, **options})
        return text.getvalue().encode()
    if suffix not in _PLOTLY_IMAGES:
        raise ValueError(f"plotly saves .html, {', '.join(_PLOTLY_IMAGES)}, and not {suffix!r}")
    buffer = io.BytesIO()
    options.setdefault("format", suffix[1:])
    figure.write_image(buffer, **options)
    return buffer.getvalue()


def _yaml(value: object) -> bytes:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Sub-classes (NumPy's numbers, enums, OrderedDict) as what they are based on, all else as text."""

    # Looked up along a value's base classes, so object is the last.
    for kind in (int, float, str, list, dict, object):
        Dumper.add_multi_representer(kind, _as(str if kind is object else kind))
    text = yaml.dump(value, Dumper=Dumper, indent=2, default_flow_style=False)
    return text.encode()


def _as(kind: type) -> Callable[[Any, Any], Any]:
    return lambda dumper, data: dumper.represent_data(kind(data))
