"""agno's durable queue, as its documentation sets it up: an AgentOS on Postgres, and a model that answers at once.

Run by the Python of the peer's own environment: `python agno_queue.py DATABASE_URL PORT [REDIS_URL]`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]  # the peer's environment has them, ours does not
from agno.agent import Agent  # type: ignore[import-not-found,unused-ignore]
from agno.db.postgres import PostgresDb  # type: ignore[import-not-found,unused-ignore]
from agno.job_queue import QueueConfig  # type: ignore[import-not-found,unused-ignore]
from agno.models.base import Model  # type: ignore[import-not-found,unused-ignore]
from agno.models.response import ModelResponse  # type: ignore[import-not-found,unused-ignore]
from agno.os import AgentOS  # type: ignore[import-not-found,unused-ignore]


@dataclass
class Echo(Model):  # type: ignore[misc,unused-ignore]
    """A model that answers with the same text each time."""

    id: str = "echo"

    def invoke(self, *_: Any, **__: Any) -> Any:
        return ModelResponse(role="assistant", content="Hello.")

    async def ainvoke(self, *_: Any, **__: Any) -> Any:
        return ModelResponse(role="assistant", content="Hello.")

    def invoke_stream(self, *_: Any, **__: Any) -> Iterator[Any]:
        yield ModelResponse(role="assistant", content="Hello.")

    async def ainvoke_stream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield ModelResponse(role="assistant", content="Hello.")

    def _parse_provider_response(self, response: Any, **_: Any) -> Any:
        return response

    def _parse_provider_response_delta(self, response: Any) -> Any:
        return response


def main() -> None:
    database_url, port = sys.argv[1], int(sys.argv[2])
    db = PostgresDb(db_url=database_url.replace("postgresql://", "postgresql+psycopg://"))
    agent = Agent(id="echo", model=Echo(), db=db, telemetry=False)
    config = QueueConfig(durable=True, max_queue_depth=10_000)
    served = AgentOS(agents=[agent], db=db, queue=config, telemetry=False)
    logging.getLogger("agno").setLevel(logging.WARNING)  # as the other worker
    uvicorn.run(served.get_app(), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
