"""Tracking URIs: one spelling for one store, and errors that lead somewhere."""

from __future__ import annotations

import pathlib

import pytest

from asynctrack.errors import InvalidInputError
from asynctrack.stores.file import FileStore
from asynctrack.stores.uri import open_store, resolve_store_uri


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_store_has_one_uri(here: pathlib.Path) -> None:
    """Relative, absolute, as a path object or as a URI, twice over."""
    expected = f"file://{here}/ml%20r%C3%BCns%23"
    spellings: list[str | pathlib.Path] = [
        "ml rüns#",
        f"{here}/ml rüns#",
        "./x/../ml rüns#/",
        pathlib.Path("ml rüns#"),
        expected,
    ]
    for spelling in [*spellings, f"file:{here}/ml%20r%C3%BCns%23", f"FILE://localhost{here}/ml r%C3%BCns%23"]:
        assert resolve_store_uri(spelling) == expected
    assert open_store(expected).uri == expected


def test_nothing_said_means_mlruns(here: pathlib.Path) -> None:
    """The working directory's mlruns, as in MLflow."""
    for nothing in (None, "", "mlruns", "./mlruns", "file:mlruns", "file:"):
        assert resolve_store_uri(nothing) == f"file://{here}/mlruns"
    store = open_store(None)
    assert isinstance(store, FileStore)
    assert store.root == f"{here}/mlruns"
    assert list(here.iterdir()) == []


def test_home_is_understood(here: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a path, not in a URI."""
    monkeypatch.setenv("HOME", "/home/ann")
    assert resolve_store_uri("~/runs") == "file:///home/ann/runs"


def test_names_with_a_colon_behind_a_slash_are_paths(here: pathlib.Path) -> None:
    """Only what stands before the first slash can be a scheme."""
    assert resolve_store_uri("./a:b") == f"file://{here}/a%3Ab"


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("http://h:5000", "http://h:5000"),
        ("HTTP://H:80/", "http://h"),
        ("https://h/mlflow/", "https://h/mlflow"),
        ("http://ann:secret@h:5000", "http://h:5000"),
        ("databricks", "databricks"),
        ("Databricks://p/", "databricks://p"),
    ],
)
def test_a_server_has_one_spelling_without_credentials(uri: str, resolved: str) -> None:
    """It goes into the spool, logs and messages."""
    assert resolve_store_uri(uri) == resolved
    assert resolve_store_uri(resolved) == resolved


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "postgresql+psycopg2://u:secret@h/db", "mysql://h", "mssql://h"])
def test_a_database_is_reached_through_a_server(uri: str) -> None:
    """The error says how, and shows no password."""
    with pytest.raises(InvalidInputError, match="mlflow server --backend-store-uri") as caught:
        resolve_store_uri(uri)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["ftp://x", "s3://bucket", "uc:models", "file://host/x", "file:///x?y", "a\0b"])
def test_other_uris_are_refused(uri: str) -> None:
    """An error, never a directory of a strange name."""
    with pytest.raises(InvalidInputError):
        resolve_store_uri(uri)
    with pytest.raises(InvalidInputError):
        open_store(uri)


def test_an_unknown_scheme_names_the_three_kinds() -> None:
    """So that the next attempt works."""
    with pytest.raises(InvalidInputError, match=r"file:.*http://.*databricks"):
        resolve_store_uri("ftp://x")


def test_a_file_is_no_store(here: pathlib.Path) -> None:
    """Said at once, not retried for ever."""
    (here / "f").touch()
    with pytest.raises(InvalidInputError, match="not a directory"):
        open_store("f")
