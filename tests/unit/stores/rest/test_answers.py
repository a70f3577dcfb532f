"""What a server's answer means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from asynctrack.errors import (
    AlreadyExistsError,
    AuthenticationError,
    NotFoundError,
    RefusedError,
    ServerFaultError,
    StoreError,
    UnavailableError,
    WrongServerError,
)
from asynctrack.stores.rest.answers import RETRYABLE_STATUSES, RaceError, check_done, error_of, json_of

LOG_BATCH, ARTIFACT = "/api/2.0/mlflow/runs/log-batch", "/p/api/2.0/mlflow-artifacts/artifacts/1/a.txt"


def answer(status: int, content: bytes | str = b"", path: str = LOG_BATCH, **headers: str) -> httpx.Response:
    request = httpx.Request("POST", f"http://ada@host:5000{path}", headers={"Authorization": "Basic YWRhOmh1bnRlcjI="})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=content, headers=named, request=request)


def mlflow(status: int, code: str, message: str = "said") -> httpx.Response:
    """As MLflow's server words an error, newer keys included."""
    body = {"error_code": code, "message": message, "sqlstate": "XXKST", "error_class": "X"}
    return answer(status, json.dumps(body), content_type="application/json")


def kind(response: httpx.Response) -> type[StoreError]:
    return type(error_of(response, "POST it"))


@pytest.mark.parametrize("status", sorted(RETRYABLE_STATUSES))
def test_overload_and_gateways_are_asked_again_whoever_answers(status: int) -> None:
    """In JSON, as a web page, or without a body."""
    for response in (mlflow(status, "X"), answer(status, "<html>busy</html>"), answer(status)):
        assert kind(response) is UnavailableError


def test_an_answer_after_which_it_may_have_been_done_is_ambiguous() -> None:
    """A gateway that lost patience says nothing about the server behind it; a rate limit says that it did nothing."""
    assert [error_of(answer(status), "it").ambiguous for status in (408, 502, 504)] == [True] * 3
    assert [error_of(answer(status), "it").ambiguous for status in (425, 429, 503)] == [False] * 3
    assert ServerFaultError.ambiguous


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "INVALID_PARAMETER_VALUE", RefusedError),
        (400, "BAD_REQUEST", RefusedError),
        (400, "RESOURCE_ALREADY_EXISTS", AlreadyExistsError),
        (404, "RESOURCE_DOES_NOT_EXIST", NotFoundError),
        (404, "NOT_FOUND", NotFoundError),
        (404, "ENDPOINT_NOT_FOUND", WrongServerError),
        (401, "UNAUTHENTICATED", AuthenticationError),
        (401, "CUSTOMER_UNAUTHORIZED", AuthenticationError),
        (403, "PERMISSION_DENIED", AuthenticationError),
        (409, "RESOURCE_CONFLICT", UnavailableError),
        (409, "ABORTED", UnavailableError),
        (429, "RESOURCE_EXHAUSTED", UnavailableError),
        (500, "INTERNAL_ERROR", ServerFaultError),
        (500, "DATA_LOSS", ServerFaultError),
        (500, "TEMPORARILY_UNAVAILABLE", UnavailableError),
        (500, "INVALID_STATE", RefusedError),
        (501, "NOT_IMPLEMENTED", RefusedError),
        (500, "FEATURE_DISABLED", WrongServerError),
        (503, "TEMPORARILY_UNAVAILABLE", UnavailableError),
    ],
)
def test_mlflows_codes_decide(status: int, code: str, expected: type[StoreError]) -> None:
    """And the message keeps what the server said."""
    error = error_of(mlflow(status, code, "the reason"), "POST it")
    assert type(error) is expected
    assert str(error).startswith(f"POST it: {code}: the reason")


