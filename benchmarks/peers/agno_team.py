"""A team of agno in one process, as its documentation shows it: a leader that delegates to all members in one reply.

Run by the Python of the peer's own environment: `python agno_team.py MEMBERS SECONDS`. Prints the wall time, the CPU time and the peak memory of
the second of two runs: `{"wall_s": ..., "cpu_s": ..., "peak_rss_bytes": ...}`.

What was chosen for agno, and why: `arun`, which runs the members side by side; no database, so nothing is stored.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from agno.agent import Agent  # type: ignore[import-not-found,unused-ignore]  # the peer's environment has them, ours does not
from agno.models.base import Model  # type: ignore[import-not-found,unused-ignore]
from agno.models.response import ModelResponse  # type: ignore[import-not-found,unused-ignore]
from agno.team import Team  # type: ignore[import-not-found,unused-ignore]

from benchmarks.processes import peak_rss_bytes

MEMBERS, SECONDS = int(sys.argv[1]), float(sys.argv[2])


@dataclass
class Member(Model):  # type: ignore[misc,unused-ignore]
    """A model that answers after a while."""

    id: str = "member"

    async def ainvoke(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(SECONDS)
        return ModelResponse(role="assistant", content="done")

    def invoke(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def invoke_stream(self, *_: Any, **__: Any) -> Iterator[Any]:
        raise NotImplementedError

    def ainvoke_stream(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    def _parse_provider_response(self, response: Any, **_: Any) -> Any:
        return response

    def _parse_provider_response_delta(self, response: Any) -> Any:
        return response


@dataclass
class Leader(Member):
    """A model that delegates to all members, and then answers with their number."""

    id: str = "leader"

    async def ainvoke(self, messages: list[Any], *_: Any, **__: Any) -> Any:
        if messages[-1].role == "tool":
            return ModelResponse(role="assistant", content=str(sum(each.role == "tool" and each.content == "done" for each in messages)))  # fmt: skip
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": "delegate_task_to_member", "arguments": json.dumps(
                {"member_id": f"member-{number}", "task": "do it"})}}
            for number in range(MEMBERS)
        ]  # fmt: skip
        return ModelResponse(role="assistant", tool_calls=calls)


async def main() -> None:
    logging.getLogger("agno").setLevel(logging.ERROR)
    members = [
        Agent(id=f"member-{number}", name=f"member-{number}", role="Does it.", model=Member(), telemetry=False) for number in range(MEMBERS)
    ]  # fmt: skip
    team = Team(name="team", members=members, model=Leader(), telemetry=False)
    await team.arun("begin")
    before, began = time.process_time(), time.perf_counter()
    answer = await team.arun("go")
    used = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - before}
    if answer.content != str(MEMBERS):
        raise RuntimeError(f"the team of agno answered {answer.content!r}")
    print(json.dumps(used | {"peak_rss_bytes": peak_rss_bytes(os.getpid())}))


if __name__ == "__main__":
    asyncio.run(main())
