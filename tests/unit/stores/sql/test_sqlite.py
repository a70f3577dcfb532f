"""An SQLite file and its neighbours: locks, lost files, forks. Nothing that goes wrong there loses or changes data."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import asynctrack
from asynctrack.clock import monotonic
from asynctrack.errors import FlushTimeoutError, NotFoundError, RefusedError, UnavailableError, WrongServerError
from asynctrack.stores.base import AbstractStore, Batch, RunSpec
from asynctrack.stores.io import InlineIO, drive
from asynctrack.stores.sql import forking, sharing
from asynctrack.stores.sql.turnstile import Turnstile
from asynctrack.stores.uri import open_store

POINT: dict[str, Any] = {"m": [(1, 1, 1.0)]}


@pytest.fixture
def path(memory_path: Path) -> Path:
    return memory_path / "x.db"


def opened(path: Path) -> AbstractStore:
    store = open_store(f"sqlite:///{path}", InlineIO())
    store.patience = 0.05
    return store


@pytest.fixture
def store(path: Path) -> Iterator[AbstractStore]:
    store = opened(path)
    yield store
    drive(store.aclose())


@pytest.fixture
def neighbour(store: AbstractStore, path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection."""
    drive(store.get_experiment("0"))
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


@pytest.fixture
def kept() -> Iterator[Callable[[Path], AbstractStore]]:
    """Opens a database, and closes it at the end."""
    stores: list[AbstractStore] = []

    def keep(path: Path) -> AbstractStore:
        stores.append(open_store(f"sqlite:///{path}", InlineIO()))
        return stores[-1]

    yield keep
    for each in stores:
        drive(each.aclose())


def new_run(store: AbstractStore, **given: Any) -> str:
    return drive(store.create_run(RunSpec(uuid.uuid4().hex, start_time=1, **given))).run_id


def log(store: AbstractStore, run_id: str, **given: Any) -> list[Any]:
    return drive(store.log_batch(run_id, Batch(**(given or {"metrics": POINT}))))


def counted(path: Path, table: str = "metrics") -> int:
    connection = sqlite3.connect(path)
    try:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()
    return count


def is_whole(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        connection.close()


# ── locks


def test_a_lock_that_somebody_holds_is_waited_for_and_then_said(
    store: AbstractStore, neighbour: sqlite3.Connection, path: Path
) -> None:
    """It is tried again later, and what was to be written is not."""
    run_id = new_run(store)
    neighbour.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="database is locked"):
        log(store, run_id)
    with pytest.raises(UnavailableError, match="locked"):
        drive(store.update_run(run_id, status="FINISHED"))
    neighbour.execute("COMMIT")
    assert log(store, run_id) == []
    assert counted(path) == 1


def test_a_lock_is_waited_for_also_by_who_opens_the_database(path: Path) -> None:
    first = opened(path)
    run_id = new_run(first)
    drive(first.aclose())
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    ended = threading.Timer(0.1, lambda: holder.execute("COMMIT"))
    ended.start()
    store = opened(path)
    store.patience = 20.0
    assert log(store, run_id) == []
    ended.join()
    holder.close()
    drive(store.aclose())


def test_a_reader_holds_a_commit_up_and_it_is_repeated(
    store: AbstractStore, neighbour: sqlite3.Connection, path: Path
) -> None:
    run_id = new_run(store)
    neighbour.execute("BEGIN")
    neighbour.execute("SELECT count(*) FROM metrics").fetchall()
    with pytest.raises(UnavailableError, match="locked"):
        log(store, run_id)
    neighbour.execute("COMMIT")
    store.patience = 20.0
    another = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    another.execute("BEGIN")
    another.execute("SELECT count(*) FROM metrics").fetchall()
    ended = threading.Timer(0.05, lambda: another.execute("COMMIT"))
    ended.start()
    assert log(store, run_id) == []
    ended.join()
    another.close()
    assert counted(path) == 1


