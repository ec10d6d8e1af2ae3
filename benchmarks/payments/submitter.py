"""Submits one run, prints its id, and waits for its end: `python -m benchmarks.payments.submitter ours|agno ADDRESS AGENT TEXT`."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import Any

from agno_workers import Client
from agno_workers.errors import AgnoError


def main() -> None:
    product, address, agent, text = sys.argv[1:]
    {"ours": ours, "agno": agno}[product](address, agent, text)


def ours(database_url: str, agent: str, text: str) -> None:
    with Client(database_url) as client:
        run = client.runs.submit(agent, text)
        print(run.id, flush=True)
        with suppress(AgnoError):  # how it ends is not asked here
            run.result(timeout=120)


def agno(address: str, agent: str, text: str) -> None:
    """With the session's id besides, which agno asks for when one looks at a run."""
    runs = f"{address}/agents/{agent}/runs"
    form = urllib.parse.urlencode({"message": text, "background": "true", "stream": "false"}).encode()
    accepted = _answer(urllib.request.Request(runs, data=form))
    print(accepted["run_id"], accepted["session_id"], flush=True)
    while _status(f"{runs}/{accepted['run_id']}?session_id={accepted['session_id']}") in (
        "PENDING",
        "RUNNING",
    ):
        time.sleep(0.5)


def _status(url: str) -> str:
    try:
        return str(_answer(urllib.request.Request(url))["status"])
    except OSError:  # its server is being killed
        return "RUNNING"


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


if __name__ == "__main__":
    main()