@pytest.mark.parametrize(
    "text",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: params.key, params.run_uuid",
        '(psycopg.errors.UniqueViolation) duplicate key value violates unique constraint "param_pk"',
        "(pymysql.err.IntegrityError) (1062, \"Duplicate entry 'a' for key 'PRIMARY'\")",
        f"(autoflush) (sqlite3.IntegrityError) {'x' * 150} UNIQUE constraint failed: metrics.key {'x' * 900}",
        f"{'x' * 300} UNIQUE constraint failed {'x' * 300}",
    ],
)
def test_a_race_between_two_first_writers_is_tried_again(text: str) -> None:
    """The second finds it there."""
    assert kind(mlflow(400, "BAD_REQUEST", text)) is RaceError


def test_a_server_that_has_no_database_connection_left_is_asked_again() -> None:
    """MLflow says that with status 400, as 64 processes at once brought about; it is no fault of the request."""
    text = "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00 (Background on this …)"
    assert kind(mlflow(400, "BAD_REQUEST", text)) is UnavailableError
    assert issubclass(RaceError, UnavailableError)


#: behind the exception, as SQLAlchemy words it: the statement, with values of any kind and length, and a link
STATEMENT = (
    "\n[SQL: INSERT INTO params (key, value, run_uuid) VALUES (%(key)s, %(value)s, %(run_uuid)s)]"
    f"\n[parameters: {{'key': 'p', 'value': '(x.DataError) deadlock {'y' * 6000}', 'run_uuid': 'a1'}}]"
    "\n(Background on this error at: https://sqlalche.me/e/20/2j85)"
)


@pytest.mark.parametrize(
    "text",
    [
        "(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only transaction",
        "(psycopg2.errors.InFailedSqlTransaction) current transaction is aborted, commands ignored until end of",
        "(psycopg2.InterfaceError) connection already closed",
        '(pymysql.err.InternalError) (1290, "The MySQL server is running with the --read-only option so it cannot exe',
        "(pyodbc.Error) ('40001', '[40001] [Microsoft][ODBC Driver 18 for SQL Server][SQL Server]Transaction (Process "
        "ID 53) was deadlocked on lock resources with another process and has been chosen as the deadlock victim.')",
        "(psycopg.errors.SerializationFailure) could not serialize access due to concurrent update",
        "(MySQLdb.DatabaseError) (1205, 'Lock wait timeout exceeded; try restarting transaction')",
        "Can't reconnect until invalid transaction is rolled back.  Please rollback() fully before proceeding "
        "(Background on this error at: https://sqlalche.me/e/20/8s2b)",
        "This Connection is closed",
    ],
)
@pytest.mark.parametrize("behind", [STATEMENT, ""])
def test_a_database_that_cannot_write_now_is_the_fault_of_no_event(text: str, behind: str) -> None:
    """Another takes over as the primary, connections are lost, transactions clash: MLflow calls that BAD_REQUEST too,
    unless the driver calls it operational. The exception's class may stand where the message is cut."""
    for said in (text, f"(raised as a result of Query-invoked autoflush; {'consider ' * 30})\n{text}"):
        assert kind(mlflow(400, "BAD_REQUEST", said + behind)) is UnavailableError


@pytest.mark.parametrize(
    "text",
    [
        '(psycopg.errors.UndefinedTable) relation "metrics" does not exist',
        "(pyodbc.ProgrammingError) ('42000', '[42000] [Microsoft][ODBC Driver 18 for SQL Server] something (8152)')",
        "UPDATE statement on table 'runs' expected to update 1 row(s); 0 were matched.",
        f"(raised as a result of Query-invoked autoflush; {'consider ' * 30})\n(some.Error) who knows{STATEMENT}",
    ],
)
def test_any_other_exception_of_the_database_is_suspicious(text: str) -> None:
    """Before an event is blamed, the store is asked for something else."""
    error = error_of(mlflow(400, "BAD_REQUEST", text), "it")
    assert type(error) is ServerFaultError
    assert error.suspicious


@pytest.mark.parametrize(
    "text",
    [
        "(psycopg.errors.StringDataRightTruncation) value too long for type character varying(250)",
        '(psycopg2.errors.ForeignKeyViolation) insert or update on table "metrics" violates foreign key constraint',
        "(pymysql.err.DataError) (1406, \"Data too long for column 'value' at row 1\")",
        "(psycopg2.errors.UntranslatableCharacter) unsupported Unicode escape sequence",
    ],
)
def test_what_a_database_cannot_hold_is_refused(text: str) -> None:
    """Whatever words are in its values; and so is what is no database's exception at all."""
    assert kind(mlflow(400, "BAD_REQUEST", text + STATEMENT)) is RefusedError
    assert kind(mlflow(400, "BAD_REQUEST", "the transaction of this request is wrong")) is RefusedError