def test_a_locked_database_never_reaches_the_training_loop(path: Path) -> None:
    """What was logged meanwhile is in it once it is free."""
    with asynctrack.start_run(tracking_uri=f"sqlite:///{path}") as run:
        neighbour = sqlite3.connect(path, isolation_level=None)
        neighbour.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        for step in range(20_000):
            run.log_metric("m", 1.0, step=step)
        assert time.monotonic() - begun < 10  # it holds the lock for as long as it likes
        neighbour.execute("COMMIT")
        neighbour.close()
    assert counted(path) == 20_000


def test_a_flush_in_vain_says_that_a_locked_database_has_not_answered(
    store: AbstractStore, neighbour: sqlite3.Connection, path: Path
) -> None:
    """It is waited for for 20 s before that is an error."""
    with asynctrack.start_run(tracking_uri=f"sqlite:///{path}") as run:
        neighbour.execute("BEGIN IMMEDIATE")
        run.log_metric("m", 1.0)
        with pytest.raises(FlushTimeoutError, match="no answer yet"):
            run.flush(timeout=0.3)
        neighbour.execute("COMMIT")
    assert counted(path) == 1


def test_a_search_holds_nobody_up_while_it_filters(
    store: AbstractStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asynctrack.stores import search

    run_id = new_run(store)
    matches = search.matches

    def writing(clauses: Any, get: Any) -> bool:
        neighbour = sqlite3.connect(path, timeout=0)
        neighbour.execute("UPDATE runs SET user_id = 'b'")
        neighbour.commit()
        neighbour.close()
        return matches(clauses, get)

    monkeypatch.setattr(search, "matches", writing)
    found = drive(store.search_runs(["0"], "attributes.status = 'RUNNING'"))
    assert [run.info.run_id for run in found.items] == [run_id]


# ── the file


def test_a_database_that_has_gone_is_not_made_again(store: AbstractStore, path: Path) -> None:
    """In an empty one in its place, the events of its runs would be refused for good."""
    run_id = new_run(store)
    path.rename(path.with_suffix(".away"))
    for verb in (lambda: log(store, run_id), lambda: new_run(store), lambda: drive(store.get_run(run_id))):
        with pytest.raises(UnavailableError, match="is not there"):
            verb()
    assert not path.exists()
    path.with_suffix(".away").rename(path)
    assert log(store, run_id) == []


def test_events_never_make_a_database(path: Path) -> None:
    store = opened(path)
    with pytest.raises(UnavailableError, match="not there"):
        log(store, "f" * 32)
    assert not path.exists()


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: store.set_experiment_tag("7", "k", "v"),
        lambda store: store.delete_experiment_tag("7", "k"),
        lambda store: store.rename_experiment("7", "name"),
        lambda store: store.delete_experiment("7"),
        lambda store: store.restore_experiment("7"),
        lambda store: store.delete_run("f" * 32),
        lambda store: store.restore_run("f" * 32),
        lambda store: store.delete_tag("f" * 32, "k"),
    ],
)
def test_what_a_user_asks_first_makes_the_database(
    path: Path, verb: Callable[[AbstractStore], Coroutine[Any, Any, None]]
) -> None:
    """As MLflow does: then nothing else is in it than its default experiment."""
    store = opened(path)
    with pytest.raises(NotFoundError):
        drive(verb(store))
    drive(store.set_experiment_tag("0", "k", "v"))
    assert drive(store.get_experiment("0")).tags == {"k": "v"}
    drive(store.aclose())


def test_another_database_in_its_place_is_seen(store: AbstractStore, path: Path) -> None:
    """A connection goes on to write the file that it has opened, which nobody sees any more."""
    run_id = new_run(store)
    other = opened(path.with_name("other.db"))
    theirs = new_run(other)
    drive(other.aclose())
    path.with_name("other.db").rename(path)
    assert log(store, theirs) == []
    assert counted(path) == 1
    with pytest.raises(NotFoundError):
        log(store, run_id)


