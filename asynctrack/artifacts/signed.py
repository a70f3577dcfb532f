"""Sending a file to cloud storage by a signed address that a tracking server has handed out.

The address is the credential: it is good for one object and some minutes, and belongs in no message.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from asynctrack.artifacts import files
from asynctrack.artifacts.proxied import ArtifactClient, put_file
from asynctrack.errors import AuthenticationError, RefusedError, StoreError, UnavailableError
from asynctrack.stores.io import StoreIO
from asynctrack.stores.rest.answers import check_done

__all__ = ["SignedAddress", "fetch_signed", "signed_address", "upload_signed"]

AZURE, AWS, GCP, AZURE_ADLS = "AZURE_SAS_URI", "AWS_PRESIGNED_URL", "GCP_SIGNED_URL", "AZURE_ADLS_GEN2_SAS_URI"
_BY_NUMBER = {1: AZURE, 2: AWS, 3: GCP, 4: AZURE_ADLS}

#: bytes; S3 takes no more in one request
_AWS_LIMIT = 5 << 30
#: bytes of one block, unless the file needs more than the 50,000 blocks that Azure allows
_BLOCK_BYTES, _MAX_BLOCKS = 16 << 20, 50_000
#: Azure refuses a request with headers meant for another one; these may come with each of ours
_ALWAYS = {
    "x-ms-client-request-id",
    "x-ms-date",
    "x-ms-encryption-algorithm",
    "x-ms-encryption-key",
    "x-ms-encryption-key-sha256",
    "x-ms-encryption-scope",
    "x-ms-lease-id",
    "x-ms-version",
}


class SignedAddress(NamedTuple):
    """Where and how one artifact may be stored or read, for some minutes."""

    kind: str
    uri: str
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"SignedAddress({self.kind!r}, {self.shown!r})"  # without what makes it a credential

    @property
    def shown(self) -> str:
        """The address without its signature, for messages."""
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"

    def only(self, names: set[str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
        """The headers that Azure takes with a certain request."""
        wanted = _ALWAYS | names
        return {
            name: value
            for name, value in self.headers.items()
            if name.lower() in wanted or name.lower().startswith(prefixes)
        }

    def with_query(self, **parameters: str) -> str:
        """The address with more parameters. What is signed is left as it stands, to the letter."""
        added = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"{self.uri}{'&' if '?' in self.uri else '?'}{added}"


def signed_address(answer: Mapping[str, Any]) -> SignedAddress:
    """One of the server's ``credential_infos``."""
    kind = answer.get("type", "")
    headers = {str(item.get("name", "")): str(item.get("value", "")) for item in answer.get("headers", [])}
    return SignedAddress(_BY_NUMBER.get(kind, str(kind)), str(answer.get("signed_uri", "")), headers)


async def upload_signed(client: ArtifactClient, io: StoreIO, local_file: str, address: SignedAddress) -> None:
    """Store a file. Raises `StoreError`; the next attempt needs a new address."""
    send = {AZURE: _put_blocks, AZURE_ADLS: _append}.get(address.kind, _put_whole)
    if address.kind not in _BY_NUMBER.values():
        raise RefusedError(f"{address.shown}: this version knows no upload of the kind {address.kind!r}")
    with _discreet(address):
        await send(client, io, local_file, address)


async def fetch_signed(client: ArtifactClient, address: SignedAddress, destination: str) -> None:
    """Write what is there to a new file. Raises `StoreError`, OSError."""
    with _discreet(address):
        await client.download("GET", address.uri, destination, headers=address.headers)


async def _put_whole(client: ArtifactClient, io: StoreIO, local_file: str, address: SignedAddress) -> None:
    size = (await files.stat_source(io, local_file)).st_size
    if address.kind == AWS and size > _AWS_LIMIT:
        raise RefusedError(
            f"{local_file} has {size} bytes, and S3 takes at most {_AWS_LIMIT} in one request; log it in parts"
        )
    await put_file(client, io, address.uri, local_file, address.headers)


async def _put_blocks(client: ArtifactClient, io: StoreIO, local_file: str, address: SignedAddress) -> None:
    """Azure Blob Storage: the blocks, then the list of them, which makes them a blob."""
    before = await files.stat_source(io, local_file)
    headers = {**address.only(set()), "x-ms-blob-type": "BlockBlob"}
    upload = os.urandom(4).hex()  # so that two uploads of one artifact do not mix their blocks
    blocks = []
    for number, (offset, length) in enumerate(_blocks(before.st_size)):
        name = base64.b64encode(f"{upload}-{number:06d}".encode()).decode()
        url = address.with_query(comp="block", blockid=name)
        await _send_part(client, io, "PUT", url, local_file, offset, length, headers)
        blocks.append(f"<Uncommitted>{name}</Uncommitted>")
    files.check_unchanged(before, await files.stat_source(io, local_file), local_file)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{"".join(blocks)}</BlockList>'.encode()
    headers = address.only({"x-ms-tags", "x-ms-access-tier"}, ("x-ms-meta-", "x-ms-blob-"))
    headers.pop("x-ms-blob-type", None)
    headers["Content-Type"] = "application/xml"
    check_done(
        await client.send("PUT", address.with_query(comp="blocklist"), content=body, headers=headers), address.shown
    )


async def _append(client: ArtifactClient, io: StoreIO, local_file: str, address: SignedAddress) -> None:
    """Azure Data Lake Storage: an empty file, what belongs in it, and a flush, which makes it visible."""
    before = await files.stat_source(io, local_file)
    headers = address.only({"x-ms-permissions", "x-ms-umask", "x-ms-properties"}, ("x-ms-content-",))
    check_done(
        await client.send("PUT", address.with_query(resource="file"), content=b"", headers=headers), address.shown
    )
    for offset, length in _blocks(before.st_size):
        url = address.with_query(action="append", position=str(offset))
        await _send_part(client, io, "PATCH", url, local_file, offset, length, address.only(set()))
    files.check_unchanged(before, await files.stat_source(io, local_file), local_file)
    url = address.with_query(action="flush", position=str(before.st_size))
    check_done(await client.send("PATCH", url, content=b"", headers=address.only(set())), address.shown)


async def _send_part(
    client: ArtifactClient,
    io: StoreIO,
    method: str,
    url: str,
    local_file: str,
    offset: int,
    length: int,
    headers: Mapping[str, str],
) -> None:
    try:
        content = partial(io.stream, local_file, offset, length)
        sent = {**headers, "Content-Length": str(length)}
        # The same bytes at the same place: they may come twice.
        done = await client.send(method, url, content=content, headers=sent, again=True)
        check_done(done, f"{method} {url.partition('?')[0]}")
    except OSError as error:
        raise files.disk_error(error, local_file) from error


def _blocks(size: int) -> list[tuple[int, int]]:
    """Offset and length of the blocks of a file."""
    length = max(_BLOCK_BYTES, -(-size // _MAX_BLOCKS))
    return [(offset, min(length, size - offset)) for offset in range(0, size, length)]


@contextmanager
def _discreet(address: SignedAddress) -> Iterator[None]:
    """Errors without the signature. A refused signature has run out, and says nothing about the user's credentials."""
    try:
        yield
    except AuthenticationError:
        message = f"{address.shown}: the storage refused the signed address; a new one is asked for"
        raise UnavailableError(message) from None
    except StoreError as error:
        if address.uri not in str(error):
            raise
        hidden = str(error).replace(address.uri, address.shown)
        raise type(error)(hidden, retry_after=error.retry_after) from None
