"""An agent that pays, on agno's durable queue: an AgentOS on Postgres, set up as its documentation says.

Run by the Python of the peer's own environment: `python agno_payments.py DATABASE_URL PORT MODEL_URL LEDGER OPTIONS`,
with OPTIONS in JSON: `max_attempts` and `checkpoint` as agno names them, and `dies`: SIGKILL as soon as `pay` has returned.

What was chosen for agno, and why:
* `lock_grace_seconds=3`, the least that it takes (60 is its default): a dead worker is noticed as soon as ours.
* `checkpoint="tool-batch"`, where asked for: the most often that agno 3.1 stores a run on its way.
* Plain functions as tools: agno runs those of one batch side by side, each on a thread.
* No Redis: its queue needs none.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import uvicorn  # type: ignore[import-not-found,unused-ignore]  # the peer's environment has them, ours does not
from agno.agent import Agent  # type: ignore[import-not-found,unused-ignore]
from agno.db.postgres import PostgresDb  # type: ignore[import-not-found,unused-ignore]
from agno.job_queue import QueueConfig  # type: ignore[import-not-found,unused-ignore]
from agno.models.openai import OpenAIChat  # type: ignore[import-not-found,unused-ignore]
from agno.os import AgentOS  # type: ignore[import-not-found,unused-ignore]

from benchmarks.peers import ledger


def pay(order: str, cents: int) -> str:
    """Pay an order.

    Args:
        order: Which.
        cents: How much.
    """
    ledger.append(sys.argv[4], order=order, cents=cents)
    return "paid"


def pack(seconds: float) -> str:
    """Pack the parcel.

    Args:
        seconds: How long it takes.
    """
    time.sleep(seconds)
    return "packed"


def die_after_paying(name: str, func: Callable[..., Any], args: dict[str, Any]) -> Any:
    """A hook around each tool, for the setting in which nobody gets to record that it returned."""
    result = func(**args)
    if name == "pay":
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def main() -> None:
    database_url, port, model_url = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    options = json.loads(sys.argv[5])
    db = PostgresDb(db_url=database_url.replace("postgresql://", "postgresql+psycopg://"))
    agent = Agent(
        id="cashier",
        model=OpenAIChat(id="fake-1", base_url=model_url, api_key="sk-fake"),
        tools=[pay, pack],
        tool_hooks=[die_after_paying] if options.get("dies") else None,
        checkpoint=options.get("checkpoint"),
        db=db,
        telemetry=False,
    )
    attempts = {"max_attempts": options["max_attempts"]} if "max_attempts" in options else {}
    config = QueueConfig(durable=True, lock_grace_seconds=3, **attempts)
    served = AgentOS(agents=[agent], db=db, queue=config, telemetry=False)
    logging.getLogger("agno").setLevel(logging.WARNING)
    uvicorn.run(served.get_app(), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
