"""A real PostgreSQL database and its neighbours: lost connections, other writers, what its columns do not take."""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import asynctrack
from asynctrack.errors import RefusedError, UnavailableError, WrongServerError
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.sql import postgres_links
from asynctrack.stores.uri import open_store
from tests.inputs import check_inputs
from tests.mlflow_store import open_mlflow
from tests.postgres import Postgres


@pytest.fixture
def store(postgres_database: str) -> Iterator[AbstractStore]:
    store = open_store(postgres_database, InlineIO())
    yield store
    drive(store.aclose())


@pytest.fixture
def neighbour(postgres_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Another program's connection."""
    with psycopg.connect(postgres_database.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def new_run(store: AbstractStore, **given: Any) -> str:
    return drive(store.create_run(RunSpec(uuid.uuid4().hex, start_time=1, **given))).run_id


def points(first: int, count: int) -> dict[str, Any]:
    return {"m": [(step, step, step / 7) for step in range(first, first + count)]}


def test_points_that_are_there_already_are_left_out(store: AbstractStore) -> None:
    """COPY fails at the first of them, and all go another way."""
    run_id = new_run(store)
    for first in (0, 500, 0):
        assert drive(store.log_batch(run_id, Batch(points(first, 1000), [("p", "1")]))) == []
    history = drive(store.get_metric_history(run_id, "m"))
    assert [(point.step, point.value) for point in history] == [(step, step / 7) for step in range(1500)]


def test_points_are_sent_again_by_a_user_who_may_create_nothing(
    postgres_database: str, neighbour: psycopg.Connection[Any]
) -> None:
    """It took a temporary table, and waited for the right to have one."""
    name = f"writer{uuid.uuid4().hex[:8]}"
    database = neighbour.info.dbname
    for statement in (
        f"CREATE ROLE {name} LOGIN",
        f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}",
    ):
        neighbour.execute(statement.encode())
    store = open_store(postgres_database.replace("//postgres:@", f"//{name}@"), InlineIO())
    assert name in store.uri
    run_id = new_run(store)
    batch: dict[str, Any] = {"m": [(1, 1, math.nan), (2, 1, 0.5)], "n": [(1, 1, -1.0)]}
    for again in (batch, batch, {**batch, "n": [(1, 2, 1e300), (1, 1, -1.0)]}):
        assert drive(store.log_batch(run_id, Batch(again))) == []
    found = neighbour.execute("SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = %s", (run_id,))
    assert sorted(found) == [
        ("m", 1, 1, 0.0, True), ("m", 2, 1, 0.5, False), ("n", 1, 1, -1.0, False), ("n", 1, 2, 1e300, False),
    ]  # fmt: skip
    drive(store.aclose())


def test_a_large_batch_takes_longer_than_a_statement_may_elsewhere(
    postgres_database: str, neighbour: psycopg.Connection[Any]
) -> None:
    store = open_store(f"{postgres_database}&options=-cstatement_timeout%3D5", InlineIO())
    run_id = new_run(store)
    for _ in range(2):
        assert drive(store.log_batch(run_id, Batch(points(0, 3000)))) == []
    assert neighbour.execute("SELECT count(*) FROM metrics WHERE run_uuid = %s", (run_id,)).fetchone() == (3000,)
    drive(store.aclose())


def test_nothing_is_left_in_a_session_that_a_pooler_gives_to_others(store: AbstractStore) -> None:
    run_id = new_run(store)
    drive(store.log_batch(run_id, Batch(points(0, 10))))
    drive(store.get_run(run_id))
    [link] = [link for uri, link in postgres_links._idle.items() if uri == store.uri]
    changed = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT IN ('transaction_isolation')"
    assert link.connection.execute(changed).fetchall() == []
    assert link.connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_texts_are_what_they_are_whatever_encoding_somebody_has_set(postgres_database: str) -> None:
    """Points are copied in a binary format, past libpq's own encoding."""
    store = open_store(f"{postgres_database}&client_encoding=LATIN1", InlineIO())
    run_id = new_run(store)
    assert drive(store.log_batch(run_id, Batch({"è/ü": [(1, 1, 1.0)]}, [("é", "ß")]))) == []
    found = drive(store.get_run(run_id)).data
    assert (found.metrics, found.params) == ({"è/ü": 1.0}, {"é": "ß"})
    drive(store.aclose())


def test_a_text_with_a_nul_is_kept_as_a_server_keeps_it(store: AbstractStore) -> None:
    """No column takes it. In a tag that a run is started with it would refuse the whole run."""
    spec = RunSpec(uuid.uuid4().hex, run_name="r\0n", user_id="u\0", tags={"note": "a\0b"}, experiment_name="nul")
    for _ in range(2):
        run_id = drive(store.create_run(spec)).run_id
        assert drive(store.log_batch(run_id, Batch(points(0, 3), [("p", "\0")], [("t", "x\0y")]))) == []
    [refused] = drive(store.log_batch(run_id, Batch(params=[("p", "another\0")])))
    assert (refused.kind, refused.key) == ("param", "p")
    found = drive(store.get_run(run_id))
    assert (found.info.run_name, found.info.user_id, found.data.params) == ("r\ufffdn", "u\ufffd", {"p": "\ufffd"})
    assert found.data.tags.items() >= {"note": "a\ufffdb", "t": "x\ufffdy", "mlflow.runName": "r\ufffdn"}.items()
    drive(store.set_experiment_tag(found.info.experiment_id, "e", "\0"))
    assert drive(store.get_experiment(found.info.experiment_id)).tags["e"] == "\ufffd"


def test_a_connection_that_is_cut_is_opened_anew(store: AbstractStore, neighbour: psycopg.Connection[Any]) -> None:
    run_id = new_run(store)
    neighbour.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asynctrack'")
    with pytest.raises(UnavailableError) as caught:
        drive(store.log_batch(run_id, Batch(points(0, 10))))
    assert "Nothing is lost" in str(caught.value)
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []


def test_a_row_that_somebody_has_locked_is_waited_for_and_then_said(
    store: AbstractStore, neighbour: psycopg.Connection[Any]
) -> None:
    run_id = new_run(store)
    store.patience = 0.05
    with neighbour.transaction():
        neighbour.execute("SELECT 1 FROM runs WHERE run_uuid = %s FOR UPDATE", (run_id,))
        with pytest.raises(UnavailableError, match="lock timeout"):
            drive(store.log_batch(run_id, Batch(points(0, 10))))
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []


def test_a_reader_waits_for_a_locked_table_no_longer_than_a_writer(
    store: AbstractStore, neighbour: psycopg.Connection[Any]
) -> None:
    """Whoever upgrades the tables has them locked for minutes."""
    run_id = new_run(store)
    store.patience = 0.05
    for table in ("runs", "alembic_version"):
        with neighbour.transaction():
            neighbour.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            with pytest.raises(UnavailableError, match="another transaction keeps it locked"):
                drive(store.get_run(run_id))
    assert drive(store.get_run(run_id)).info.run_id == run_id


def test_writers_of_the_same_runs_in_any_order_never_wait_for_each_other_for_ever(postgres_database: str) -> None:
    """Neither params nor runs are written in the order in which they are given."""
    stores = [open_store(postgres_database, InlineIO()) for _ in range(2)]
    run_id = new_run(stores[0])
    keys = [f"k{number}" for number in range(40)]
    found: list[Any] = []

    def log(store: AbstractStore, order: list[str]) -> None:
        for number in range(15):
            params = [(f"{key}.{number}", "1") for key in order]
            tags = [(key, str(number)) for key in order]
            metrics: dict[str, Any] = {key: [(number, number, 1.0)] for key in order}
            found.append(drive(store.log_batch(run_id, Batch(metrics, params, tags))))

    threads = [
        threading.Thread(target=log, args=(store, order))
        for store, order in zip(stores, (keys, keys[::-1]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        drive(store.aclose())
    assert found == [[]] * 30


def test_what_a_column_does_not_take_is_refused_and_names_are_cut(
    store: AbstractStore, neighbour: psycopg.Connection[Any]
) -> None:
    run_id = new_run(store, run_name="n" * 300, user_id="u" * 300)
    info = drive(store.get_run_info(run_id))
    assert (info.run_name, info.user_id) == ("n" * 250, "u" * 256)
    neighbour.execute("ALTER TABLE params ADD CONSTRAINT its_owners CHECK (value <> 'forbidden')")
    try:
        with pytest.raises(RefusedError) as caught:
            drive(store.log_batch(run_id, Batch(params=[("p", "forbidden")])))
    finally:
        neighbour.execute("ALTER TABLE params DROP CONSTRAINT its_owners")
    assert caught.value.splittable
    assert drive(store.log_batch(run_id, Batch(params=[("p", "1")]))) == []


def test_columns_of_other_types_take_the_points_all_the_same(postgres_cluster: Postgres) -> None:
    """What a future MLflow may make of them. COPY's binary format would be misread there."""
    with psycopg.connect(postgres_cluster.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE other TEMPLATE template0")
    url = postgres_cluster.url.replace("/postgres?", "/other?")
    open_mlflow(url)._dispose_engine()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER TABLE metrics ALTER COLUMN timestamp TYPE numeric, ALTER COLUMN key TYPE text")
    store = open_store(url, InlineIO())
    run_id = new_run(store)
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []
    history = drive(store.get_metric_history(run_id, "m"))
    assert [(int(point.timestamp), point.step, point.value) for point in history] == [(i, i, i / 7) for i in range(10)]
    drive(store.aclose())


def test_a_database_without_tables_is_held_and_not_changed(postgres_cluster: Postgres) -> None:
    with psycopg.connect(postgres_cluster.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty TEMPLATE template0")
    store = open_store(postgres_cluster.url.replace("/postgres?", "/empty?"), InlineIO())
    with pytest.raises(WrongServerError, match="no table experiments"):
        new_run(store)
    missing = open_store(postgres_cluster.url.replace("/postgres?", "/missing?"), InlineIO())
    with pytest.raises(WrongServerError, match="missing"):
        new_run(missing)
    drive(store.aclose())


def test_a_program_logs_through_the_engine(postgres_database: str) -> None:
    """MLflow's rows are there when its block ends."""
    with asynctrack.start_run(tracking_uri=postgres_database, experiment_name=uuid.uuid4().hex) as run:
        for step in range(2000):
            run.log_metric("m", step / 2, step=step)
        run.log_param("p", 1)
    stored = asynctrack.get_service(postgres_database).get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics, stored.data.params) == ("FINISHED", {"m": 999.5}, {"p": "1"})


def test_datasets_and_models_are_kept(store: AbstractStore) -> None:
    check_inputs(store)


# ── connections


@pytest.fixture
def few(postgres_database: str, neighbour: psycopg.Connection[Any]) -> Iterator[str]:
    """The URI of a user who may have two connections."""
    for statement in ("CREATE ROLE few LOGIN CONNECTION LIMIT 2", "GRANT ALL ON ALL TABLES IN SCHEMA public TO few"):
        neighbour.execute(statement.encode())
    yield postgres_database.replace("://postgres:", "://few:").replace("://postgres@", "://few@")
    for statement in ("DROP OWNED BY few", "DROP ROLE few"):
        neighbour.execute(statement.encode())


def connections(neighbour: psycopg.Connection[Any], user: str = "few") -> int:
    [count] = neighbour.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (user,)).fetchone() or [0]
    return int(count)


def test_a_program_keeps_one_connection_whatever_it_asks(few: str, neighbour: psycopg.Connection[Any]) -> None:
    """Its engine, its questions and its services each have a store."""
    service = asynctrack.get_service(few)
    run_id = service.create_run("0").info.run_id
    with asynctrack.start_run(tracking_uri=few, run_id=run_id) as run:
        run.log_metric("m", 1.0)
        run.flush()
        assert service.get_run(run_id).data.metrics == {"m": 1.0}
        for _ in range(3):
            other = open_store(few, InlineIO())
            assert drive(other.get_run(run_id)).data.metrics == {"m": 1.0}
        until = time.monotonic() + 60
        while connections(neighbour) != 1 and time.monotonic() < until:  # one that is closed is gone a moment later
            time.sleep(0.01)
        assert connections(neighbour) == 1


def test_two_transactions_at_once_have_a_connection_each_and_one_is_kept(
    few: str, neighbour: psycopg.Connection[Any]
) -> None:
    stores: list[Any] = [open_store(few, InlineIO()) for _ in range(2)]
    with stores[0]._database.read(10.0) as one, stores[1]._database.read(10.0) as other:
        assert one.rows("SELECT pg_backend_pid()") != other.rows("SELECT pg_backend_pid()")
    drive(stores[0].get_experiment("0"))
    assert stores[0].uri in postgres_links._idle
    drive(stores[0].aclose())
    assert stores[0].uri not in postgres_links._idle


def test_a_server_that_takes_no_more_connections_is_waited_for(few: str, neighbour: psycopg.Connection[Any]) -> None:
    """After its patience a call says what is wrong."""
    plain = few.replace("+psycopg", "")
    taken = [psycopg.connect(plain) for _ in range(2)]
    store = open_store(few, InlineIO())
    store.patience = 0.2
    with pytest.raises(UnavailableError, match="too many connections"):
        new_run(store)
    store.patience = 60.0
    freed = threading.Timer(0.3, taken[0].close)
    freed.start()
    run_id = new_run(store)
    freed.join()
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []
    drive(store.aclose())
    taken[1].close()


def test_no_connection_is_kept_where_a_server_is_nearly_full(
    few: str, neighbour: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_links, "_SHARE", 0.0)
    store = open_store(few, InlineIO())
    run_id = new_run(store)
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []
    assert store.uri not in postgres_links._idle


def test_a_forked_child_has_a_connection_of_its_own(store: AbstractStore) -> None:
    run_id = new_run(store)
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()

    def log() -> None:
        try:
            results.put(repr(drive(store.log_batch(run_id, Batch(points(10, 10))))))
        except Exception as error:
            results.put(repr(error))

    child = fork.Process(target=log)
    child.start()
    child.join()
    assert results.get() == "[]"
    assert drive(store.log_batch(run_id, Batch(points(0, 10)))) == []
    assert len(drive(store.get_metric_history(run_id, "m"))) == 20
