"""The names of tasks: a public contract, since other services send them."""

from agno_workers.core.run import StepKind
from agno_workers.core.step import STEP_TYPES

RUN = "agno.run"
"""Submit a run: `send_task("agno.run", args=[input], kwargs={"agent": ..., **options})`; options: `core.request.RunOptions`."""
CANARY = "agno.canary"
"""A worker sends this to itself to test that it receives messages; see canary.py."""

TASK_OF = {kind: step.task for kind, step in STEP_TYPES.items()}
STEP_TASKS = frozenset(TASK_OF.values())
"""Tasks that execute one step; their results are rows in Postgres, not Celery results."""
TURN, TOOL = TASK_OF[StepKind.TURN], TASK_OF[StepKind.TOOL]
