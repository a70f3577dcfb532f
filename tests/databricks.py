"""A stand-in for a Databricks workspace: sign-in, limits and artifact storage of its own, a real MLflow server behind.

    with DatabricksHost(server.url, tmp_path / "dbfs") as host:
        Config(host=host.url, token=host.token).authenticate()                       # a personal access token
        Config(host=host.url, client_id=host.client_id, client_secret=host.client_secret)     # OAuth, M2M

The host's name in what it hands out is the request's ``Host``, so a ``FaultProxy`` may stand before it. Unlike a
workspace it merges equal metric points as SQL does, unless the MLflow server behind is a file-backed one.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiofiles
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.exchange import KEPT, Recorded

API = "/api/2.0/mlflow/"
#: documented for log-batch; a workspace refuses larger bodies
MAX_BODY = 1_000_000
START_LIMIT = 30.0
#: what a signed address asks of its user besides itself, as S3's encryption headers do
SIGNED_HEADER = ("x-amz-server-side-encryption", "aws:kms")


class DatabricksHost:
    """The workspace, on a free port; artifacts lie in ``folder/<run id>/``. Methods may be called from any thread.

    ``token_seconds`` is how long an OAuth token is good for; ``rates`` holds allowed requests a second by a part of
    their path, all others are free.
    """

    workspace_id = "4711"

    def __init__(
        self, target_url: str, folder: Path, *, token_seconds: int = 3600, rates: Mapping[str, int] | None = None
    ) -> None:
        self._target, self._folder = target_url, folder
        self._token_seconds = token_seconds
        self._rates = {path: _Bucket(rate) for path, rate in (rates or {}).items()}
        #: the personal access token, and the service principal's name and secret
        self.token = f"dapi{secrets.token_hex(16)}"
        self.client_id, self.client_secret = secrets.token_hex(8), f"dose{secrets.token_hex(16)}"
        #: each OAuth token ever issued, with the time.monotonic() of its end
        self.issued: dict[str, float] = {}
        #: what arrived, at this host and at its signed addresses, in order
        self.requests: list[Recorded] = []
        self._signed: dict[str, Path] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        config = uvicorn.Config(self._app(), access_log=False, log_config=None, ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="databricks-host", daemon=True
        )

    def __repr__(self) -> str:
        return f"DatabricksHost({self._target!r})"

    @property
    def url(self) -> str:
        """What to give as host."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def requests_to(self, path: str) -> list[Recorded]:
        """Those whose target contains ``path``."""
        return [record for record in list(self.requests) if path in record.path]

    def revoke(self) -> None:
        """Make every OAuth token issued so far, and the personal one, worthless; ``token`` is a new one afterwards."""
        self.issued = dict.fromkeys(self.issued, 0.0)
        self.token = f"dapi{secrets.token_hex(16)}"

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + START_LIMIT
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the Databricks stand-in does not come up")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(START_LIMIT)
        self._socket.close()

    # Signing in

    async def _well_known(self, request: Request) -> Response:
        return JSONResponse({"oidc_endpoint": f"{_base(request)}/oidc", "workspace_id": self.workspace_id})

    async def _discovery(self, request: Request) -> Response:
        oidc = f"{_base(request)}/oidc/v1"
        return JSONResponse({"authorization_endpoint": f"{oidc}/authorize", "token_endpoint": f"{oidc}/token"})

    async def _new_token(self, request: Request) -> Response:
        expected = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return JSONResponse({"error": "invalid_client", "error_description": "unknown client"}, 401)
        form = dict(httpx.QueryParams((await request.body()).decode()))
        if form != {"grant_type": "client_credentials", "scope": "all-apis"}:
            return JSONResponse({"error": "invalid_request", "error_description": f"not expected: {form}"}, 400)
        token = f"eyJ{secrets.token_hex(32)}"
        self.issued[token] = time.monotonic() + self._token_seconds
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": self._token_seconds})

    def _refusal(self, request: Request) -> Response | None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or (token != self.token and self.issued.get(token, 0.0) < time.monotonic()):
            return _error(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type")
        if any(part in request.url.path and not bucket.take() for part, bucket in self._rates.items()):
            return _error(429, "REQUEST_LIMIT_EXCEEDED", "Too many requests", **{"Retry-After": "1"})
        return None

    # The tracking API

    async def _api(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        body = await request.body()
        if len(body) > MAX_BODY:
            return _error(400, "INVALID_PARAMETER_VALUE", f"the request's {len(body)} bytes are over {MAX_BODY}")
        path = request.url.path.removeprefix(API)
        try:
            sent: dict[str, Any] = json.loads(body) if body else dict(request.query_params)
        except ValueError:
            return _error(400, "MALFORMED_REQUEST", "invalid JSON")
        if path in ("artifacts/credentials-for-write", "artifacts/credentials-for-read"):
            return self._credentials(_base(request), sent, path.rpartition("-")[2])
        if path == "artifacts/list":
            return self._listing(await self._run(request, sent["run_id"]), sent.get("path", ""))
        if refusal := _unlike_a_workspace(path, sent):
            return refusal
        if path == "experiments/create":
            body = json.dumps({**sent, "name": sent["name"].removeprefix("/Workspace")}).encode()
        return await self._forward(request, body)

    async def _no_files_api(self, request: Request) -> Response:
        """The other way to a run's artifacts, which clients try first; where it is not enabled they go on without."""
        return self._refusal(request) or _error(403, "PERMISSION_DENIED", "the Files API is not enabled for runs")

    async def _forward(self, request: Request, body: bytes) -> Response:
        client: httpx.AsyncClient = request.state.client
        passed = {"content-type": request.headers["content-type"]} if "content-type" in request.headers else {}
        target = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        answer = await client.request(request.method, target, content=body, headers=passed)
        if answer.headers.get("content-type", "").startswith("application/json"):
            return JSONResponse(_as_in_dbfs(answer.json()), answer.status_code)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    async def _run(self, request: Request, run_id: str) -> dict[str, Any]:
        client: httpx.AsyncClient = request.state.client
        answer = await client.get(f"{API}runs/get", params={"run_id": run_id})
        info: dict[str, Any] = _as_in_dbfs(answer.raise_for_status().json())["run"]["info"]
        return info

    # Artifacts

    def _credentials(self, base: str, sent: Mapping[str, Any], what: str) -> Response:
        """Addresses good for one file each: to be written for credentials-for-write, read for credentials-for-read."""
        infos = []
        for path in [sent["path"]] if isinstance(sent["path"], str) else sent["path"]:
            key = secrets.token_hex(16)
            self._signed[f"{what}/{key}"] = self._file(sent["run_id"], path)
            headers = [dict(zip(("name", "value"), SIGNED_HEADER, strict=True))] if what == "write" else []
            address = {"signed_uri": f"{base}/signed/{what}/{key}?X-Amz-Signature={key}", "headers": headers}
            infos.append({"run_id": sent["run_id"], "path": path, "type": "AWS_PRESIGNED_URL", **address})
        return JSONResponse({"credential_infos": infos})

    def _file(self, run_id: str, path: str) -> Path:
        root = (self._folder / run_id).resolve()
        file = (root / path).resolve()
        if not file.is_relative_to(root):
            raise ValueError(f"{path!r} leaves the run's artifacts")
        return file

    async def _signed_address(self, request: Request) -> Response:
        """As S3 answers: no second way to sign in beside the address, the headers that were asked for, no chunks."""
        what = "write" if request.method == "PUT" else "read"
        file = self._signed.get(f"{what}/{request.path_params['key']}")
        if file is None or request.path_params["what"] != what:
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if "authorization" in request.headers:
            return Response("<Error><Code>InvalidArgument</Code></Error>", 400, media_type="application/xml")
        if what == "read":
            return FileResponse(file) if file.is_file() else Response("<Error><Code>NoSuchKey</Code></Error>", 404)
        if request.headers.get(SIGNED_HEADER[0]) != SIGNED_HEADER[1]:
            return Response("<Error><Code>SignatureDoesNotMatch</Code></Error>", 403, media_type="application/xml")
        if "content-length" not in request.headers:
            return Response("<Error><Code>NotImplemented</Code></Error>", 501, media_type="application/xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        async with aiofiles.open(file, "wb") as target:
            async for part in request.stream():
                await target.write(part)
        return Response(status_code=200, headers={"ETag": f'"{file.stat().st_size}"'})

    def _listing(self, info: Mapping[str, Any], path: str) -> Response:
        folder, root = self._file(info["run_id"], path), self._file(info["run_id"], "")
        files = []
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            size = {} if file.is_dir() else {"file_size": file.stat().st_size}
            files.append({"path": str(file.relative_to(root)), "is_dir": file.is_dir(), **size})
        return JSONResponse({"root_uri": info["artifact_uri"], **({"files": files} if files else {})})

    def _app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
            async with httpx.AsyncClient(base_url=self._target, trust_env=False, timeout=60) as client:
                yield {"client": client}

        routes = [
            Route("/.well-known/databricks-config", self._well_known),
            Route("/oidc/.well-known/oauth-authorization-server", self._discovery),
            Route("/oidc/v1/token", self._new_token, methods=["POST"]),
            Route("/signed/{what}/{key}", self._signed_address, methods=["PUT", "GET"]),
            Route("/api/2.0/fs/{path:path}", self._no_files_api, methods=["GET", "PUT", "POST", "DELETE"]),
            Route(API + "{path:path}", self._api, methods=["GET", "POST", "PATCH", "DELETE"]),
        ]
        return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(_Recording, self.requests)])


class _Bucket:
    """So many a second, and as many at once."""

    def __init__(self, rate: int) -> None:
        self._rate, self._left, self._seen = rate, float(rate), time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Recording:
    """Notes each request, the body as far as the application read it, and its answer's status."""

    def __init__(self, app: ASGIApp, records: list[Recorded]) -> None:
        self._app, self._records = app, records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        target = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in scope["headers"])
        record = Recorded(scope["method"], target, headers, connection=0)
        self._records.append(record)

        async def note_body() -> Message:
            message = await receive()
            data = message.get("body", b"")
            record.body += data[: max(0, KEPT - len(record.body))]
            record.size += len(data)
            return message

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        await self._app(scope, note_body, note_status)
        record.finished = True


