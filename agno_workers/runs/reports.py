"""Reports of progress, which calls make: rows for the events of their run and of the runs above it, which are the team's run and the first one.

A report is for people. It is stored at once, outside of the call's own transaction. It must not fail or slow the call: where Postgres does not
answer or a call reports too often, reports are dropped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from agno_workers.core.checks import brief
from agno_workers.core.step import ClaimedStep
from agno_workers.core.words import safe_text
from agno_workers.database.pool import Pool

log = logging.getLogger(__name__)

MAX_CHARS = 500
"""A longer text is cut."""
_BURST, _PER_S = 50, 5.0
"""A call may report so often at once, and then so often a second."""
_WAIT_S = 0.2
"""The longest wait for a connection: a `transactional` tool may hold the only one."""
_PAUSE_AFTER_ERROR_S = 20.0
_SQL = "SELECT agno.report(%(step_id)s, %(attempt)s, %(above)s::uuid[], %(text)s, %(fraction)s)"

Report = Callable[[object, object], None]


class Reports:
    """Stores the reports of this process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._silent_until = 0.0

    def of(self, claim: ClaimedStep) -> Report:
        """Return the function that stores the reports of a call; it never raises."""
        ids = {"run_id": claim.run_id, "step_id": claim.step_id}
        above = {claim.lineage.root, claim.team.run_id if claim.team else ""} - {""}
        call = {"step_id": claim.step_id, "attempt": claim.attempt, "above": sorted(above)}
        left, since = float(_BURST), time.monotonic()

        def report(text: object, fraction: object) -> None:
            nonlocal left, since
            now = time.monotonic()
            left, since = min(_BURST, left + (now - since) * _PER_S), now
            if left < 1 or now < self._silent_until:
                return
            left -= 1
            try:
                told = {"text": shortened(text), "fraction": _checked(fraction, ids)}
                with self._pool.connection_within(_WAIT_S) as connection:
                    connection.execute(_SQL, call | told)
            except Exception as error:  # an outage, or an object of the author that has no text
                self._silent_until = now + _PAUSE_AFTER_ERROR_S
                log.warning("dropped a report, and drops all for %g s: %s", _PAUSE_AFTER_ERROR_S, error, extra=ids)  # fmt: skip

        return report


def shortened(text: object) -> str:
    """Return the text of a report, cut to what is stored."""
    told = safe_text(str(text))
    return told if len(told) <= MAX_CHARS else f"{told[: MAX_CHARS - 1]}…"


def _checked(fraction: object, ids: dict[str, str]) -> float | None:
    """Return a fraction from 0 to 1; None for anything else."""
    if fraction is None:
        return None
    if isinstance(fraction, int | float) and math.isfinite(fraction) and 0 <= fraction <= 1:
        return float(fraction)
    log.warning("a report has no fraction: ctx.report(text, fraction) takes a number from 0 to 1, got %s", brief(fraction), extra=ids)  # fmt: skip
    return None
