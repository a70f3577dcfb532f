"""From an image (a NumPy array, a tensor, a PIL image) to the files of MLflow's log_image. No disk, no network.

Needs Pillow: ``pip install 'asynctrack[images]'``.
"""

from __future__ import annotations

import io
import os
import re
import time
import warnings
from typing import TYPE_CHECKING, Any

from asynctrack.artifacts.content import Content
from asynctrack.artifacts.paths import artifact_file as checked
from asynctrack.errors import InvalidInputError, InvalidTypeError
from asynctrack.values import as_text, shortened

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["LOGGED_IMAGES_TAG", "image_content", "preview_content", "read_image", "stepped_image_contents"]

#: the tag, with the value "True", by which MLflow's UI knows that a run has images logged with a key
LOGGED_IMAGES_TAG = "mlflow.loggedImages"

_KEY = re.compile(r"[a-zA-Z0-9_\-./ ]+")
#: pixels along the longer side of the small copy that the UI shows first
_PREVIEW = 256
_KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}


def image_content(image: Any, artifact_file: str) -> Content:
    """One image, in the format that the file's ending says. Raises `InvalidInputError`."""
    path = checked(artifact_file)
    return Content(path, _encoded(_to_pil(image, path), os.path.splitext(path)[1], path))


def preview_content(image: Any, artifact_file: str) -> Content:
    """A copy whose longer side has 256 pixels. Raises `InvalidInputError`."""
    path = checked(artifact_file)
    return Content(path, _encoded(_preview(_to_pil(image, path)), os.path.splitext(path)[1], path))


def stepped_image_contents(image: Any, key: str, step: int = 0, timestamp: int | None = None) -> list[Content]:
    """The image of one step under a key, as MLflow's UI shows them in a row: a PNG and a small WebP.

    ``timestamp`` is in ms, None: now. The run's tag `LOGGED_IMAGES_TAG` belongs to it. Raises `InvalidInputError`.
    """
    import uuid

    name = as_text(key)
    if name is None or not _KEY.fullmatch(name):
        raise InvalidInputError(
            f"image key {shortened(key)}: it is made of ASCII letters, digits, underscores, dashes, periods, spaces "
            f"and slashes"
        )
    if timestamp is None:
        timestamp = time.time_ns() // 1_000_000
    name = f"images/{name.replace('/', '~')}+step+{step}+timestamp+{timestamp}+{uuid.uuid4()}"
    picture = _to_pil(image, key)
    return [image_content(picture, f"{name}.png"), preview_content(picture, f"{name}+compressed.webp")]


def read_image(path: str, name: str) -> Image:
    """An image from a file, whole in memory; ``name`` is for messages. Raises `InvalidInputError`."""
    pillow = _pillow(name)
    try:
        with pillow.open(path) as image:
            image.load()
            return image.copy()  # type: ignore[no-any-return]  # Pillow is asked for late
    except Exception as error:  # whatever Pillow's readers raise at a damaged file
        raise InvalidInputError(f"artifact {shortened(name, 200)} is no image that Pillow can read: {error}") from None


def _pillow(name: str) -> Any:
    try:
        import PIL.Image
    except ImportError as error:
        raise InvalidInputError(
            f"image {shortened(name)}: Pillow is missing, which reads and writes images; pip install "
            f"'asynctrack[images]'"
        ) from error
    return PIL.Image


def _to_pil(image: Any, name: str) -> Image:
    pillow = _pillow(name)
    if isinstance(image, pillow.Image):
        return image  # type: ignore[no-any-return]  # just asked
    if not _has(image, "__array__") and _has(image, "to_pil"):
        return image.to_pil()  # type: ignore[no-any-return]  # mlflow.Image, which is not to be imported here
    if not _has(image, "__array__"):
        raise InvalidTypeError(
            f"image {shortened(name)}: {type(image).__name__} is no image; log a NumPy array, a tensor on the CPU or a "
            f"PIL image"
        )
    return pillow.fromarray(_pixels(image, name))  # type: ignore[no-any-return]


def _has(image: object, name: str) -> bool:
    try:
        return hasattr(image, name)
    except Exception:  # whatever its __getattr__ raises
        return False


def _pixels(image: Any, name: str) -> Any:
    """Height × width (× 3 or 4) bytes, from bools, floats in 0..1 or integers in 0..255."""
    import numpy  # loaded already, or Pillow's fromarray would not know the array

    try:
        array = numpy.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or one with a gradient
        raise InvalidInputError(f"image {shortened(name)}: {error}") from error
    kind = _KINDS.get(array.dtype.kind)
    if kind is None:
        raise InvalidTypeError(
            f"image {shortened(name)}: an array of {array.dtype} is no image; use bool, integer or float"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise InvalidInputError(
            f"image {shortened(name)}: an array of shape {array.shape} is no image; it must be height × width, with 1, "
            f"3 or 4 channels last"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    low, high = array.min(), array.max()
    if kind == "integer":
        if low < 0 or high > 255:
            raise InvalidInputError(f"image {shortened(name)}: integer pixels are 0 to 255, these are {low} to {high}")
        return array.astype(numpy.uint8)
    if not numpy.isfinite(low + high):
        raise InvalidInputError(f"image {shortened(name)}: some of its pixels are NaN or infinite")
    if low < 0 or high > 1:
        warnings.warn(
            f"image {shortened(name)}: float pixels are 0 to 1, these are {low} to {high}; they are scaled",
            stacklevel=4,
        )
        array = (array - low) / ((high - low) or 1)
    return (array * 255).astype(numpy.uint8)


def _preview(picture: Image) -> Image:
    width, height = picture.size
    factor = _PREVIEW / max(width, height)
    return picture.resize((max(1, int(width * factor)), max(1, int(height * factor))))


def _encoded(picture: Image, suffix: str, name: str) -> bytes:
    from PIL import Image

    kind = Image.registered_extensions().get(suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise InvalidInputError(
            f"image {shortened(name)}: Pillow writes no {suffix[:20] or 'files without an ending'}; try .png"
        )
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=kind)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"image {shortened(name)} cannot be saved as {kind}: {error}") from error
    return buffer.getvalue()
