"""The names that travel in messages: a public contract, since other services send them."""

RUN = "agno.run"
"""Submit a run: `send_task("agno.run", args=[input], kwargs={"agent": ...})`. Keyword arguments as `submit` takes them."""
TURN = "agno.turn"
TOOL = "agno.tool"
SCAN = "agno.scan"
INGEST = "agno.ingest"
EMBED = "agno.embed"
FINALIZE = "agno.finalize"
CANARY = "agno.canary"
"""What a worker sends itself, to know that it hears; see canary.py."""

STEP_TASKS = frozenset({TURN, TOOL, SCAN, INGEST, EMBED, FINALIZE})
"""Tasks that carry one step; their results are rows of the journal, not results of Celery."""
TASK_OF = {"turn": TURN, "tool": TOOL, "scan": SCAN, "ingest": INGEST, "embed": EMBED, "finalize": FINALIZE}
"""The task that carries a step of each kind."""
