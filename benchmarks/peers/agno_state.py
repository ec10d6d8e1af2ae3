"""Runs of one session of agno at once, each of which changes the session's state in a tool, as its documentation shows it.

Run by the Python of the peer's own environment: `python agno_state.py DATABASE_URL SESSION RUNS ANSWERS_AFTER_S`. Prints what the session has
after all runs: `{"count": ..., "keys": ...}`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agno.agent import Agent  # type: ignore[import-not-found,unused-ignore]  # the peer's environment has them, ours does not
from agno.db.postgres import PostgresDb  # type: ignore[import-not-found,unused-ignore]
from agno.models.base import Model  # type: ignore[import-not-found,unused-ignore]
from agno.models.response import ModelResponse  # type: ignore[import-not-found,unused-ignore]
from agno.run import RunContext  # type: ignore[import-not-found,unused-ignore]


@dataclass
class Calling(Model):  # type: ignore[misc,unused-ignore]
    """A model that calls `tally`, and then ends."""

    id: str = "calling"

    def invoke(self, messages: list[Any], *_: Any, **__: Any) -> Any:
        time.sleep(float(sys.argv[4]))
        if messages[-1].role == "tool":
            return ModelResponse(role="assistant", content="done")
        call = {"id": "c1", "type": "function", "function": {"name": "tally", "arguments": "{}"}}
        return ModelResponse(role="assistant", tool_calls=[call])

    async def ainvoke(self, *given: Any, **more: Any) -> Any:
        return self.invoke(*given, **more)

    def invoke_stream(self, *given: Any, **more: Any) -> Any:
        yield self.invoke(*given, **more)

    async def ainvoke_stream(self, *given: Any, **more: Any) -> Any:
        yield self.invoke(*given, **more)

    def _parse_provider_response(self, response: Any, **_: Any) -> Any:
        return response

    def _parse_provider_response_delta(self, response: Any) -> Any:
        return response


def tally(run_context: RunContext) -> str:
    """Count this run."""
    state = run_context.session_state
    state["count"] = state.get("count", 0) + 1
    state[f"run {run_context.run_id}"] = True
    return "counted"


def main() -> None:
    database_url, session, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    logging.getLogger("agno").setLevel(logging.ERROR)
    db = PostgresDb(db_url=database_url.replace("postgresql://", "postgresql+psycopg://"))
    agent = Agent(id="tallying", model=Calling(), db=db, tools=[tally], telemetry=False)
    agent.run("begin", session_id=f"{session} before")  # makes the tables
    with ThreadPoolExecutor(runs) as threads:
        list(threads.map(lambda number: agent.run(str(number), session_id=session), range(runs)))
    state = agent.get_session_state(session_id=session)
    keys = sum(name.startswith("run ") for name in state)
    print(json.dumps({"count": state.get("count", 0), "keys": keys}))


if __name__ == "__main__":
    main()
