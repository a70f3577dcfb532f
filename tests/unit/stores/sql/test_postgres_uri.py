"""What a PostgreSQL URI means, and what is kept of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import asynctrack
from asynctrack.engine.child import shipper_environment
from asynctrack.errors import InvalidInputError
from asynctrack.settings import current_settings
from asynctrack.stores.sql.postgres_uri import parse_postgres
from asynctrack.stores.uri import open_store, resolve_store_uri

SECRET = "s3cr3t!"


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("postgresql://h/db", "postgresql://h/db"),
        ("postgresql+psycopg2://H:5432/db", "postgresql://h:5432/db"),
        ("postgresql+psycopg://u@h:5433/db", "postgresql://u@h:5433/db"),
        ("postgres://u:s3cr3t%21@h/db", "postgresql://u@h/db"),
        ("postgresql://u%40x:s3cr3t%21@[::1]:6000/a%20b", "postgresql://u%40x@[::1]:6000/a%20b"),
        ("postgresql:///db?host=/run/pg&password=s3cr3t%21", "postgresql:///db?host=%2Frun%2Fpg"),
        ("postgresql://h/db?sslmode=verify-full&options=-csearch_path%3Dx", "postgresql://h/db?options=-csearch_path%3Dx&sslmode=verify-full"),
        ("postgresql+psycopg2://h/db?prepare_threshold=5", "postgresql://h/db"),
    ],
)  # fmt: skip
def test_a_database_has_one_spelling_without_its_password(text: str, uri: str) -> None:
    place = parse_postgres(text)
    assert place.uri == uri
    assert parse_postgres(uri)._replace(password=place.password) == place
    assert SECRET not in uri
    assert place.password == (SECRET if "s3cr3t" in text else "")
    assert SECRET not in repr(place)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+pg://u:s3cr3t!@h/db",
        "postgresql://u:s3cr3t!@h:port/db",
        "postgresql://u:s3cr3t! x@h/db",
        "postgresql://u:s3cr3t!@h1,h2/db",
        "postgresql://u:s3cr3t!#@h/db",
        "postgresql://h/db?sslpassword=s3cr3t!",
    ],
)
def test_what_cannot_be_read_is_said_without_the_password(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        resolve_store_uri(text)
    assert SECRET not in str(caught.value)
    assert "postgresql://" in str(caught.value)


def test_without_the_driver_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"asynctrack\[postgresql\]"):
        open_store("postgresql://u:s3cr3t!@h/db")


def test_a_password_is_kept_in_memory_and_handed_to_the_shipper_only(tmp_path: Path) -> None:
    """Neither the store's name nor the spool knows it."""
    asynctrack.configure(mode="offline")
    with asynctrack.start_run(tracking_uri=f"postgresql://u:{SECRET}@h/db", experiment_name="e") as run:
        run.log_metric("m", 1.0)
    asynctrack.shutdown()
    found = [path for path in Path(".asynctrack").rglob("*") if path.is_file()]
    assert any(b"postgresql://u@h/db" in path.read_bytes() for path in found)
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]
    store = open_store("postgresql://u@h/db")
    assert SECRET not in repr(store) + repr(vars(store)) + repr(vars(store._database))  # type: ignore[attr-defined]
    environment = shipper_environment("postgresql://u@h/db", current_settings())
    assert environment["PGPASSWORD"] == SECRET
    assert "MLFLOW_TRACKING_PASSWORD" not in environment.keys() - os.environ.keys()
