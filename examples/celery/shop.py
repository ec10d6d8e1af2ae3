"""A Celery app of your own, with tasks and an agent. Its tasks and runs of the agent make one canvas."""

import os

from celery import Celery

from agno_workers import Agent, attach

app = Celery("shop", broker=os.environ["AGNO_BROKER_URL"])
app.conf.task_default_queue = "shop"
attach(app)

writer = Agent(name="writer", model="scripted:echo", instructions="Answer in one sentence.")


@app.task
def order(number: int) -> str:
    return f"order {number}"


@app.task
def upper(text: str) -> str:
    return text.upper()


@app.task
def report(parts: list[str]) -> str:
    return " | ".join(parts)