def _unlike_a_workspace(path: str, sent: Mapping[str, Any]) -> Response | None:
    """Refuses what a workspace refuses and MLflow's server does not."""
    name = sent.get("name" if path == "experiments/create" else "experiment_name", "")
    if path in ("experiments/create", "experiments/get-by-name") and not str(name).startswith("/"):
        text = f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path within the"
        return _error(400, "INVALID_PARAMETER_VALUE", f"{text} Databricks workspace, e.g. '/Users/<username>/x'.")
    if path == "runs/create" and sent.get("experiment_id") == "0":
        return _error(404, "RESOURCE_DOES_NOT_EXIST", "No experiment was found with ID 0")
    return None


def _as_in_dbfs(value: Any) -> Any:
    """The same answer with the artifacts' locations as a workspace gives them."""
    if isinstance(value, list):
        return [_as_in_dbfs(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _as_in_dbfs(item) for key, item in value.items()}
    root = f"dbfs:/databricks/mlflow-tracking/{value.get('experiment_id')}"
    if "artifact_location" in value:
        result["artifact_location"] = root
    if "artifact_uri" in value:
        result["artifact_uri"] = f"{root}/{value['run_id']}/artifacts"
    return result


def _base(request: Request) -> str:
    return f"http://{request.headers['host']}"


def _error(status: int, code: str, message: str, **headers: str) -> Response:
    return JSONResponse({"error_code": code, "message": message}, status, headers)
