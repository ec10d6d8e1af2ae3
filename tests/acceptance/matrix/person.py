"""A client process that executes one command, and may die at a failpoint: `VERB SUBJECT [MORE]`."""

from __future__ import annotations

import os
import sys
from typing import cast

from celery import chord

from agno_workers import Client
from agno_workers.types import IfBusy
from tests.agents import echo


def main(verb: str, subject: str, *more: str) -> None:
    with Client(os.environ["AGNO_DATABASE_URL"]) as client:
        match verb:
            case "submit":
                client.runs.submit(subject, more[0], idempotency_key=more[1])
            case "say":
                text, session, if_busy = more
                client.runs.submit(
                    subject,
                    text,
                    session_id=session,
                    if_busy=cast("IfBusy", if_busy),
                    idempotency_key=session,
                )
            case "chord":
                header = [echo.s(text, idempotency_key=f"{subject} {text}") for text in "ab"]
                chord(header, echo.s(idempotency_key=subject)).delay()
            case "cancel":
                client.runs.get(subject).cancel()
            case "approve":
                client.approvals.get(subject).approve(by="ann")
            case "complete":
                client.approvals.get(subject).complete("delivered", by="ann")
            case "resolve":
                client.approvals.get(subject).resolve(True, "it went through", by="ann")
            case "again":
                client.approvals.get(subject).resolve(False, again=True, by="ann")


if __name__ == "__main__":
    main(*sys.argv[1:])
