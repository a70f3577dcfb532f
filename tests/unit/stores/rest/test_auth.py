"""Credentials: MLflow's precedence, tokens from code, and no secret in anything that can be printed or pickled."""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import asynctrack
from asynctrack.errors import AuthenticationError, InvalidInputError, UnavailableError
from asynctrack.settings import Settings, current_settings
from asynctrack.stores.rest.auth import Secret, credentials_for, extra_headers, split_userinfo

URL = "https://mlflow.example"
SECRET = "s3cr3t-hunter2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_credentials(home: Path, text: str) -> None:
    (home / ".mlflow").mkdir(exist_ok=True)
    (home / ".mlflow" / "credentials").write_text(text, encoding="utf-8")


def basic(username: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ── precedence


def test_without_credentials_no_header_is_sent() -> None:
    assert credentials_for(URL).headers() == {}
    assert "MLFLOW_TRACKING_TOKEN" in credentials_for(URL).describe()


ENVIRONMENTS: list[tuple[dict[str, str], str, dict[str, str]]] = [
    ({"TOKEN": "t"}, "", bearer("t")),
    ({"USERNAME": "u", "PASSWORD": "p"}, "", basic("u", "p")),
    ({"USERNAME": "u", "PASSWORD": "p", "TOKEN": "t"}, "", basic("u", "p")),
    ({"USERNAME": "u"}, "", {}),
    ({"PASSWORD": "p"}, "", {}),
    ({"USERNAME": "u", "TOKEN": "t"}, "", bearer("t")),
    ({"USERNAME": "", "PASSWORD": "", "TOKEN": ""}, "", {}),
    ({}, "mlflow_tracking_username = fu\nmlflow_tracking_password = fp\n", basic("fu", "fp")),
    ({"TOKEN": "t"}, "mlflow_tracking_username = fu\nmlflow_tracking_password = fp\n", basic("fu", "fp")),
    ({"USERNAME": "u"}, "mlflow_tracking_username = fu\nmlflow_tracking_password = fp\n", basic("u", "fp")),
    ({"PASSWORD": "p"}, "mlflow_tracking_username = fu\nmlflow_tracking_password = fp\n", basic("fu", "p")),
    ({"TOKEN": "t"}, "mlflow_tracking_username = fu\n", bearer("t")),
    ({}, "mlflow_tracking_username = fü\nmlflow_tracking_password = 50%%=ö\n", basic("fü", "50%=ö")),
]


@pytest.mark.parametrize(("environment", "file", "expected"), ENVIRONMENTS)
def test_environment_and_file_are_used_in_the_order_that_mlflow_uses(
    environment: dict[str, str],
    file: str,
    expected: dict[str, str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same header as MLflow's client makes of the same environment and file."""
    for name, value in environment.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    if file:
        write_credentials(home, f"[mlflow]\n{file}")
    assert credentials_for(URL).headers() == expected

    from mlflow.utils.credentials import get_default_host_creds

    theirs = get_default_host_creds(URL)  # type: ignore[no-untyped-call]  # mlflow's helpers have no types
    if theirs.username and theirs.password:
        assert expected == basic(theirs.username, theirs.password)
    else:
        assert expected == (bearer(theirs.token) if theirs.token else {})


def test_code_goes_before_the_uri_and_the_uri_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "env")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "env")
    assert credentials_for(URL, userinfo=("u", "p"), token=lambda: "t").headers() == bearer("t")
    assert credentials_for(URL, userinfo=("u", "p")).headers() == basic("u", "p")


def test_each_request_reads_environment_and_file_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that mended credentials are used without a restart."""
    credentials = credentials_for(URL)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "old")
    assert credentials.headers() == bearer("old")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "new")
    assert credentials.headers() == bearer("new")
    write_credentials(home, "[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = p\n")
    assert credentials.headers() == basic("u", "p")


@pytest.mark.parametrize(
    ("name", "value"), [("MLFLOW_TRACKING_AUTH", "kubernetes"), ("MLFLOW_TRACKING_AWS_SIGV4", "true")]
)
def test_ways_to_authenticate_that_are_not_supported_are_said_to_be(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not left out in silence; what is given in code is used instead."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    monkeypatch.setenv(name, value)
    with pytest.raises(AuthenticationError, match=rf"{name}.*not supported.*configure\(token"):
        credentials_for(URL).headers()
    assert credentials_for(URL, token=lambda: "t").headers() == bearer("t")


def test_sigv4_switched_off_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "False")
    assert credentials_for(URL).headers() == {}


def test_where_the_credentials_come_from_is_told_without_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = credentials_for(URL)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert credentials.describe() == "MLFLOW_TRACKING_TOKEN"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    write_credentials(home, f"[mlflow]\nmlflow_tracking_password = {SECRET}\n")
    told = credentials.describe()
    assert "MLFLOW_TRACKING_USERNAME" in told
    assert str(home / ".mlflow" / "credentials") in told
    assert SECRET not in told
    assert "only one is set" in _described_with_only_a_user_name(home)
    assert "tracking URI" in credentials_for(URL, userinfo=("u", SECRET)).describe()
    assert "configure(token" in credentials_for(URL, token=lambda: SECRET).describe()


def _described_with_only_a_user_name(home: Path) -> str:
    (home / ".mlflow" / "credentials").unlink()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        return credentials_for(URL).describe()


# ── tokens from a function


def test_the_token_function_is_called_before_each_request() -> None:
    tokens = iter(["one", "two"])
    credentials = credentials_for(URL, token=lambda: next(tokens))
    assert [credentials.headers(), credentials.headers()] == [bearer("one"), bearer("two")]


def test_a_token_function_that_fails_holds_delivery_and_is_asked_again() -> None:
    """The error is retryable and says where it happened, but not what the function's own error says."""
    failing = True

    def token() -> str:
        if failing:
            raise RuntimeError(f"https://login.example?client_secret={SECRET}")
        return "t"

    credentials = credentials_for(URL, token=token)
    with pytest.raises(AuthenticationError, match=r"RuntimeError \(.*test_auth\.py, line \d+\)") as caught:
        credentials.headers()
    assert caught.value.retryable
    assert caught.value.held
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    failing = False
    assert credentials.headers() == bearer("t")


@pytest.mark.parametrize("error", [AuthenticationError("log in first"), UnavailableError("provider is down")])
def test_a_token_function_may_decide_with_asynctracks_errors(error: Exception) -> None:
    def token() -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        credentials_for(URL, token=token).headers()
    assert caught.value is error


async def _async_token() -> str:
    return SECRET


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (_async_token, "coroutine function"),
        (lambda: None, "returned NoneType"),
        (lambda: b"t", "returned bytes"),
        (lambda: "", "is empty"),
        (lambda: f"{SECRET}\n", "line break"),
        (lambda: f"{SECRET}\r\nX-Admin: 1", "line break"),
        (lambda: f"{SECRET} {SECRET}", "space"),
        (lambda: f"{SECRET}ü", "ASCII"),
    ],
)
def test_what_a_token_function_must_not_return_is_refused(token: Callable[[], Any], problem: str) -> None:
    with pytest.raises(AuthenticationError, match=problem) as caught:
        credentials_for(URL, token=token).headers()
    assert SECRET not in str(caught.value)


