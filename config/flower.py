"""Flower's settings: read-only pages of workers and tasks.

FLOWER_BASIC_AUTH=user:password lets that user in; without it each start makes a password and writes it to
the log. FLOWER_ADDRESS and FLOWER_PORT default to 127.0.0.1 and 5555. FLOWER_ENABLE_EVENTS=false keeps workers from
sending task events: cheaper under load, and the page of tasks stays empty.
"""

import os
import secrets
import sys

read_only = True  # no shutdown, no revoke, no sending of tasks, for any user
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
max_tasks = 10_000
tasks_columns = "name,uuid,state,received,started,runtime,worker"

if "change-me" in os.environ.get("FLOWER_BASIC_AUTH", ""):
    sys.exit("Flower: the password in FLOWER_BASIC_AUTH is change-me, as in an example: set one of your own.")
basic_auth = [pair for pair in os.environ.get("FLOWER_BASIC_AUTH", "").split(",") if pair]
if not basic_auth:
    basic_auth = [f"agno:{secrets.token_urlsafe(12)}"]
    sys.stderr.write(f"Flower: FLOWER_BASIC_AUTH is not set; for now sign in as {basic_auth[0]}\n")


def format_task(task):
    """Hide the arguments and results of tasks on the pages, except those of our steps, which are only ids."""
    if task.name not in ("agno.turn", "agno.tool"):
        task.args = task.kwargs = task.result = "(not shown)"
    return task