def test_what_is_too_large_is_split() -> None:
    """413, from MLflow or from something on the way."""
    for response in (answer(413, "<html>413</html>"), mlflow(413, "X")):
        error = error_of(response, "it")
        assert type(error) is RefusedError
        assert error.splittable


def test_the_host_check_is_explained_with_its_remedy() -> None:
    """Its 403 has neither JSON nor advice."""
    error = error_of(answer(403, "Invalid Host header - possible DNS rebinding attack detected"), "it")
    assert type(error) is WrongServerError
    assert "--allowed-hosts" in str(error)
    assert "--cors-allowed-origins" in str(error_of(answer(403, "Cross-origin request blocked"), "it"))
    assert kind(answer(403, "Permission denied")) is AuthenticationError


@pytest.mark.parametrize("status", [404, 405])
def test_a_page_that_is_not_mlflows_means_a_wrong_address(status: int) -> None:
    """The user has to mend the tracking URI; nothing is dropped."""
    error = error_of(answer(status, "<html><title>x</title><h1>Not Found</h1></html>"), "it")
    assert type(error) is WrongServerError
    assert "Not Found" in str(error)
    assert "<" not in str(error)


@pytest.mark.parametrize("path", [LOG_BATCH, ARTIFACT])
@pytest.mark.parametrize(("status", "text"), [(404, "Not Found"), (405, "Method Not Allowed")])
def test_an_application_of_fastapi_that_knows_no_such_path_means_a_wrong_address(
    status: int, text: str, path: str
) -> None:
    """It says so in JSON, with the field that MLflow's artifact routes have for what is wrong with a path."""
    error = error_of(answer(status, json.dumps({"detail": text}), path), "it")
    assert type(error) is WrongServerError
    assert text in str(error)


def test_a_crash_and_an_unknown_refusal_are_tried_again_and_suspected() -> None:
    """Whether they are for good, only trying shows."""
    for status in (500, 418):
        error = error_of(answer(status, "<html>Internal Server Error</html>"), "it")
        assert type(error) is ServerFaultError
        assert error.suspicious


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_where_it_leads_without_what_is_secret_there(status: int) -> None:
    """User names, passwords and queries are left out."""
    error = error_of(answer(status, location="https://ada:hunter2@login.example.com/x?token=hunter2"), "it")
    assert type(error) is WrongServerError
    assert "https://login.example.com/x," in str(error)
    assert "hunter2" not in str(error)
    assert "/elsewhere" in str(error_of(answer(status, location="/elsewhere"), "it"))
    assert kind(answer(status)) is WrongServerError


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("0", 0, 0), ("99999999", 3600, 3600), ("soon", None, None), ("-3", None, None), ("", None, None)],
)
def test_retry_after_in_seconds(text: str, least: float | None, most: float | None) -> None:
    """At most an hour; what cannot be read is not there."""
    found = error_of(answer(429, retry_after=text), "it").retry_after
    assert (found is None) if least is None or most is None else (found is not None and least <= found <= most)


def test_retry_after_as_a_date() -> None:
    """The other form; a date that is past means now."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    found = error_of(answer(503, retry_after=later), "it").retry_after
    assert found is not None
    assert 50 < found <= 60
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert error_of(answer(503, retry_after=past), "it").retry_after == 0.0


def test_a_good_answer_is_an_object() -> None:
    """MLflow's bulk history holds NaN and Infinity as such."""
    assert json_of(answer(200, b'{"a": NaN}'), "it").keys() == {"a"}