def test_an_interrupt_in_a_token_function_is_not_swallowed() -> None:
    def token() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        credentials_for(URL, token=token).headers()


def test_several_threads_may_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for another's token function."""
    both = threading.Barrier(2, timeout=30)

    def token() -> str:
        both.wait()
        return "t"

    credentials = credentials_for(URL, token=token)
    found: list[dict[str, str]] = []
    threads = [threading.Thread(target=lambda: found.append(credentials.headers())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [bearer("t"), bearer("t")]


# ── the setting


def test_the_token_function_is_a_setting() -> None:
    def token() -> str:
        return SECRET

    asynctrack.configure(token=token)
    assert current_settings().token is token
    asynctrack.configure(token=None)
    assert current_settings().token is None


@pytest.mark.parametrize(("token", "problem"), [(SECRET, "token is str"), (_async_token, "coroutine function")])
def test_a_setting_that_is_no_token_function_is_refused_without_showing_it(token: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        asynctrack.configure(token=token)
    assert SECRET not in str(caught.value)
    assert current_settings().token is None


def test_settings_do_not_show_what_is_bound_to_the_token_function() -> None:
    settings = Settings(token=functools.partial(str, SECRET))
    assert SECRET not in repr(settings)
    assert "flush_interval=0.5" in str(settings)


def test_a_token_is_not_taken_from_an_environment_variable_of_the_settings() -> None:
    assert Settings.from_environment({"ASYNCTRACK_TOKEN": "t"}).token is None


# ── URLs


@pytest.mark.parametrize(
    ("url", "base", "userinfo"),
    [
        ("http://h:5000", "http://h:5000", None),
        ("HTTP://H.Example:80/", "http://h.example", None),
        ("https://h:443/a/b//", "https://h/a/b", None),
        ("https://h:80", "https://h:80", None),
        ("http://[::1]:5000/", "http://[::1]:5000", None),
        ("http://h/a b".replace(" ", "%20"), "http://h/a%20b", None),
        ("http://h/ä", "http://h/%C3%A4", None),
        ("http://h/user/a@b.c/proxy", "http://h/user/a@b.c/proxy", None),
        ("http://u:p@h", "http://h", ("u", "p")),
        ("http://u%40x:p%2F%3F%23%3Aö@h:1/p", "http://h:1/p", ("u@x", "p/?#:ö")),
        ("http://u:p@ss@h", "http://h", ("u", "p@ss")),
        ("http://u@h", "http://h", ("u", "")),
        ("http://:p@h", "http://h", ("", "p")),
        ("http://@h", "http://h", None),
        ("http://:@h", "http://h", None),
    ],
)
def test_one_server_has_one_url_and_its_credentials_are_taken_out(
    url: str, base: str, userinfo: tuple[str, str] | None
) -> None:
    assert split_userinfo(url) == (base, userinfo)
    assert split_userinfo(base) == (base, None)


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}#x@h",
        f"http://u:{SECRET}/x@h",
        f"http://u:{SECRET}?x@h",
        f"http://u:{SECRET}",
        f"http://u:{SECRET}@",
        f"http://u:{SECRET}@[::1",
        f"http://u:{SECRET}@h℀x",
        f"http://u:{SECRET} @h",
        f"http://u:{SECRET}\n@h",
        f"http://u:{SECRET}%0aX@h",
        f"http://u:{SECRET}%ff@h",
        f"ftp://u:{SECRET}@h",
        f"http:///{SECRET}",
        f"http://h?token={SECRET}",
        f"http://h#{SECRET}",
        "http://h?",
        "http:h",
        "",
    ],
)
def test_an_unusable_url_is_refused_without_showing_what_may_be_a_password(url: str) -> None:
    with pytest.raises(InvalidInputError, match="tracking URI") as caught:
        split_userinfo(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# ── secrets stay where they are


@pytest.mark.parametrize("secret", [f"{SECRET}\n", f"{SECRET}\r\nX-Admin: 1", f"{SECRET}\x00", f"{SECRET}\x7f"])
def test_control_characters_never_reach_a_header(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationError, match="control character") as caught:
        credentials_for(URL, userinfo=("u", secret)).headers()
    assert SECRET not in str(caught.value)
    if "\0" in secret:
        return  # no environment variable can hold it
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", secret)
    with pytest.raises(AuthenticationError, match="MLFLOW_TRACKING_TOKEN") as caught:
        credentials_for(URL).headers()
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    with pytest.raises(AuthenticationError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        credentials_for(URL).headers()
    assert SECRET not in str(caught.value)


def test_a_password_that_is_not_utf_8_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{SECRET}\udcff")
    with pytest.raises(AuthenticationError) as caught:
        credentials_for(URL).headers()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"mlflow_tracking_password = {SECRET}\n", "line 1"),
        (f"[mlflow]\nmlflow_tracking_username = u\n{SECRET}\n", "line 3"),
        (f"[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = {SECRET}%x\n", "write % as %%"),
    ],
)
def test_a_damaged_credentials_file_is_named_and_not_quoted(text: str, problem: str, home: Path) -> None:
    write_credentials(home, text)
    with pytest.raises(AuthenticationError, match=problem) as caught:
        credentials_for(URL).headers()
    assert str(home / ".mlflow" / "credentials") in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in credentials_for(URL).describe()


