"""Databricks: the real SDK against a workspace of our own, and what is possible without the SDK."""

from __future__ import annotations

import base64
import copy
import http.server
import json
import os
import pickle
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asynctrack.errors import AuthenticationError, InvalidInputError, StoreError, UnavailableError
from asynctrack.stores import databricks
from asynctrack.stores.databricks import DatabricksCredentials, databricks_profile, databricks_uri
from asynctrack.stores.databricks_config import VARIABLES

SECRET = "dapi-hunter2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a profile, and an environment without a workspace."""
    for name in [*VARIABLES.values(), *os.environ]:
        if name in VARIABLES.values() or name.startswith("DATABRICKS_"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ``pip install asynctrack`` without the extra."""
    monkeypatch.setitem(sys.modules, "databricks.sdk.config", None)


@pytest.fixture(params=["with the SDK", "without it"])
def either(request: pytest.FixtureRequest) -> str:
    """For what must be the same with and without the SDK."""
    if request.param == "without it":
        request.getfixturevalue("no_sdk")
    return str(request.param)


class Workspace:
    """What a workspace answers to the SDK, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        #: seconds that a token lives
        self.lifetime = 3600
        #: tokens are given out only when it is set
        self.answers = threading.Event()
        self.answers.set()
        self.client = "Basic " + base64.b64encode(f"cid:{SECRET}".encode()).decode()
        self.known = True

    def answer(self, method: str, path: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.asked.append(f"{method} {path}")
        if path == "/.well-known/databricks-config" and self.known:
            return 200, {"workspace_id": "4711", "oidc_endpoint": f"{self.url}/oidc"}
        if path == "/oidc/.well-known/oauth-authorization-server":
            return 200, {"authorization_endpoint": f"{self.url}/a", "token_endpoint": f"{self.url}/token"}
        if path == "/token":
            self.answers.wait(60)
            if authorization != self.client:
                return 401, {"error": "invalid_client", "error_description": f"no client {SECRET}"}
            token = f"{SECRET}-{self.asked.count('POST /token')}"
            return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "no such endpoint"}


@contextmanager
def serving(workspace: Workspace) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = workspace.answer(self.command, self.path, self.headers["Authorization"])
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the terminal."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        workspace.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            workspace.answers.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    made = Workspace()
    with serving(made):
        yield made


def profiles(home: Path, text: str) -> Path:
    path = home / ".databrickscfg"
    path.write_text(text, encoding="utf-8")
    return path


def authorization(credentials: DatabricksCredentials) -> str:
    return credentials.headers()["Authorization"]


def use_client(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, secret: str = SECRET) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "cid")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", secret)


# ── URIs


@pytest.mark.parametrize(
    ("uri", "profile", "canonical"),
    [
        ("databricks", None, "databricks"),
        ("Databricks", None, "databricks"),
        ("databricks://p", "p", "databricks://p"),
        ("DATABRICKS://My-Profile/", "My-Profile", "databricks://My-Profile"),
    ],
)
def test_a_tracking_uri_names_a_profile_or_none(uri: str, profile: str | None, canonical: str) -> None:
    assert databricks_profile(uri) == profile
    assert databricks_uri(profile) == canonical
    assert DatabricksCredentials(profile).uri == canonical


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("databricks:/p", "databricks://profile"),
        ("databricks://", "databricks://profile"),
        ("databricks://p/x", "databricks://profile"),
        ("databricks://p?x", "databricks://profile"),
        ("databricks://scope:prefix", "secret scope"),
        (f"databricks://token:{SECRET}@host", "credentials do not belong"),
        (f"databricks://token:{SECRET}", "secret scope"),
    ],
)
def test_another_databricks_uri_is_refused_with_what_to_write(uri: str, problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem) as caught:
        databricks_profile(uri)
    assert SECRET not in str(caught.value)


# ── where host and credentials come from


