"""Claim steps, hold on to them, and release them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from agno_workers.core.messages import read_call, read_messages
from agno_workers.core.policy import Retry
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import Row, jsonb, statements
from agno_workers.runs.base import Repository, convert
from agno_workers.runs.combined import Combined
from agno_workers.runs.transcripts import Transcript, Transcripts

_SQL = statements("runs/claim")
_RETURN = Retry(attempts=12, first_delay_s=0.25)
"""For steps that are returned: within a minute at most, and for about five minutes if one worker is alive."""
_SOON_S = 4.0
"""The longest wait of a returned step that another living worker can begin."""
_FREE = ("call", "policy", "answer", "metadata", "canvas", "steers")
"""The fields of a claim that hold JSON."""
_CLAIM = msgspec.json.Decoder(ClaimedStep)


class Claims(Repository):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transcripts = Transcripts()
        self._claims: Combined[dict[str, Any], Row] = Combined(
            self._claim, lambda one: self._claim([one], waits=True)[0]
        )

    def claim(self, kind: StepKind, run_id: str, step_id: str, generation: int) -> ClaimedStep | None:
        """Claim a step for `lease_s`. None: another worker holds it, or it has ended, or its run is cancelled or paused."""
        read = self.transcripts.of(run_id) if kind in (StepKind.TURN, StepKind.COMPACT) else None
        asked = {"run_id": run_id, "step_id": step_id, "generation": generation, "kind": kind}
        row = self._claims(asked | {"known": read.last} if read else asked)
        if row is None:
            return None
        claim = _claimed(row["claim"])
        return claim if row["transcript"] is None else self._with_transcript(claim, row, read)

    def _claim(self, asked: Sequence[dict[str, Any]], *, waits: bool = False) -> list[Row | None]:
        mine = {"worker": self.worker, "lease_s": self._numbers.lease_s}
        rows = self._pool.run(_SQL["claim"], mine | {"asked": jsonb(asked), "waits": waits})
        found = {row["place"]: row for row in rows}
        return [found.get(place) for place in range(1, len(asked) + 1)]

    def _with_transcript(self, claim: ClaimedStep, row: Row, read: Transcript | None) -> ClaimedStep:
        """Add the messages before a turn: those that are known, and the new ones of the row."""
        before = read if read and row["after"] >= 0 else Transcript()
        try:
            new = read_messages(row["transcript"])
        except msgspec.ValidationError as error:
            return _unreadable(claim, error)
        since = claim.compacted.until_seq if claim.compacted else 0
        transcript = before.extended(new, len(row["transcript"]), claim.seq - 1, row["last_at"], since)
        self.transcripts.keep(claim.run_id, transcript)
        return msgspec.structs.replace(claim, transcript=transcript.messages)

    def renew(self, step_ids: Sequence[str]) -> set[str]:
        """Renew the leases of these steps, and return the ids of those that this worker has lost."""
        held = {"step_ids": list(step_ids), "worker": self.worker, "lease_s": self._numbers.lease_s}
        return {row["id"] for row in self._pool.run(_SQL["renew"], held)}

    def renewal(self) -> tuple[str, str, dict[str, Any]]:
        """Return the address, the statement and the parameters that renew all leases of this worker, for `LeaseGuard`."""
        params = {"worker": self.worker, "lease_s": self._numbers.lease_s}
        return self._pool.url, _SQL["renew_all"], params

    def is_held(self, step_id: str) -> bool:
        """Return whether this worker still holds a step."""
        return bool(self._pool.run(_SQL["is_held"], {"step_id": step_id, "worker": self.worker}))

    def retry(self, step_id: str, attempt: int, delay_s: float, error: dict[str, Any]) -> None:
        """Release a step for another attempt in `delay_s`; the keeper sends it then."""
        self._pool.run(
            _SQL["retry"],
            {"step_id": step_id, "attempt": attempt, "delay_s": delay_s, "error": jsonb(error)},
        )

    def return_step(self, step_id: str, error: dict[str, Any], attempt: int | None = None) -> int | None:
        """Return a step that this worker can't begin to its queue; None if it is not this worker's to return, else how often that happened.

        `attempt` is that of the claim, where the worker does not know the agent. Without it, `error` was raised before the step
        began, and the step is given up after many returns.
        """
        asked = {"step_id": step_id, "worker": self.worker, "attempt": attempt, "error": jsonb(error)}
        numbers = {
            "lease_s": self._numbers.lease_s,
            "first_s": _RETURN.first_delay_s,
            "max_s": _RETURN.max_delay_s,
        }
        rows = self._pool.run(
            _SQL["return_step"], asked | numbers | {"max_returns": _RETURN.attempts, "soon_s": _SOON_S}
        )
        return rows[0]["returns"] if rows else None

    def end_lease(self, step_id: str) -> None:
        """End the lease of a step whose process in this worker has died, so that the keeper need not wait for it."""
        self._pool.run(_SQL["end_lease"], {"step_id": step_id, "worker": self.worker})

    def set_deadline(self, run_id: str, deadline_s: float) -> datetime | None:
        """Set the agent's deadline, counted from the time when the run was due. None when its submit set a deadline."""
        rows = self._pool.run(_SQL["set_deadline"], {"run_id": run_id, "deadline_s": deadline_s})
        return rows[0]["deadline_at"] if rows else None

    def continue_with(self, step_id: str, known: Sequence[str]) -> str:
        """Return the agent that takes the first turn of a run in a session, and name the step after it: the agent that took the last turn of
        the run before it, if that is one of `known`; else the first of these.
        """
        (row,) = self._pool.run(_SQL["continue_with"], {"step_id": step_id, "known": list(known)})
        name: str = row["name"]
        return name

    def definition(self, sha256: str) -> dict[str, Any]:
        """Return an agent's definition by its hash."""
        content: dict[str, Any] = self._pool.run(_SQL["definition"], {"sha256": sha256})[0]["content"]
        return content


def _claimed(text: str) -> ClaimedStep:
    """Return a claim. One whose call can't be read is a claim too: only its holder can end its step."""
    try:
        claim = _CLAIM.decode(text)
        if claim.kind is StepKind.TOOL:
            read_call(claim.call)
        return claim
    except msgspec.ValidationError as error:
        kept = {name: value for name, value in msgspec.json.decode(text).items() if name not in _FREE}
        return _unreadable(convert(kept, ClaimedStep), error)


def _unreadable(claim: ClaimedStep, error: Exception) -> ClaimedStep:
    why = f"what is stored of run {claim.run_id} can't be read ({error})"
    return msgspec.structs.replace(claim, unreadable=why)
