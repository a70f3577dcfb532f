"""Whom we trust and who we are on an HTTPS connection: MLflow's environment variables, then those of its HTTP client.

Which authorities are trusted, first found: ``MLFLOW_TRACKING_SERVER_CERT_PATH``; ``REQUESTS_CA_BUNDLE`` and
``CURL_CA_BUNDLE``, which MLflow's client honours; ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, which OpenSSL does; else
certifi's list. ``MLFLOW_TRACKING_INSECURE_TLS`` trusts everybody. ``MLFLOW_TRACKING_CLIENT_CERT_PATH`` is one PEM file
with our certificate and its key.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from asynctrack.errors import InvalidInputError

__all__ = ["TlsOptions", "tls_options"]

logger = logging.getLogger("asynctrack")

INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"
SERVER_CERT = "MLFLOW_TRACKING_SERVER_CERT_PATH"
CLIENT_CERT = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
AUTHORITIES = (SERVER_CERT, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

_warned = False


class TlsOptions(NamedTuple):
    """``verify`` is httpx's argument of that name; a client certificate is in it."""

    verify: ssl.SSLContext
    #: True where any server is believed to be the one we want
    insecure: bool


def tls_options(environment: Mapping[str, str] = os.environ) -> TlsOptions:
    """How to connect to an ``https://`` server. Takes some ms: call it once for a client.

    Raises `InvalidInputError` naming the variable. Logs one warning for a process that is told to trust everybody.
    """
    insecure = _flag(environment, INSECURE)
    if insecure and environment.get(SERVER_CERT):
        raise InvalidInputError(f"{INSECURE} and {SERVER_CERT} are both set: trust every server, or those; unset one")
    context = _trusting_everybody() if insecure else _trusting(environment)
    certificate = environment.get(CLIENT_CERT)
    if certificate:
        _present(context, certificate)
    return TlsOptions(context, insecure)


def _flag(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "")
    if text.lower() not in ("", "true", "false", "1", "0"):
        raise InvalidInputError(f"{variable}={text!r}: it must be true, false, 1 or 0")
    return text.lower() in ("true", "1")


def _trusting_everybody() -> ssl.SSLContext:
    global _warned
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if not _warned:
        _warned = True
        logger.warning(
            "asynctrack: %s is set: the tracking server's certificate is not checked, so anybody on the way can read "
            "and change what is logged, and take the credentials. %s trusts one authority instead",
            INSECURE,
            SERVER_CERT,
        )
    return context


def _trusting(environment: Mapping[str, str]) -> ssl.SSLContext:
    variable = next((name for name in AUTHORITIES if environment.get(name)), None)
    if variable is None:
        return httpx.create_ssl_context(trust_env=False)
    path = environment[variable]
    shown = f"{variable}={path!r}"
    try:
        os.stat(path)
        if os.path.isdir(path):
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise InvalidInputError(f"{shown}: no certificates in PEM form can be read from it") from error
    except OSError as error:
        raise InvalidInputError(f"{shown}: {error.strerror}") from error


def _present(context: ssl.SSLContext, path: str) -> None:
    """Load our own certificate and its key."""
    shown = f"{CLIENT_CERT}={path!r}"

    def no_passphrase() -> str:
        # Without this OpenSSL would ask on the terminal, and a batch job would wait for ever.
        raise InvalidInputError(f"{shown}: its key is encrypted; write it without a passphrase (`openssl pkey`)")

    try:
        os.stat(path)
        context.load_cert_chain(path, password=no_passphrase)
    except ssl.SSLError as error:
        raise InvalidInputError(f"{shown}: it must hold a certificate and its key, both in PEM form") from error
    except OSError as error:
        raise InvalidInputError(f"{shown}: {error.strerror}") from error
