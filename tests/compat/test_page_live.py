"""The page while a program logs: on files, on a real MLflow server, and on a spool whose store is down."""

from __future__ import annotations

import http.client
import re
import socket
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.compat.browser import CHROMIUM, coloured, drawn, page_on
from tests.servers import MlflowServer
from tests.unit.ui.viewing import Writer, viewer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here: apt-get install chromium")


@pytest.fixture(params=["files", "server", "down"])
def store(request: pytest.FixtureRequest) -> str:
    """The URI of a store of each kind; at the last one nothing listens."""
    if request.param == "server":
        server: MlflowServer = request.getfixturevalue("sqlite_server")
        return server.url
    return "mlruns" if request.param == "files" else "http://127.0.0.1:9"


@pytest.fixture
def writer(store: str) -> Iterator[Writer]:
    """A run with 200 points and a spike, of a name that no other run of the store has."""
    writer = Writer(f"live-{uuid.uuid4().hex[:8]}", MLFLOW_TRACKING_URI=store, ASYNCTRACK_CLOSE_TIMEOUT="0.1")
    try:
        for step in range(200):
            writer.log("loss", step, 1000.0 if step == 60 else 1 + step / 100)
        yield writer
    finally:
        writer.kill()


def test_a_run_is_followed_while_it_logs(store: str, writer: Writer) -> None:
    with viewer(store) as (address, _), page_on(address) as page:
        keys = page.keyboard
        keys.press("f")
        keys.type(f"attributes.run_id = '{writer.run_id}'" if store != "http://127.0.0.1:9" else "^live-")
        page.wait_for_function("() => document.querySelectorAll('.rows tbody tr').length === 1")
        keys.press("Escape")
        keys.press("a")
        drawn(page, "loss", "label.includes('max 1000') && x[1] === 199")
        high = coloured(page, "loss", 0.25)
        assert high
        assert 0.2 < high[0] <= high[-1] < 0.4, "the spike, and nothing else, is that high"
        page.wait_for_function(
            "begins => document.querySelector('.health').innerText.startsWith(begins)",
            arg="trouble" if store.endswith(":9") else "live, ",
        )
        writer.log("loss", 200, 1700.0)
        drawn(page, "loss", "label.includes('last 1700') && x[1] === 200")
        assert coloured(page, "loss", 0.2)[-1] > 0.9, "the new point is at the right"
        if store.endswith(":9"):
            assert "not delivered" in page.inner_text(".health")
        keys.press("l")
        keys.press("+")
        drawn(page, "loss", "x[0] === 50 && x[1] === 150")
        keys.press("d")
        keys.press("d")
        page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        writer.log("loss", 201, 3.0)
        drawn(page, "loss", "label.includes('last 3') && x[0] === 50 && x[1] === 150")  # zoom stays
        keys.press("g")
        for key in ("Tab", "Tab", "ArrowDown", "Escape"):
            keys.press(key)
        drawn(page, "loss", "label.includes('all runs (1)')")
        page.reload()
        drawn(page, "loss", "label.includes('all runs (1)') && x[0] === 50 && x[1] === 150")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


class _Forwarded(socketserver.BaseRequestHandler):
    """Bytes go to the other port and back, as they are: VS Code forwards a port so, and ssh -L."""

    def handle(self) -> None:
        with socket.create_connection(self.server.to) as far:  # type: ignore[attr-defined]  # set where it is made
            back = threading.Thread(target=_passed_on, args=(far, self.request))
            back.start()
            _passed_on(self.request, far)
            back.join()


def _passed_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has gone


@contextmanager
def forwarded(address: str) -> Iterator[str]:
    """The address with another port of this machine, which leads to the same one."""
    port = urlsplit(address).port
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Forwarded) as server:
        server.to = ("127.0.0.1", port)  # type: ignore[attr-defined]  # for the handler
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield re.sub(r"//[^/]+/", f"//localhost:{server.server_address[1]}/", address)
        server.shutdown()


def test_behind_a_forwarded_port_the_page_is_what_it_is(tmp_path: Path) -> None:
    """Host and Origin name the port that the browser knows, which this server does not."""
    writer = Writer()
    try:
        writer.log("loss", 0, 1.0)
        with viewer("mlruns", "--edit") as (address, _), forwarded(address) as there, page_on(there) as page:
            assert page.url.startswith("http://localhost:")
            assert "token" not in page.url
            drawn(page, "loss")
            page.wait_for_selector(".health.good")
            writer.log("loss", 1, 7.0)
            drawn(page, "loss", "label.includes('last 7')")
            answer = page.evaluate(
                """async (run) => (await fetch("api/tag", {
                  method: "POST", headers: { "content-type": "application/json" },
                  body: JSON.stringify({ run, key: "seen", value: "yes" }),
                })).status""",
                writer.run_id,
            )
            assert answer == 200
            port = urlsplit(there).port
            for host in ("evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}"):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/" + there.rpartition("/")[2], headers={"Host": host})
                assert connection.getresponse().status == 403
                connection.close()
    finally:
        writer.kill()


def test_tabs_share_one_stream_and_another_takes_over(tmp_path: Path) -> None:
    writer = Writer()
    opened = "() => performance.getEntriesByType('resource').filter((each) => each.name.includes('api/events')).length"
    try:
        writer.log("loss", 0, 1.0)
        with viewer("mlruns") as (address, _), page_on(address) as first:
            drawn(first, "loss")
            first.wait_for_selector(".health.good")
            second = first.context.new_page()
            second.goto(address)
            second.wait_for_selector("#search")
            drawn(second, "loss")
            second.wait_for_selector(".health.good")
            writer.log("loss", 1, 7.0)
            for page in (first, second):
                drawn(page, "loss", "label.includes('last 7')")
            assert second.evaluate(opened) == 0
            first.goto("about:blank")
            writer.log("loss", 2, 8.0)
            drawn(second, "loss", "label.includes('last 8')")
    finally:
        writer.kill()