def test_what_is_no_database_is_held_until_somebody_mends_it(store: AbstractStore, path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(WrongServerError, match="no SQLite database"):
        new_run(store)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(WrongServerError, match="no table experiments"):
        new_run(store)
    path.unlink()
    path.mkdir()
    with pytest.raises(WrongServerError, match=r"x\.db is a folder; write the path of a database in it"):
        new_run(store)


def test_a_path_at_which_no_database_can_be_is_said_at_once(path: Path) -> None:
    path.touch()
    for place, reason in (
        (path / "y.db", "is a file"),
        (path / "y/z.db", "is a file"),
        (Path("/dev/null"), "no ordin"),
    ):
        store = opened(place)
        with pytest.raises(WrongServerError, match=reason):
            new_run(store)
        drive(store.aclose())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_database_that_may_not_be_written_says_so(store: AbstractStore, path: Path) -> None:
    run_id = new_run(store)
    drive(store.aclose())
    path.chmod(0o400)
    with pytest.raises(UnavailableError, match="right to write"):
        log(store, run_id)


def test_a_full_disk_loses_nothing_and_is_said(store: AbstractStore, path: Path) -> None:
    run_id = new_run(store)
    database = store._database  # type: ignore[attr-defined]
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count = {pages}")
    many: dict[str, Any] = {"m": [(step, step, 1.0) for step in range(5000)]}
    with pytest.raises(UnavailableError, match="free some space"):
        log(store, run_id, metrics=many)
    assert counted(path) == 0
    database._connection.execute("PRAGMA max_page_count = 100000")
    assert log(store, run_id, metrics=many) == []
    assert counted(path) == 5000


def test_a_database_is_made_once_however_many_ask_at_the_same_time(path: Path) -> None:
    def make() -> None:
        store = open_store(f"sqlite:///{path}", InlineIO())
        new_run(store, experiment_name="e")
        drive(store.aclose())

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counted(path, "runs"), counted(path, "experiments"), counted(path, "alembic_version")) == (6, 2, 1)


def test_a_database_that_could_not_be_made_at_first_is_made_later(path: Path) -> None:
    """The disk was full, or somebody held the empty file: events waited for tables that nobody made."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store = opened(path)
    with pytest.raises(UnavailableError, match="locked"):
        new_run(store)
    holder.execute("ROLLBACK")
    holder.close()
    assert log(store, new_run(store)) == []
    drive(store.aclose())


def test_an_empty_file_that_was_asked_first_becomes_a_database(path: Path) -> None:
    path.touch()
    store = opened(path)
    with pytest.raises(UnavailableError, match="no tables yet"):
        drive(store.update_run("a" * 32, status="FINISHED"))
    assert log(store, new_run(store)) == []
    drive(store.aclose())


def test_the_folder_of_a_new_database_is_made(memory_path: Path) -> None:
    store = opened(memory_path / "a/b/x.db")
    new_run(store)
    assert (memory_path / "a/b/x.db").exists()
    drive(store.aclose())


def test_a_journal_mode_that_somebody_has_chosen_stays(store: AbstractStore, path: Path) -> None:
    run_id = new_run(store)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = wal")
    assert log(store, run_id) == []
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("SELECT count(*) FROM metrics").fetchone()[0] == 1
    connection.close()


def test_a_network_file_system_is_warned_of_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "filesystem_of", lambda fd: "nfs4")
    for _ in range(2):
        store = opened(path)
        new_run(store)
        drive(store.aclose())
    assert [record.levelno for record in caplog.records if "network file system (nfs4)" in record.message] == [
        logging.WARNING
    ]


# ── what cannot be stored


def test_a_run_that_mlflow_has_collected_is_not_there(
    store: AbstractStore, neighbour: sqlite3.Connection, path: Path
) -> None:
    """SQLite would take metrics of a run that does not exist."""
    run_id = new_run(store)
    neighbour.execute("DELETE FROM tags")
    neighbour.execute("DELETE FROM runs")
    with pytest.raises(NotFoundError):
        log(store, run_id)
    assert counted(path) == 0


def test_points_that_no_column_takes_are_refused_alone(store: AbstractStore, path: Path) -> None:
    run_id = new_run(store)
    points: Any = [(1, 1, 1.0), (-1, 2, 1.0), (2, 2**63, 1.0)]
    refused = log(store, run_id, metrics={"m": points})
    assert [(refusal.kind, refusal.key, refusal.value) for refusal in refused] == [
        ("metric", "m", points[1]),
        ("metric", "m", points[2]),
    ]
    assert counted(path) == 1


def test_what_is_too_long_is_cut_as_mlflow_does_and_said_once(
    store: AbstractStore, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = new_run(store)
    for _ in range(2):
        assert log(store, run_id, params=[("p", "x" * 6001)], tags=[("t", "y" * 8001)]) == []
    data = drive(store.get_run(run_id)).data
    assert (len(data.params["p"]), len(data.tags["t"])) == (6000, 8000)
    assert sum("was cut to" in record.message for record in caplog.records) == 2


def test_an_id_that_is_longer_than_its_column_is_refused(store: AbstractStore) -> None:
    with pytest.raises(RefusedError, match="cannot be a run's id"):
        drive(store.create_run(RunSpec("a" * 33, start_time=1)))


def test_deleting_a_run_deletes_its_judgements_as_mlflow_does(
    store: AbstractStore, neighbour: sqlite3.Connection
) -> None:
    run_id, other = new_run(store), new_run(store)
    neighbour.execute("CREATE TABLE assessments (assessment_id, assessment_metadata)")
    for run in (run_id, other):
        neighbour.execute(
            "INSERT INTO assessments VALUES (?, ?)", (run, f'{{"mlflow.assessment.sourceRunId": "{run}", "a": "b"}}')
        )
    drive(store.delete_run(run_id))
    assert neighbour.execute("SELECT assessment_id FROM assessments").fetchall() == [(other,)]


# ── forks


def log_in_child(path: Path, store: AbstractStore, run_id: str, results: Any) -> None:
    try:
        results.put(repr(log(store, run_id, metrics={"child": [(step, step, 1.0) for step in range(500)]})))
    except Exception as error:
        results.put(repr(error))


class Database:
    """One that takes part in forks."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.asked = threading.Semaphore(0)

    def before_fork(self, wait: float) -> bool:
        self.asked.release()
        return self.lock.acquire(timeout=wait)

    def after_fork(self) -> None:
        self.lock.release()

    def in_child(self) -> None:
        self.lock = threading.RLock()


