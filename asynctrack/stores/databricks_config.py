"""What environment variables and ``.databrickscfg`` say about a Databricks workspace, read as databricks-sdk does.

Variables go before the file, value by value, also when a profile is named; the file is not read when no profile is
named and the variables name a host or credentials; no profile inherits from ``[DEFAULT]``.
"""

from __future__ import annotations

import configparser
import os
import re
from typing import NamedTuple

from asynctrack.errors import AuthenticationError, InvalidInputError
from asynctrack.stores.rest.auth import Secret, basic_header, bearer_header, read_ini, split_userinfo

__all__ = [
    "ADVICE",
    "SECRETS",
    "VARIABLES",
    "Answer",
    "Found",
    "find",
    "organisation",
    "plain_answer",
    "workspace_host",
    "workspace_url",
]

#: what databricks-sdk calls a setting, in ``.databrickscfg`` too, and the variable that goes before it
VARIABLES = {
    "host": "DATABRICKS_HOST",
    "workspace_id": "DATABRICKS_WORKSPACE_ID",
    "auth_type": "DATABRICKS_AUTH_TYPE",
    "token": "DATABRICKS_TOKEN",
    "username": "DATABRICKS_USERNAME",
    "password": "DATABRICKS_PASSWORD",
    "client_id": "DATABRICKS_CLIENT_ID",
    "client_secret": "DATABRICKS_CLIENT_SECRET",
    "metadata_service_url": "DATABRICKS_METADATA_SERVICE_URL",
    "oidc_token_env": "DATABRICKS_OIDC_TOKEN_ENV",
    "oidc_token_filepath": "DATABRICKS_OIDC_TOKEN_FILEPATH",
    "azure_workspace_resource_id": "DATABRICKS_AZURE_RESOURCE_ID",
    "azure_use_msi": "ARM_USE_MSI",
    "azure_client_id": "ARM_CLIENT_ID",
    "azure_client_secret": "ARM_CLIENT_SECRET",
    "azure_tenant_id": "ARM_TENANT_ID",
    "google_service_account": "DATABRICKS_GOOGLE_SERVICE_ACCOUNT",
    "google_credentials": "GOOGLE_CREDENTIALS",
}
#: settings that belong to no way of authenticating
_NO_METHOD = ("host", "workspace_id", "auth_type")
SECRETS = ("token", "password", "client_secret", "metadata_service_url", "azure_client_secret", "google_credentials")
ADVICE = "set DATABRICKS_HOST and DATABRICKS_TOKEN, or write a profile into ~/.databrickscfg (`databricks configure`)"
_INSTALL = "pip install 'asynctrack[databricks]'"


class Found(NamedTuple):
    """What the environment and ``.databrickscfg`` say."""

    values: dict[str, Secret]
    #: for messages
    where: str


class Answer(NamedTuple):
    """Who we are, and where."""

    host: str
    headers: dict[str, str]


def find(profile: str | None) -> Found:
    """Read environment and ``.databrickscfg`` as databricks-sdk does. Raises `AuthenticationError`."""
    values = {name: Secret(os.environ[variable]) for name, variable in VARIABLES.items() if os.environ.get(variable)}
    given = ", ".join(VARIABLES[name] for name in values)
    profile = profile or os.environ.get("DATABRICKS_CONFIG_PROFILE") or None
    if profile is None and values.keys() - {"workspace_id", "auth_type"}:
        return Found(values, given)
    path = os.path.expanduser(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg")
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="\0")  # DEFAULT: like others
    read_ini(path, parser)
    if profile is None:
        named = parser.get("__settings__", "default_profile", fallback="").strip()
        if not named and not parser.has_section("DEFAULT"):
            return Found(values, f"{given or 'no DATABRICKS_ variable'}, no [DEFAULT] profile in {path}")
        profile = named or "DEFAULT"
    if profile == "__settings__" or not parser.has_section(profile):
        raise AuthenticationError(f"Databricks: no profile {profile!r} in {path}")
    in_file = {name: Secret(value) for name, value in parser.items(profile) if value}
    return Found(in_file | values, f"{given and given + ', '}profile {profile!r} in {path}")


def plain_answer(found: Found) -> Answer:
    """What can be said without databricks-sdk. Raises `AuthenticationError`."""
    values, host = found.values, workspace_host(found)
    method = values.get("auth_type") or _only_method(found)
    if method == "pat" and "token" in values:
        headers = bearer_header(values["token"], f"the token ({found.where})", host)
    elif method == "basic" and "username" in values and "password" in values:
        headers = basic_header(values["username"], values["password"], found.where, host)
    else:
        raise AuthenticationError(
            f"Databricks {host}: neither a token nor a user name with password ({found.where}). "
            f"All other ways to authenticate need databricks-sdk: {_INSTALL}"
        )
    return Answer(host, headers | organisation(found.values.get("workspace_id")))


def _only_method(found: Found) -> str:
    methods = {"token": "pat", "username": "basic", "password": "basic"}
    known = {methods.get(name, "other") for name in VARIABLES if name in found.values and name not in _NO_METHOD}
    if len(known) > 1:
        raise AuthenticationError(
            f"Databricks: credentials for more than one way to authenticate ({found.where}): set DATABRICKS_AUTH_TYPE, "
            f"for example to pat, or remove one"
        )
    return known.pop() if known else "none"


def workspace_host(found: Found) -> str:
    """The workspace's URL, normalised. Raises `AuthenticationError`."""
    host = found.values.get("host")
    if not host:
        raise AuthenticationError(f"Databricks: no host ({found.where}); {ADVICE}")
    return workspace_url(host, found)


def workspace_url(host: str, found: Found) -> str:
    """Scheme and host: what is copied from a browser's address line has a path and a query too."""
    text = host if "://" in host else f"https://{host}"
    try:
        url, userinfo = split_userinfo(re.split(r"(?<=[^:/])[/?#]", text, maxsplit=1)[0])
    except InvalidInputError:
        userinfo, url = None, ""
    if userinfo or not url:
        raise AuthenticationError(
            f"Databricks: the host is no URL like https://dbc-1.cloud.databricks.com, without credentials "
            f"({found.where})"
        )
    return url


def organisation(workspace_id: str | None) -> dict[str, str]:
    """Several workspaces may share a host. An id that could not be in a header is none."""
    known = workspace_id is not None and re.fullmatch(r"[\w.-]+", workspace_id, re.ASCII)
    return {"x-databricks-org-id": str(workspace_id)} if known else {}
