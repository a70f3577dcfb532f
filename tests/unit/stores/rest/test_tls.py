"""TLS against a real HTTPS server, whose authority is made here."""

from __future__ import annotations

import http.server
import itertools
import logging
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from asynctrack.errors import InvalidInputError
from asynctrack.stores.rest import tls
from asynctrack.stores.rest.tls import AUTHORITIES, CLIENT_CERT, INSECURE, SERVER_CERT, tls_options


class Authority:
    """A certificate authority, its server's certificate, and the files a user would be given."""

    def __init__(self, folder: Path, name: str) -> None:
        self._made = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self._made.cert_pem.write_to_path(str(self.file))
        self.client_file = folder / f"{name}-client.pem"
        self._made.issue_cert("ann@example.org").private_key_and_cert_chain_pem.write_to_path(str(self.client_file))

    def server_context(self, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._made.issue_cert("127.0.0.1").configure_cert(context)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            self._made.configure_trust(context)
        return context


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away because it does not trust us is what some tests are about."""


@contextmanager
def serving(context: ssl.SSLContext) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def get(url: str) -> str:
    with httpx.Client(verify=tls_options().verify, trust_env=False, timeout=30) as client:
        return client.get(url).text


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_warned", False)
    for name in AUTHORITIES:
        monkeypatch.delenv(name, raising=False)


def test_an_authority_of_ones_own_is_trusted_and_only_that(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(authority.server_context()) as url:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            get(url)
        monkeypatch.setenv(SERVER_CERT, str(authority.file))
        assert get(url) == "OK"
        monkeypatch.setenv(SERVER_CERT, str(Authority(tmp_path, "theirs").file))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            get(url)


def test_the_host_name_is_checked(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_CERT, str(authority.file))
    with (
        serving(authority.server_context()) as url,
        pytest.raises(httpx.ConnectError, match="Hostname mismatch"),
    ):
        get(url.replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_what_requests_and_openssl_are_told_to_trust_is_trusted(
    variable: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    with serving(authority.server_context()) as url:
        assert get(url) == "OK"


def test_mlflows_variable_goes_before_those_of_requests_and_openssl(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Authority(tmp_path, "theirs").file
    with serving(authority.server_context()) as url:
        for earlier, later in itertools.pairwise(AUTHORITIES):
            monkeypatch.setenv(later, str(theirs))
            monkeypatch.setenv(earlier, str(authority.file))
            assert get(url) == "OK"
            monkeypatch.delenv(earlier)
            monkeypatch.delenv(later)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only the openssl program makes such a folder")
@pytest.mark.parametrize("variable", [SERVER_CERT, "SSL_CERT_DIR"])
def test_a_folder_of_authorities_is_trusted(
    variable: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by their hashes, as OpenSSL wants it."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "ours.pem").write_bytes(authority.file.read_bytes())
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
    monkeypatch.setenv(variable, str(folder))
    with serving(authority.server_context()) as url:
        assert get(url) == "OK"


def test_a_server_that_asks_for_our_certificate_gets_it(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_CERT, str(authority.file))
    with serving(authority.server_context(asks_for_certificate=True)) as url:
        with pytest.raises(httpx.TransportError):
            get(url)
        monkeypatch.setenv(CLIENT_CERT, str(authority.client_file))
        assert get(url) == "OK"


@pytest.mark.parametrize("value", ["true", "TRUE", "1"])
def test_the_insecure_switch_trusts_everybody_and_warns_once_in_a_process(
    value: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(INSECURE, value)
    monkeypatch.setenv(CLIENT_CERT, str(authority.client_file))
    with caplog.at_level(logging.WARNING), serving(authority.server_context(asks_for_certificate=True)) as url:
        assert get(url) == "OK"
        assert get(url.replace("127.0.0.1", "localhost")) == "OK"
    [record] = caplog.records
    assert INSECURE in record.getMessage()
    assert tls_options().insecure


@pytest.mark.parametrize("value", ["false", "False", "0", ""])
def test_the_insecure_switch_can_be_off(
    value: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(INSECURE, value)
    with serving(authority.server_context()) as url, pytest.raises(httpx.ConnectError, match="VERIFY_FAILED"):
        get(url)
    assert not caplog.records
    assert not tls_options().insecure


@pytest.mark.parametrize("value", ["yes", "on", "2", " true"])
def test_another_value_of_the_insecure_switch_is_an_error(value: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{INSECURE}.*true, false, 1 or 0"):
        tls_options({INSECURE: value})


def test_trusting_everybody_and_one_authority_contradict_each_other(authority: Authority) -> None:
    with pytest.raises(InvalidInputError, match=f"{INSECURE} and {SERVER_CERT}"):
        tls_options({INSECURE: "true", SERVER_CERT: str(authority.file)})
    assert not tls_options({INSECURE: "false", SERVER_CERT: str(authority.file)}).insecure


@pytest.mark.parametrize("variable", [*AUTHORITIES, CLIENT_CERT])
def test_a_missing_file_is_named_with_its_variable(variable: str, tmp_path: Path) -> None:
    path = tmp_path / "nowhere.pem"
    with pytest.raises(InvalidInputError, match=rf"{variable}='{path}': No such file"):
        tls_options({variable: str(path)})


@pytest.mark.parametrize("variable", [SERVER_CERT, CLIENT_CERT])
@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_named_with_its_variable(variable: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pem"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=rf"{variable}='{path}': .*PEM"):
        tls_options({variable: str(path)})


def test_a_client_certificate_without_its_key_is_refused(authority: Authority) -> None:
    with pytest.raises(InvalidInputError, match=f"{CLIENT_CERT}.*a certificate and its key"):
        tls_options({CLIENT_CERT: str(authority.file)})


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(tmp_path: Path) -> None:
    """OpenSSL would ask on the terminal, where a batch job has nobody to answer."""
    made = trustme.CA().issue_cert("ann@example.org")
    key = load_pem_private_key(made.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    path = tmp_path / "encrypted.pem"
    path.write_bytes(made.cert_chain_pems[0].bytes() + encrypted)
    with pytest.raises(InvalidInputError, match=f"{CLIENT_CERT}.*without a passphrase"):
        tls_options({CLIENT_CERT: str(path)})