def test_a_pipe_in_place_of_the_credentials_is_refused_and_not_waited_for(home: Path) -> None:
    (home / ".mlflow").mkdir()
    os.mkfifo(home / ".mlflow" / "credentials")
    with pytest.raises(AuthenticationError, match=r"\.mlflow/credentials: not a regular file"):
        credentials_for(URL).headers()


def test_a_link_to_the_credentials_is_followed_and_dev_null_holds_none(home: Path) -> None:
    write_credentials(home, "[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = p\n")
    path = home / ".mlflow" / "credentials"
    path.rename(home / "mine")
    path.symlink_to(home / "mine")
    assert credentials_for(URL).headers() == basic("u", "p")
    path.unlink()
    path.symlink_to(os.devnull)
    assert credentials_for(URL).headers() == {}


def test_a_credentials_file_that_cannot_be_read_is_named(home: Path) -> None:
    (home / ".mlflow" / "credentials").mkdir(parents=True)
    with pytest.raises(AuthenticationError, match=r"credentials: Is a directory"):
        credentials_for(URL).headers()
    (home / ".mlflow" / "credentials").rmdir()
    (home / ".mlflow" / "credentials").write_bytes(b"[mlflow]\nmlflow_tracking_password = \xff\n")
    with pytest.raises(AuthenticationError, match="not UTF-8"):
        credentials_for(URL).headers()


