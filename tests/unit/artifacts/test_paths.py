"""What an artifact may be called: nothing that leads elsewhere, here, on Windows, or on its way through a server."""

from __future__ import annotations

import os
import posixpath
from typing import Any
from urllib.parse import unquote, urlparse, urlunparse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrack.artifacts import paths
from asynctrack.errors import InvalidInputError, RefusedError

#: text in which what is dangerous in paths is frequent
PATHS = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "%", "2e", "2E2e", "#", "?", ";", ":", "a", "C", "\0", "\n", " "])
    | st.text(max_size=3)
).map("".join)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "a b/ü.txt", "a:b", "..a/b..", "...", "~", "100%", "-"])
def test_ordinary_paths_are_artifact_paths(path: str) -> None:
    assert paths.check_artifact_path(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "is empty"),
        (".", "would be stored as"),
        ("..", "contains '..'"),
        ("../a", "contains '..'"),
        ("a/../../b", "contains '..'"),
        ("a\\..\\b", "contains '..'"),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("\\\\host\\share", "is absolute"),
        ("C:\\x", "is absolute"),
        ("a//b", "would be stored as 'a/b'"),
        ("a/", "would be stored as 'a'"),
        ("./a", "would be stored as 'a'"),
        ("a\0b", "NUL"),
        ("a/.artifact.uploading.1", "kept for uploads under way"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_with_the_reason(path: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match="artifact path") as caught:
        paths.check_artifact_path(path)
    assert reason in str(caught.value)


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="bytes"):
        paths.check_artifact_path(b"a")  # type: ignore[arg-type]  # the mistake that is being tested


@given(PATHS)
@example("a/..")
@example("..\\a")
def test_a_path_that_passes_stays_below_its_root_whatever_its_characters(path: str) -> None:
    try:
        checked = paths.check_artifact_path(path)
    except InvalidInputError:
        return
    assert posixpath.normpath(posixpath.join("/root", checked)) == f"/root/{checked}"
    assert "\0" not in checked
    assert ".." not in checked.replace("\\", "/").split("/")
    assert not os.path.isabs(checked)


@given(PATHS)
def test_what_the_proxy_is_sent_it_reads_as_the_path_that_was_meant(path: str) -> None:
    try:
        sent = paths.proxy_path(paths.check_artifact_path(path))
    except (InvalidInputError, RefusedError):
        return
    assert sent.isascii()
    assert not set(sent) & set("?#\\ ")
    # What MLflow's server does: it decodes the URL, decodes it again until nothing changes, and parses it.
    received = f"1/run/artifacts/{unquote(sent)}"
    for _ in range(10):
        received, before = urlunparse(urlparse(unquote(received))), received
        if received == before:
            break
    assert received == f"1/run/artifacts/{path}"


@pytest.mark.parametrize("path", ["50%20.txt", "a%2e", "a#b", "a\nb", "a\x7f", "what?", "end;", "\udcff"])
def test_a_name_that_the_proxy_would_change_is_refused_and_told_to_be_renamed(path: str) -> None:
    with pytest.raises(RefusedError, match="rename the file"):
        paths.proxy_path(path)


@given(PATHS)
def test_a_server_cannot_list_an_entry_out_of_the_folder(name: str) -> None:
    try:
        path = paths.listed_path("a/b", name, "mlflow-artifacts:/1")
    except RefusedError:
        return
    assert posixpath.dirname(posixpath.normpath(path)) == "a/b"
    assert posixpath.basename(path) == name


@pytest.mark.parametrize("name", ["../x", "/x", "x/y", "..", ".", "", None, 3])
def test_a_listing_with_a_path_instead_of_a_name_is_refused(name: object) -> None:
    with pytest.raises(RefusedError, match="mlflow-artifacts:/1 lists an artifact"):
        paths.listed_path("a", name, "mlflow-artifacts:/1")


def test_an_artifact_file_is_read_as_mlflow_reads_it() -> None:
    assert paths.artifact_file("./a//b.txt") == "a/b.txt"
    with pytest.raises(InvalidInputError, match=r"'\.\.'"):
        paths.artifact_file("a/../../b")
    with pytest.raises(InvalidInputError, match="would be stored as"):
        paths.artifact_file("folder/")


@pytest.mark.parametrize(
    "name", ["a.txt", "b.yaml", "c.png", "d.html", "MLmodel", "e", "f.tar.gz", ".txt", "g.ipynb", "h.unknown", "i.JSON"]
)
def test_files_are_sent_with_the_type_that_mlflow_gives_them(name: str) -> None:
    from mlflow.utils import mime_type_utils

    guess: Any = mime_type_utils._guess_mime_type
    assert paths.content_type(name) == guess(name)
