"""A FastAPI application whose route does nothing, for `benchmarks.services`; with ``COUNTED`` set, behind
`MetricsMiddleware`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI

import asynctrack
from asynctrack.integrations.asgi import MetricsMiddleware

COUNTED = bool(os.environ.get("COUNTED"))


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """A run that is open as long as the worker; several workers share the one that their starter has begun."""
    if not COUNTED:
        yield
    elif os.environ.get("ASYNCTRACK_ATTACH"):
        with asynctrack.attach():
            yield
    else:
        async with asynctrack.start_run(run_name="service"):
            yield


app = FastAPI(lifespan=lifespan)
if COUNTED:
    merged = "merged" if os.environ.get("ASYNCTRACK_ATTACH") else None
    app.add_middleware(MetricsMiddleware, every=2, workers=merged)  # type: ignore[arg-type]


@app.get("/items/{item}")
async def item(item: int) -> dict[str, int]:
    """The route."""
    return {"item": item}