@pytest.mark.parametrize("patience", [0.01, 30])
def test_two_threads_that_fork_at_once_let_go_of_a_database(patience: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one has not got it in time: nothing was written to it any more."""
    database = Database()
    monkeypatch.setattr(forking, "_watched", {database})
    monkeypatch.setattr(forking, "_PATIENCE", patience)
    begun, forked = threading.Event(), threading.Event()

    def fork() -> None:
        forking._before()
        begun.set()
        assert forked.wait(30)
        forking._after_in_parent()

    forking._before()
    assert database.asked.acquire(timeout=30)
    thread = threading.Thread(target=fork)
    thread.start()
    assert database.asked.acquire(timeout=30)
    assert patience == 30 or begun.wait(30)
    forking._after_in_parent()
    forked.set()
    thread.join(30)
    assert not thread.is_alive()
    assert database.lock.acquire(timeout=1)


def test_a_forked_child_writes_over_a_connection_of_its_own(store: AbstractStore, path: Path) -> None:
    store.patience = 20.0
    run_id = new_run(store)
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    children = [fork.Process(target=log_in_child, args=(path, store, run_id, results)) for _ in range(2)]
    for child in children:
        child.start()
    for step in range(50):
        assert log(store, run_id, metrics={"parent": [(step, step, 1.0)]}) == []
    for child in children:
        child.join()
    assert [results.get() for _ in children] == ["[]", "[]"]
    assert counted(path) == 550
    assert is_whole(path)


def test_a_child_of_a_transaction_leaves_the_database_to_its_parent(store: AbstractStore, path: Path) -> None:
    """It would believe that its parent's locks are its own."""
    run_id = new_run(store)
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=log_in_child, args=(path, opened(path), run_id, results))
    with store._database.write(1.0) as session:  # type: ignore[attr-defined]
        session.execute("UPDATE runs SET user_id = 'changed'")
        child.start()
        child.join()
        assert "forked in the middle of a transaction" in results.get()
    assert drive(store.get_run(run_id)).info.user_id == "changed"
    assert is_whole(path)


