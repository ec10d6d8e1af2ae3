"""Runs over HTTP: submit them, follow them as server-sent events, cancel them."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import Body, Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from agno_workers import AgnoError, AsyncClient, AsyncRun, IdempotencyConflict, InvalidInput, Unavailable
from agno_workers.errors import RunNotFound
from agno_workers.types import Event

STATUS = {RunNotFound: 404, IdempotencyConflict: 409, InvalidInput: 422, Unavailable: 503}


def status_of(error: AgnoError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient(os.environ["AGNO_DATABASE_URL"], os.environ["AGNO_BROKER_URL"]) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(AgnoError)
async def refuse(_: Request, error: AgnoError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_of(error))


async def known_run(run_id: str, request: Request) -> AsyncRun:
    run: AsyncRun = request.app.state.client.runs.get(run_id)
    await run.status()  # an unknown run is a 404, before the response begins
    return run


Known = Annotated[AsyncRun, Depends(known_run)]


@app.post("/runs", status_code=202)
async def submit(
    request: Request,
    question: Annotated[str, Body(embed=True)],
    idempotency_key: Annotated[str | None, Header()] = None,
) -> dict[str, str]:
    run = await request.app.state.client.runs.submit("writer", question, idempotency_key=idempotency_key)
    return {"id": run.id}


@app.get("/runs/{run_id}")
async def show(run: Known) -> dict[str, Any]:
    now = await run.run()
    return {"status": now.status, "content": now.content, "error": now.error}


@app.delete("/runs/{run_id}")
async def cancel(run: Known) -> dict[str, bool]:
    return {"cancelled": await run.cancel()}


@app.get("/runs/{run_id}/events", response_class=EventSourceResponse)
async def events(run: Known, last_event_id: Annotated[int, Header()] = 0) -> AsyncIterator[ServerSentEvent]:
    async for each in run.events(after=last_event_id):
        if isinstance(each, Event):
            yield ServerSentEvent(id=str(each.number), event=each.event, data=msgspec.to_builtins(each))
        else:  # live text has no number: after a reconnect, the events tell what it became
            yield ServerSentEvent(event="Text", data=msgspec.to_builtins(each))
