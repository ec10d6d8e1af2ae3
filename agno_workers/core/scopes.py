"""The owners of what runs share: state, memories, and values of the context."""

from __future__ import annotations


def owner_in(
    scope: str, *, session_id: str | None, user_id: str | None, agent: str, run_id: str = ""
) -> str | None:
    """Return the owner that a run has in a scope; None where it has none, such as a run without a user. An empty session id counts as none."""
    owners = {
        "session": session_id or None,
        "user": user_id or None,
        "agent": agent,
        "team": agent,
        "run": run_id,
        "global": "",
    }
    return owners[scope]