# ── sharing


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(sharing, "monotonic", lambda: self.now)
        monkeypatch.setattr(sharing, "rest", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


class Versions:
    """A connection that says how often others have committed."""

    commits = 7

    def execute(self, statement: str) -> Versions:
        assert statement == "PRAGMA data_version"
        return self

    def fetchone(self) -> tuple[int]:
        return (self.commits,)


def transactions(clock: Clock, manners: sharing.Manners, seconds: float, versions: Any, count: int) -> list[float]:
    """The pauses around some transactions that take so long."""
    clock.slept.clear()
    for _ in range(count):
        manners.enter(clock.now + 10)
        manners.began(versions)
        clock.now += seconds
        manners.committed()
        manners.leave()
    return clock.slept


def test_a_writer_alone_rests_rarely(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert transactions(clock, sharing.Manners(str(path)), 0.25, Versions(), 30) == [0.12, 0.12]


def test_a_writer_in_company_takes_half_of_the_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, versions, manners = Clock(monkeypatch), Versions(), sharing.Manners(str(path))
    assert transactions(clock, manners, 0.05, versions, 3) == []
    versions.commits += 1
    assert transactions(clock, manners, 0.05, versions, 4) == [0.05, 0.05, 0.05, 0.05]
    clock.now += 5.0
    assert transactions(clock, manners, 0.05, versions, 3) == []


def test_writers_in_company_take_turns(path: Path) -> None:
    """Whoever has waited in vain goes without, for a while: it is manners only."""
    one, other = Turnstile(str(path)), Turnstile(str(path))
    one.enter(monotonic() + 60)
    one.enter(monotonic() + 60)  # it is in
    other.enter(monotonic() + 0.05)
    assert not other.entered
    one.leave()
    other.enter(monotonic() + 60)
    assert not other.entered
    third = Turnstile(str(path))
    third.enter(monotonic() + 60)
    assert third.entered
    third.leave()


def test_a_program_that_is_killed_lets_the_next_one_in(path: Path) -> None:
    code = (
        "import sys, time; from asynctrack.stores.sql.turnstile import Turnstile; its = Turnstile(sys.argv[1]); "
        "its.enter(time.monotonic() + 60); print(its.entered, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "True\n"
        ours = Turnstile(str(path))
        ours.enter(monotonic())
        assert not ours.entered
        program.kill()
    ours = Turnstile(str(path))
    ours.enter(monotonic() + 60)
    assert ours.entered
    ours.leave()


def test_between_two_of_us_the_file_is_free_for_others(
    store: AbstractStore, neighbour: sqlite3.Connection, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow waits as SQLite does: it looks every 100 ms at last, and gives up after 20 s. With sixteen of us, the file
    was hardly ever free at these moments."""
    run_id = new_run(store)
    neighbour.execute("UPDATE runs SET user_id = 'a'")
    assert log(store, run_id) == []  # now it knows of its neighbour
    found: list[tuple[bool, str]] = []

    def look(seconds: float) -> None:
        another = Turnstile(str(path))
        another.enter(monotonic())
        neighbour.execute("UPDATE runs SET user_id = 'b'")
        found.append((another.entered, neighbour.execute("SELECT user_id FROM runs").fetchone()[0]))

    monkeypatch.setattr(sharing, "rest", look)
    assert log(store, run_id, params=[("p", "1")]) == []
    assert found == [(False, "b")]
    another = Turnstile(str(path))
    another.enter(monotonic())
    assert another.entered
    another.leave()


# ── what waited elsewhere


def test_a_spool_for_a_server_is_delivered_into_a_database_instead(path: Path) -> None:
    """`asynctrack sync --to sqlite:///…`."""
    asynctrack.configure(mode="offline")
    with asynctrack.start_run(tracking_uri="http://127.0.0.1:9", experiment_name="e", run_name="r") as run:
        run.log_metrics({"a": 1.0, "b": 2.0}, step=3)
        run.log_param("p", 1)
        run.log_text("hello", "a.txt")
    asynctrack.shutdown()
    [shipment] = asynctrack.sync(to=f"sqlite:///{path}")
    assert shipment.state == "delivered", shipment
    store = opened(path)
    [found] = drive(store.search_runs(["1"], "attributes.run_name = 'r'")).items
    assert (found.info.status, found.data.metrics, found.data.params) == ("FINISHED", {"a": 1.0, "b": 2.0}, {"p": "1"})
    assert Path(found.info.artifact_uri or "", "a.txt").read_text() == "hello"
    drive(store.aclose())


def test_reading_makes_no_database(tmp_path: Path, kept: Callable[[Path], AbstractStore]) -> None:
    path = tmp_path / "folder" / "mlflow.db"
    store = kept(path)
    for _ in range(2):
        assert [found.name for found in drive(store.search_experiments()).items] == ["Default"]
        assert drive(store.search_runs(["0"])).items == []
        for work in (store.get_run("a" * 32), store.read_columns("a" * 32), store.summarize("a" * 32)):
            with pytest.raises(NotFoundError):
                drive(work)
        assert not path.parent.exists()
    run = drive(store.create_run(RunSpec("a" * 32)))
    assert path.exists()
    assert [found.info.run_id for found in drive(store.search_runs(["0"])).items] == [run.run_id]


def test_reading_an_empty_file_leaves_it_empty(tmp_path: Path, kept: Callable[[Path], AbstractStore]) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    store = kept(path)
    assert drive(store.search_runs(["0"])).items == []
    assert path.stat().st_size == 0


def test_a_run_of_many_points_is_read_while_others_write(tmp_path: Path, kept: Callable[[Path], AbstractStore]) -> None:
    path = tmp_path / "mlflow.db"
    store = kept(path)
    drive(store.create_run(RunSpec("a" * 32)))
    drive(store.log_batch("a" * 32, Batch(metrics={"m": [(at, at, 0.5) for at in range(50_000)]})))
    began, ended = threading.Event(), threading.Event()
    counts: list[int] = []

    def read() -> None:
        reader = open_store(f"sqlite:///{path}", InlineIO())
        while not ended.is_set():
            counts.append(len(drive(reader.read_columns("a" * 32)).columns["m"]))
            began.set()
        drive(reader.aclose())

    thread = threading.Thread(target=read)
    thread.start()
    assert began.wait(60)
    for at in range(20):
        drive(store.log_batch("a" * 32, Batch(metrics={"m": [(100_000 + at, at, 0.5)]})))
    ended.set()
    thread.join(60)
    assert counts == sorted(counts)
    assert len(drive(store.read_columns("a" * 32)).columns["m"]) == 50_020


def test_one_metric_of_a_large_run_is_found_by_the_index_of_runs(
    tmp_path: Path, kept: Callable[[Path], AbstractStore]
) -> None:
    path = tmp_path / "mlflow.db"
    store = kept(path)
    drive(store.create_run(RunSpec("a" * 32)))
    connection = sqlite3.connect(path)
    plan = connection.execute(
        "EXPLAIN QUERY PLAN SELECT key, rowid FROM metrics WHERE run_uuid = ? AND +key IN (?, ?) AND +step >= ? "
        "AND rowid > ? AND rowid <= ? ORDER BY rowid LIMIT 10",
        ("a", "b", "c", 0, 1, 2),
    ).fetchall()
    connection.close()
    assert "index_metrics_run_uuid" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def test_after_vacuum_a_reader_reads_all_anew(tmp_path: Path, kept: Callable[[Path], AbstractStore]) -> None:
    path = tmp_path / "mlflow.db"
    store = kept(path)
    for uid in ("a" * 32, "b" * 32):
        drive(store.create_run(RunSpec(uid)))
        drive(store.log_batch(uid, Batch(metrics={"m": [(at, at, 0.5) for at in range(10)]})))
    first = drive(store.read_columns("b" * 32))
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM metrics WHERE run_uuid = ?", ("a" * 32,))
    connection.commit()
    connection.execute("VACUUM")
    connection.close()
    drive(store.log_batch("b" * 32, Batch(metrics={"m": [(20, 20, 0.5)]})))
    second = drive(store.read_columns("b" * 32, after=first.cursor))
    assert second.anew == {"m"}
    assert list(second.columns["m"].steps) == [*range(10), 20]
