"""A session: the runs of one conversation, and its life.

    sessions.create() ──▶ created ──first message──▶ active ◀──pause, resume──▶ paused      no run of it begins
                             │                         │                          │
                             └─────────────────────────┴──── end ─────────────────┴──▶ ended       no message is accepted
                             └─────────────────────────┴──── idle_timeout_s ──────┴──▶ timed_out   as `ended`

A first message without `create` makes an active session. At most one run of a session is `live`; the caller of the next message chooses
what happens then, see IfBusy. The other runs, by `run.session_status`:

    scheduled ──its time──▶ waiting ──the live run ends──▶ live ──▶ ended      `parallel` runs begin at once, beside the live one
                                                             └──interrupt, rollback──▶ replaced
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

IfBusy = Literal["queue", "reject", "interrupt", "rollback", "steer", "parallel"]
"""The fate of a message to a session with a live run. `queue`: its run begins after all earlier ones. `reject`: SessionBusy is raised
and nothing is stored. `interrupt`: the live run is cancelled, and what it said stays in the history. `rollback`: it is cancelled and
leaves no trace in history and state. `steer`: the message joins the live run at its next turn, or becomes the next run. `parallel`: its
run begins at once, beside the live one."""


class SessionStatus(StrEnum):
    """The status of a session."""

    CREATED = "created"
    """It has no message yet."""
    ACTIVE = "active"
    """It takes messages, and runs them."""
    PAUSED = "paused"
    """It takes messages; their runs begin when it is resumed."""
    ENDED = "ended"
    """It was ended; it takes no message."""
    TIMED_OUT = "timed_out"
    """It was idle for too long; it takes no message."""

    @property
    def is_open(self) -> bool:
        """True while it takes messages."""
        return self in (SessionStatus.CREATED, SessionStatus.ACTIVE, SessionStatus.PAUSED)
