"""Which file an SQLite URI means, and where artifacts go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asynctrack.errors import InvalidInputError
from asynctrack.stores.sql.places import artifact_root, local_place
from asynctrack.stores.uri import open_store, resolve_store_uri


def test_a_relative_database_is_below_the_working_directory_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = resolve_store_uri("sqlite:///runs/x.db")
    assert uri == f"sqlite:///{os.path.realpath(tmp_path)}/runs/x.db"
    monkeypatch.chdir("/")
    assert resolve_store_uri(uri) == uri


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:////abs/x.db", "/abs/x.db"),
        ("sqlite+pysqlite:////abs/x.db", "/abs/x.db"),
        ("SQLite:////abs/x.db", "/abs/x.db"),
        ("sqlite:////abs/a%20b.db", "/abs/a b.db"),
        ("sqlite:////abs/a b.db", "/abs/a b.db"),
        ("sqlite:////abs/é.db?timeout=5&check_same_thread=false", "/abs/é.db"),
        ("sqlite:////abs/../x.db", "/x.db"),
    ],
)
def test_a_database_has_one_spelling(text: str, path: str) -> None:
    assert resolve_store_uri(text) == f"sqlite:///{path}"
    assert resolve_store_uri(f"sqlite:///{path}") == f"sqlite:///{path}"
    assert open_store(text).uri == f"sqlite:///{path}"


def test_links_lead_to_the_database_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_store_uri("sqlite:///link/x.db") == resolve_store_uri("sqlite:///real/x.db")


def test_a_name_that_exists_only_as_it_is_spelled_is_opened(tmp_path: Path) -> None:
    """SQLAlchemy 2.0 has made it so."""
    (tmp_path / "a%20b.db").touch()
    assert resolve_store_uri("sqlite:///a%20b.db").endswith("/a%20b.db")
    (tmp_path / "a b.db").touch()
    assert resolve_store_uri("sqlite:///a%20b.db").endswith("/a b.db")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sqlite://", "names no SQLite database"),
        ("sqlite:x.db", "names no SQLite database"),
        ("sqlite://x.db", "names no SQLite database"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "'mode'"),
        ("sqlite:///file:x.db", "file: URI"),
        ("sqlite+aiosqlite:///x.db", "no driver 'aiosqlite'"),
        ("sqlite:///100%25.db", "'%' or '\\?'"),
    ],
)
def test_what_is_no_database_of_ours_is_said_at_once(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        resolve_store_uri(text)


def test_artifacts_are_beside_the_database() -> None:
    assert artifact_root("/data/x.db") == "/data/mlruns"


def test_a_place_for_artifacts_that_is_a_path_is_made_absolute(tmp_path: Path) -> None:
    assert local_place("art/x") == f"{tmp_path}/art/x"
    assert local_place("/a/b:c") == "/a/b:c"
    assert local_place("s3://bucket/x") == "s3://bucket/x"
    assert local_place("file:/x") == "file:/x"
