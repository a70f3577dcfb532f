"""What a PostgreSQL URI means: the keywords of a connection, and one spelling without the password."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from asynctrack.errors import InvalidInputError
from asynctrack.stores.rest.auth import Secret

__all__ = ["PostgresPlace", "parse_postgres"]

#: SQLAlchemy's names of drivers; whichever a URI names, psycopg 3 is used
_DRIVERS = ("", "psycopg", "psycopg2", "psycopg2cffi", "pg8000", "asyncpg", "psycopg_async")
#: arguments of SQLAlchemy and its drivers that libpq does not know
_DRIVERS_OWN = frozenset({"async_fallback", "prepare_threshold", "executemany_mode", "prepared_statement_cache_size"})
_SECRETS = ("password", "sslpassword")
_FORM = "write postgresql://user@host:5432/database, with %20 and the like for what has a meaning in a URL"


class PostgresPlace(NamedTuple):
    """``uri``: canonical, without a password. ``keywords``: for libpq, without one either. ``user``, ``password``: what
    stood in the URI; the password is "" if there was none."""

    uri: str
    keywords: dict[str, str]
    user: str
    password: Secret


def parse_postgres(text: str) -> PostgresPlace:
    """Raises `InvalidInputError`, which shows nothing of the URI that could be a password."""
    scheme, _, rest = text.partition("://")
    name, _, driver = scheme.lower().partition("+")
    if name not in ("postgresql", "postgres") or driver not in _DRIVERS:
        raise InvalidInputError(f"tracking URI {scheme}://…: there is no such driver here; {_FORM}")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, None  # its text may quote a password
    if parts is None or "," in parts.netloc or parts.fragment or any(map(str.isspace, text)):
        raise InvalidInputError(f"tracking URI {name}://… cannot be read; {_FORM}")
    given = {key: value for key, value in parse_qsl(parts.query, keep_blank_values=True) if key not in _DRIVERS_OWN}
    password = Secret(unquote(parts.password or "") or given.pop("password", ""))
    if any(key in given for key in _SECRETS):
        raise InvalidInputError(f"tracking URI {name}://…: give sslpassword by a file that PGSERVICEFILE names")
    place = {"host": unquote(host or ""), "port": str(port or ""), "user": unquote(parts.username or "")}
    place["dbname"] = unquote(parts.path.removeprefix("/"))
    keywords = {key: value for key, value in {**place, **given}.items() if value}
    return PostgresPlace(_spelled(keywords), keywords, keywords.get("user", ""), password)


def _spelled(keywords: dict[str, str]) -> str:
    left = dict(keywords)
    user, host, port, name = (left.pop(key, "") for key in ("user", "host", "port", "dbname"))
    if host.startswith("/"):  # a folder with a socket
        left["host"], host = host, ""
    address = f"[{host}]" if ":" in host else quote(host, safe="")
    if port:  # also 5432: without it, PGPORT may say another
        address += f":{port}"
    who = f"{quote(user, safe='')}@" if user else ""
    query = urlencode(sorted(left.items()), quote_via=quote)
    return f"postgresql://{who}{address}/{quote(name, safe='')}" + (f"?{query}" if query else "")
