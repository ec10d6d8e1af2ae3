"""Celery's remote control, whose `revoke` and `terminate` cancel runs in Postgres before they ask the workers about other tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.control import Control
from kombu.utils.functional import maybe_list

_CANCELS = frozenset({"revoke", "terminate"})


class CancellingControl(Control):
    """`control_cls` of our app and of attached ones. Raises Unavailable when Postgres does not answer."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **options: Any) -> Any:
        asked = [] if command not in _CANCELS else maybe_list((arguments or {}).get("task_id")) or []
        if not asked:
            return super().broadcast(command, arguments, *args, **options)
        others = sorted(self.app.dispatch().control.revoke(asked))
        replies = []
        if cancelled := len(set(asked) - set(others)):
            replies = [{"agno-workers": {"ok": f"{cancelled} run(s) are cancelled"}}]
            if callback := options.get("callback"):
                callback(replies[0])
        if others:
            replies += super().broadcast(command, {**arguments, "task_id": others}, *args, **options) or []
        return replies if options.get("reply") else None


def cancelling(handle: Callable[..., Any], cancel: Callable[[list[str]], set[str]]) -> Callable[..., Any]:
    """Return a worker's handler of `revoke` or `terminate` that cancels runs first: the sender may know only the broker."""

    def cancel_and_handle(state: Any, *, task_id: Any, **options: Any) -> Any:
        return handle(state, task_id=sorted(cancel(maybe_list(task_id) or [])), **options)

    return cancel_and_handle
