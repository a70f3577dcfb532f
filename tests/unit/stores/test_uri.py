"""Tracking URIs: one spelling for one store, and errors that lead somewhere."""

from __future__ import annotations

import errno
import pathlib
from typing import Any

import pytest

import asynctrack
from asynctrack.errors import InvalidInputError
from asynctrack.stores import uri as uris
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


def test_an_empty_uri_means_mlruns(here: pathlib.Path) -> None:
    """The working directory's, as in MLflow."""
    for empty in ("", " ", "mlruns", "./mlruns", "file:mlruns", "file:"):
        assert resolve_store_uri(empty) == f"file://{here}/mlruns"
    store = open_store("")
    assert isinstance(store, FileStore)
    assert store.root == f"{here}/mlruns"
    assert list(here.iterdir()) == []


def test_nothing_said_means_mlflows_default_database(here: pathlib.Path) -> None:
    """Opening it makes nothing; nor does a folder that only has its artifacts make a difference."""
    assert resolve_store_uri(None) == f"sqlite:///{here}/mlflow.db"
    assert open_store(None).uri == f"sqlite:///{here}/mlflow.db"
    assert list(here.iterdir()) == []
    (here / "mlruns" / "1" / ("0" * 32) / "artifacts").mkdir(parents=True)
    (here / "mlruns" / "meta.yaml").touch()
    assert resolve_store_uri(None) == f"sqlite:///{here}/mlflow.db"


def test_nothing_said_means_mlruns_where_that_holds_experiments(here: pathlib.Path) -> None:
    """So that whoever has logged there goes on there."""
    (here / "mlruns" / "0").mkdir(parents=True)
    (here / "mlruns" / "0" / "meta.yaml").touch()
    assert resolve_store_uri(None) == f"file://{here}/mlruns"


def test_nothing_said_means_what_mlflow_takes_it_for(here: pathlib.Path) -> None:
    from mlflow.tracking._tracking_service.utils import _get_default_tracking_uri

    for name in ("mlruns", "mlruns/vision", "mlruns/vision/meta.yaml", "mlruns/12", "mlruns/12/meta.yaml"):
        (here / name).touch() if name.endswith(".yaml") else (here / name).mkdir()
        theirs = _get_default_tracking_uri()
        assert resolve_store_uri(None) == resolve_store_uri(theirs)


def test_where_no_database_can_be_named_nothing_said_means_mlruns(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "100%20"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert resolve_store_uri(None) == f"file://{tmp_path}/100%2520/mlruns"


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


@pytest.mark.parametrize("uri", ["mysql+pymysql://u:secret@h/db", "mysql://h", "mssql://h"])
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


@pytest.mark.parametrize(
    ("written", "meant"),
    [(" http://h:5000 ", "http://h:5000"), ("\thttps://h\r\n", "https://h"), (" databricks", "databricks")],
)
def test_blanks_around_a_uri_are_not_part_of_it(written: str, meant: str) -> None:
    """They are left by env files; with one in front, a server's URI named a local folder."""
    assert resolve_store_uri(written) == meant


def test_blanks_alone_say_nothing(here: pathlib.Path) -> None:
    """A variable that is set to a blank is not set."""
    assert resolve_store_uri(" ") == f"file://{here}/mlruns"
    assert resolve_store_uri(" ./x ") == f"file://{here}/x"


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("'http://host:5000'", "quote"),
        ('"./mlruns"', "quote"),
        ("http://host:5000'", "quote"),
        ("\u201chttp://host:5000\u201d", "quote"),
        ("\ufeffhttp://host:5000", "invisible mark"),
        ("http://host:5000\u200b", "invisible mark"),
        ("=http://host:5000", "before its scheme"),
        ("export X=http://host", "before its scheme"),
        ("//http://host", "before its scheme"),
        ("./runs/http://host", "before its scheme"),
        ("htp://host", "'htp' is none of"),
        ("a\ud800", "not text in UTF-8"),
        ("x" * 256, "too long"),
        ("file:///" + "x" * 256, "too long"),
        (pathlib.Path("http://host:5000"), "path object"),
        (b"http://host", "bytes"),
        (5, "int"),
    ],
)
def test_what_is_probably_a_slip_is_refused_with_a_sentence(here: pathlib.Path, uri: Any, why: str) -> None:
    """Each of these once was a local folder of a strange name, or an obscure error."""
    with pytest.raises(InvalidInputError, match=f"tracking URI .*{why}"):
        resolve_store_uri(uri)
    assert list(here.iterdir()) == []


def test_a_refused_uri_shows_no_password() -> None:
    """Quotes are a common slip in a file of secrets."""
    for uri in ("'http://ann:secret@host'", "\ufeffhttp://ann:secret@host"):
        with pytest.raises(InvalidInputError) as caught:
            resolve_store_uri(uri)
        assert "secret" not in str(caught.value)


def test_long_names_in_other_alphabets_fit(here: pathlib.Path) -> None:
    """A URI's percent signs do not count."""
    uri = resolve_store_uri("\u00fc" * 120)
    assert resolve_store_uri(uri) == uri
    assert resolve_store_uri(pathlib.Path("it's'")).endswith("/it%27s%27")


def test_a_working_directory_that_is_gone_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked first of a store below it; a store elsewhere is there as ever."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(gone)
    gone.rmdir()
    for ask in (asynctrack.start_run, asynctrack.get_tracking_uri, lambda: asynctrack.set_tracking_uri("runs")):
        with pytest.raises(asynctrack.UnavailableError, match="working directory of this process has been deleted"):
            ask()
    asynctrack.set_tracking_uri(tmp_path / "elsewhere")
    with pytest.raises(asynctrack.InvalidInputError, match="artifact location 'here' is relative"):
        asynctrack.create_experiment("e", artifact_location="here")
    asynctrack.configure(spool_dir=tmp_path / "spool")
    with asynctrack.start_run() as run:
        run.log_metric("m", 1.0)
    assert run.data.metrics == {"m": 1.0}
    monkeypatch.chdir(tmp_path)


def test_where_no_file_can_be_opened_the_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are imported when they are first needed."""

    def full(text: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files", "asynctrack/stores/sql/__init__.py")

    monkeypatch.setattr(uris, "_resolved", full)
    with pytest.raises(asynctrack.UnavailableError, match=r"RLIMIT_NOFILE is \d+ in this process; `ulimit -n`"):
        asynctrack.start_run()