def test_a_token_in_the_environment_is_enough(
    either: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", f"{workspace.url}/")
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    credentials = DatabricksCredentials()
    assert credentials.host() == workspace.url
    assert authorization(credentials) == "Bearer t"
    assert credentials.describe() == "DATABRICKS_HOST, DATABRICKS_TOKEN"


def test_a_profile_is_enough(either: str, workspace: Workspace, home: Path) -> None:
    path = profiles(home, f"[DEFAULT]\nhost = {workspace.url}\ntoken = d%x\n[p]\nhost={workspace.url}\ntoken=p\n")
    assert authorization(DatabricksCredentials()) == "Bearer d%x"
    assert authorization(DatabricksCredentials("p")) == "Bearer p"
    assert DatabricksCredentials("p").describe() == f"profile 'p' in {path}"


def test_the_environment_may_choose_profile_and_file(
    either: str, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = home / "elsewhere.cfg"
    elsewhere.write_text(f"[DEFAULT]\nhost={workspace.url}\ntoken=d\n[q]\nhost={workspace.url}\ntoken=q\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", "~/elsewhere.cfg")
    assert authorization(DatabricksCredentials()) == "Bearer d"
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "q")
    assert authorization(DatabricksCredentials()) == "Bearer q"


def test_the_file_may_choose_its_default_profile(either: str, workspace: Workspace, home: Path) -> None:
    profiles(
        home,
        f"[__settings__]\ndefault_profile = q\n[DEFAULT]\nhost={workspace.url}\ntoken=d\n"
        f"[q]\nhost={workspace.url}\ntoken=q\n",
    )
    assert authorization(DatabricksCredentials()) == "Bearer q"


def test_the_environment_goes_before_the_file_even_with_a_profile(
    either: str, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(home, f"[p]\nhost={workspace.url}\ntoken=file\n")
    monkeypatch.setenv("DATABRICKS_TOKEN", "env")
    assert authorization(DatabricksCredentials("p")) == "Bearer env"


def test_a_profile_inherits_nothing_from_default(either: str, workspace: Workspace, home: Path) -> None:
    profiles(home, f"[DEFAULT]\ntoken=d\n[p]\nhost={workspace.url}\n")
    with pytest.raises(AuthenticationError, match="'p'"):
        DatabricksCredentials("p").headers()


def test_the_file_is_not_read_when_the_environment_names_a_workspace(
    either: str, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the token of one workspace would be sent to another."""
    profiles(home, "[DEFAULT]\nhost=http://127.0.0.1:1\ntoken=d\n")
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    with pytest.raises(AuthenticationError, match=r"\(DATABRICKS_HOST\)"):
        DatabricksCredentials().headers()


def test_user_name_and_password_are_basic(either: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_USERNAME", "ü")
    monkeypatch.setenv("DATABRICKS_PASSWORD", "p")
    assert authorization(DatabricksCredentials()) == "Basic " + base64.b64encode("ü:p".encode()).decode()


def test_two_ways_to_authenticate_need_a_choice(
    either: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch, workspace)
    monkeypatch.setenv("DATABRICKS_TOKEN", SECRET)
    with pytest.raises(AuthenticationError, match="more than one"):
        DatabricksCredentials().headers()
    monkeypatch.setenv("DATABRICKS_AUTH_TYPE", "pat")
    assert authorization(DatabricksCredentials()) == f"Bearer {SECRET}"


def test_a_pipe_in_place_of_the_profiles_is_refused_and_not_waited_for(either: str, home: Path) -> None:
    os.mkfifo(home / ".databrickscfg")
    with pytest.raises(AuthenticationError, match=r"\.databrickscfg: not a regular file"):
        authorization(DatabricksCredentials("p"))


def test_a_missing_profile_is_named_with_its_file(either: str, home: Path) -> None:
    path = profiles(home, "[other]\nhost=h\ntoken=t\n")
    for profile in ("p", "__settings__"):
        with pytest.raises(AuthenticationError, match=rf"no profile '{profile}' in {path}"):
            DatabricksCredentials(profile).headers()


def test_nothing_configured_says_what_to_set(either: str) -> None:
    with pytest.raises(AuthenticationError, match="DATABRICKS_HOST"):
        DatabricksCredentials().headers()


def test_credentials_mended_in_file_or_environment_are_used_at_once(
    either: str, workspace: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = DatabricksCredentials("p")
    with pytest.raises(AuthenticationError):
        credentials.headers()
    profiles(home, f"[p]\nhost={workspace.url}\ntoken=old\n")
    assert authorization(credentials) == "Bearer old"
    profiles(home, f"[p]\nhost={workspace.url}\ntoken=new\n")
    assert authorization(credentials) == "Bearer new"
    monkeypatch.setenv("DATABRICKS_TOKEN", "env")
    assert authorization(credentials) == "Bearer env"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("dbc-1.cloud.databricks.com", "https://dbc-1.cloud.databricks.com"),
        ("https://Dbc-1.cloud.databricks.com/", "https://dbc-1.cloud.databricks.com"),
        ("https://adb-1.azuredatabricks.net/?o=1#x", "https://adb-1.azuredatabricks.net"),
        ("adb-1.azuredatabricks.net?o=1", "https://adb-1.azuredatabricks.net"),
        ("https://h:443/ml/experiments", "https://h"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080"),
    ],
)
@pytest.mark.usefixtures("no_sdk")
def test_a_host_may_be_copied_from_the_browser(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host)
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    assert DatabricksCredentials().host() == url


@pytest.mark.parametrize("host", [f"https://token:{SECRET}@h", f"{SECRET}@h", "ftp://h", "https://", "https://[h"])
@pytest.mark.usefixtures("no_sdk")
def test_a_host_that_is_none_is_refused_without_showing_it(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", host)
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    with pytest.raises(AuthenticationError, match="DATABRICKS_HOST") as caught:
        DatabricksCredentials().host()
    assert SECRET not in str(caught.value)


def test_a_token_function_goes_before_every_other_credential(
    either: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is still Databricks' own; nobody is asked for a token."""
    use_client(monkeypatch, workspace)
    monkeypatch.setenv("DATABRICKS_WORKSPACE_ID", "12")
    tokens = iter(["one", "two"])
    credentials = DatabricksCredentials(token=lambda: next(tokens))
    assert credentials.headers() == {"Authorization": "Bearer one", "x-databricks-org-id": "12"}
    assert authorization(credentials) == "Bearer two"
    assert workspace.asked == []


# ── without the SDK


@pytest.mark.usefixtures("no_sdk")
def test_without_the_sdk_oauth_says_what_to_install(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch, workspace)
    with pytest.raises(AuthenticationError, match=r"pip install 'asynctrack\[databricks\]'"):
        DatabricksCredentials().headers()
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    monkeypatch.setenv("DATABRICKS_AUTH_TYPE", "oauth-m2m")
    with pytest.raises(AuthenticationError, match=r"pip install 'asynctrack\[databricks\]'"):
        DatabricksCredentials().headers()
    assert workspace.asked == []


@pytest.mark.usefixtures("no_sdk")
def test_without_the_sdk_the_workspace_id_is_taken_from_the_configuration(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(home, "[p]\nhost=h\ntoken=t\nworkspace_id=12\n")
    assert DatabricksCredentials("p").headers()["x-databricks-org-id"] == "12"
    monkeypatch.setenv("DATABRICKS_WORKSPACE_ID", "1\r\nX-Admin: 1")
    assert "x-databricks-org-id" not in DatabricksCredentials("p").headers()


# ── with the SDK


def test_the_sdk_is_configured_once_and_adds_what_it_knows(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    credentials = DatabricksCredentials()
    assert workspace.asked == []
    for _ in range(3):
        headers = credentials.headers()
    assert workspace.asked == ["GET /.well-known/databricks-config"]
    assert headers["x-databricks-org-id"] == "4711"
    assert headers["User-Agent"].startswith("asynctrack/")
    assert "auth/pat" in headers["User-Agent"]


def test_an_oauth_token_is_kept_until_it_expires(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch, workspace)
    credentials = DatabricksCredentials()
    assert [authorization(credentials) for _ in range(2)] == [f"Bearer {SECRET}-1"] * 2
    assert workspace.asked.count("GET /.well-known/databricks-config") == 1
    workspace.lifetime = 10  # less than the SDK keeps in reserve: expired as soon as it is there
    credentials.refused()
    assert authorization(credentials) == f"Bearer {SECRET}-2"
    assert [authorization(credentials) for _ in range(2)] == [f"Bearer {SECRET}-3", f"Bearer {SECRET}-4"]
    assert workspace.asked.count("GET /.well-known/databricks-config") == 2


def test_a_refused_client_holds_delivery_and_its_secret_is_not_shown(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the identity provider quotes it."""
    use_client(monkeypatch, workspace)
    workspace.client = "another"
    credentials = DatabricksCredentials()
    with pytest.raises(AuthenticationError, match="invalid_client") as caught:
        credentials.headers()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    workspace.client = "Basic " + base64.b64encode(b"cid:mended").decode()
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "mended")
    assert authorization(credentials) == f"Bearer {SECRET}-2"


def test_an_identity_provider_that_is_silent_is_waited_for_a_limited_time(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call gives up in time; the one request under way is not sent again, and its answer is used."""
    use_client(monkeypatch, workspace)
    workspace.answers.clear()
    credentials = DatabricksCredentials(timeout=2.0)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="within 2 s"):
            credentials.headers()
    workspace.answers.set()
    assert _eventually(credentials) == f"Bearer {SECRET}-1"
    assert workspace.asked.count("POST /token") == 1


def _eventually(credentials: DatabricksCredentials) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            return authorization(credentials)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise


def test_a_workspace_that_is_down_is_unavailable_and_not_a_mistake_of_the_user(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine tries again, and start_run goes on."""
    use_client(monkeypatch, workspace)
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    credentials = DatabricksCredentials(timeout=2.0)
    with pytest.raises(UnavailableError) as caught:
        credentials.headers()
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    assert _eventually(credentials) == f"Bearer {SECRET}-1"


def test_a_host_that_did_not_say_what_it_is_is_asked_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "t")
    workspace.known = False
    credentials = DatabricksCredentials()
    assert "x-databricks-org-id" not in credentials.headers()
    workspace.known = True
    assert "x-databricks-org-id" not in credentials.headers()
    now = time.monotonic() + databricks._ASK_AGAIN
    monkeypatch.setattr(databricks, "monotonic", lambda: now)
    assert credentials.headers()["x-databricks-org-id"] == "4711"


def test_threads_that_ask_together_share_one_configuration(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch, workspace)
    workspace.answers.clear()
    credentials = DatabricksCredentials(timeout=60.0)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(authorization(credentials))) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while "POST /token" not in workspace.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    workspace.answers.set()
    for thread in threads:
        thread.join(60)
    assert found == [f"Bearer {SECRET}-1"] * 4
    assert workspace.asked.count("GET /.well-known/databricks-config") == 1
    assert workspace.asked.count("POST /token") == 1


def test_a_forked_child_does_not_wait_for_its_parents_thread(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked while the parent asks for a token: the child asks for one of its own."""
    use_client(monkeypatch, workspace)
    workspace.answers.clear()
    credentials = DatabricksCredentials(timeout=2.0)
    with pytest.raises(UnavailableError):
        credentials.headers()
    workspace.answers.set()

    def in_child() -> str:
        return _eventually(credentials)

    assert _in_a_forked_child(in_child).startswith(f"Bearer {SECRET}-")


def _in_a_forked_child(function: Callable[[], str]) -> str:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, in one of the two processes
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, function().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_at_interpreter_exit_the_token_at_hand_is_used_and_none_is_fetched(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python starts no threads any more, and a fetch without a time limit would keep the process from ending."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    use_client(monkeypatch, workspace)
    credentials, late = DatabricksCredentials(), DatabricksCredentials()
    credentials.headers()
    thread = type("Thread", (threading.Thread,), {"start": refuse})
    monkeypatch.setattr(databricks, "threading", types.SimpleNamespace(Thread=thread, Lock=threading.Lock))
    assert authorization(credentials) == f"Bearer {SECRET}-1"
    with pytest.raises(UnavailableError, match="exiting"):
        late.headers()


# ── secrets


@pytest.mark.parametrize("token", [f"{SECRET}\nX-Admin: 1", f"{SECRET}ü"])
def test_a_token_that_is_none_never_reaches_a_header(
    token: str, either: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", token)
    credentials = DatabricksCredentials()
    for _ in range(2):
        with pytest.raises(AuthenticationError, match="line break") as caught:
            credentials.headers()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_damaged_file_is_named_and_not_quoted(either: str, home: Path) -> None:
    path = profiles(home, f"token = {SECRET}\n")
    with pytest.raises(AuthenticationError, match=rf"{path}: line 1") as caught:
        DatabricksCredentials("p").headers()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in DatabricksCredentials("p").describe()


def test_credentials_do_not_show_themselves_and_are_not_pickled(either: str, workspace: Workspace, home: Path) -> None:
    profiles(home, f"[p]\nhost={workspace.url}\ntoken={SECRET}\n")
    credentials = DatabricksCredentials("p")
    headers = credentials.headers()
    for shown in (repr(credentials), repr(headers), credentials.uri, credentials.describe()):
        assert SECRET not in shown
    for holder in (credentials, headers):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(holder)
        with pytest.raises(TypeError, match="not pickled"):
            copy.deepcopy(holder)


def test_a_traceback_with_local_variables_shows_no_secret(either: str, workspace: Workspace, home: Path) -> None:
    profiles(home, f"[p]\nhost={workspace.url}\ntoken={SECRET}ü\n")
    with pytest.raises(StoreError) as caught:
        DatabricksCredentials("p").headers()
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "found = Found(" in shown
    assert SECRET not in shown