def test_only_what_has_to_be_fetched_or_read_blocks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is looked up where the request is made: a helper thread costs as much as the request."""
    assert credentials_for(URL, token=lambda: "t").blocks()
    assert not credentials_for(URL, userinfo=("u", "p")).blocks()
    assert not credentials_for(URL).blocks()
    write_credentials(home, "[mlflow]\nmlflow_tracking_username = f\nmlflow_tracking_password = f\n")
    assert credentials_for(URL).blocks(), "a home directory may be far away"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    assert credentials_for(URL).blocks()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p")
    assert not credentials_for(URL).blocks(), "the file is not looked at"


def test_nothing_that_holds_a_secret_shows_it_or_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    holders: list[object] = [
        credentials_for(URL),
        credentials_for(URL, userinfo=("u", SECRET)),
        credentials_for(URL, token=functools.partial(str, SECRET)),
        credentials_for(URL).headers(),
        credentials_for(URL, userinfo=("u", SECRET)).headers(),
        split_userinfo(f"http://u:{SECRET}@h"),
        Secret(SECRET),
    ]
    encoded = basic("u", SECRET)["Authorization"]
    for holder in holders:
        for shown in (repr(holder), str([holder])):
            assert SECRET not in shown
            assert encoded not in shown
        for duplicate in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="not pickled"):
                duplicate(holder)


def test_a_traceback_with_local_variables_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """As error reporters take it from every frame of ours."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{SECRET}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"{SECRET}\n")
    for local in ("password", "token"):
        with pytest.raises(AuthenticationError) as caught:
            credentials_for(URL).headers()
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        assert f"{local} = '***'" in shown
        assert SECRET not in shown
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)


def test_httpx_sends_a_hidden_header_as_it_is() -> None:
    """The header's value hides itself from repr only."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    headers = credentials_for(URL, userinfo=("ü", "p")).headers()
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        client.get(URL, headers=headers)

    async def get() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await client.get(URL, headers=headers)

    asyncio.run(get())
    assert [request.headers["authorization"] for request in seen] == [basic("ü", "p")["Authorization"]] * 2


# ── workspaces


def test_the_workspace_is_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extra_headers() == {}
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-a")
    assert extra_headers() == {"X-MLFLOW-WORKSPACE": "team-a"}


@pytest.mark.parametrize("name", ["Team", "-a", "a-", "a b", "a\n", "a\r\nX: y"])
def test_what_is_no_workspaces_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_WORKSPACE", name)
    with pytest.raises(InvalidInputError, match="MLFLOW_WORKSPACE"):
        extra_headers()