def test_an_answer_has_one_of_the_fields_that_it_may_have_or_none() -> None:
    """What is empty is left out, and newer servers may say more. Its values may be the request, credentials included,
    and are not shown."""
    assert json_of(answer(200, b"{}"), "it", ("runs",)) == json_of(answer(200, b"{}"), "it", ()) == {}
    assert json_of(answer(200, b'{"runs": [], "new": 1}'), "it", ("runs", "next_page_token"))["new"] == 1
    for fields in ((), ("runs", "next_page_token")):
        with pytest.raises(UnavailableError, match=r"no MLflow server gives here: status, headers$") as raised:
            json_of(answer(200, b'{"status": "maintenance", "headers": {"Authorization": "hunter2"}}'), "it", fields)
        assert raised.value.ambiguous
        assert not raised.value.suspicious


def test_a_program_that_answers_with_the_request_does_not_have_its_credentials_shown() -> None:
    """As whoami and echo servers do."""
    for status in (200, 404, 500):
        response = answer(status, "GET / HTTP/1.1\nAuthorization: Basic YWRhOmh1bnRlcjI=\nAccept: */*")
        error = error_of(response, "it")
        if status == 200:
            with pytest.raises(UnavailableError) as raised:
                json_of(response, "it")
            error = raised.value
        assert "YWRhOmh1bnRlcjI" not in str(error)
        assert "Accept" in str(error)


@pytest.mark.parametrize(
    ("status", "content"), [(200, ""), (200, "{}\n"), (200, "null"), (204, ""), (201, '{"message": "201 Created"}')]
)
def test_a_file_is_stored_where_a_server_says_so(status: int, content: str) -> None:
    """MLflow's with nothing, or an empty object; a storage with the status, whatever it says besides."""
    check_done(answer(status, content, ARTIFACT), "it")


@pytest.mark.parametrize("content", ['{"status": "maintenance"}', "OK", "[]"])
def test_a_file_is_not_stored_where_something_else_answers(content: str) -> None:
    """It is sent again."""
    with pytest.raises(UnavailableError) as raised:
        check_done(answer(200, content, ARTIFACT), "it")
    assert raised.value.ambiguous
    with pytest.raises(WrongServerError, match="Please sign in"):
        check_done(answer(200, "<p>Please sign in</p>", ARTIFACT, content_type="text/html"), "it")


@pytest.mark.parametrize("content", [b"", b'{"run": {"info"', b"[]", b"null", b"\xff\xfe"])
def test_an_answer_that_is_none_is_asked_for_again_and_ambiguous(content: bytes) -> None:
    """Who knows what has answered, and whether it was done."""
    with pytest.raises(UnavailableError) as raised:
        json_of(answer(200, content), "it")
    assert raised.value.ambiguous


def test_a_login_page_is_not_taken_for_success() -> None:
    """The user has to sign in somewhere."""
    with pytest.raises(WrongServerError, match="Please sign in"):
        json_of(answer(200, "<html><body>Please sign in</body></html>", content_type="text/html; charset=utf-8"), "it")


def test_a_long_answer_is_cut_in_the_message() -> None:
    """Whole pages belong into no log."""
    assert len(str(error_of(answer(500, "x" * 10_000), "it"))) < 500
    assert len(str(error_of(mlflow(400, "BAD_REQUEST", "x" * 10_000), "it"))) < 500


def test_the_artifact_routes_word_their_errors_differently() -> None:
    """``detail`` instead of ``message``. No other route of theirs does so."""
    assert kind(answer(400, b'{"detail": "is a directory"}', ARTIFACT)) is RefusedError
    assert kind(answer(500, b'{"detail": "oops"}', ARTIFACT)) is ServerFaultError
    assert kind(answer(400, b'{"detail": "who are you"}')) is ServerFaultError


def test_a_reason_behind_a_long_value_is_shown() -> None:
    """As MLflow before 2.11 puts it; and one before it."""
    text = f"Param value '{'x' * 6001}' had length 6001, which exceeded length limit of 500"
    shown = str(error_of(mlflow(400, "INVALID_PARAMETER_VALUE", text), "POST /x"))
    assert "Param value 'xxx" in shown
    assert "which exceeded length limit of 500" in shown
    assert len(shown) < 400
