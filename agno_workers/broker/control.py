"""Celery's remote control, whose `revoke` and `terminate` cancel runs in Postgres before they ask the workers about other tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.app.control import Control
from kombu.utils.functional import maybe_list
from kombu.utils.imports import symbol_by_name

from agno_workers.errors import Unavailable

log = logging.getLogger(__name__)

_CANCELS = frozenset({"revoke", "terminate"})


class CancellingControl(Control):
    """`control_cls` of our app and of attached ones. Raises Unavailable when Postgres does not answer."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **options: Any) -> Any:
        asked = _ids((arguments or {}).get("task_id")) if command in _CANCELS else []
        if not asked:
            return super().broadcast(command, arguments, *args, **options)
        others = sorted(self.app.dispatch().control.revoke(asked))
        replies = []
        if cancelled := len(set(asked) - set(others)):
            replies = [{"agno-workers": {"ok": f"{cancelled} run(s) are cancelled or had ended"}}]
            if callback := options.get("callback"):
                callback(replies[0])
        if others:
            replies += super().broadcast(command, {**arguments, "task_id": others}, *args, **options) or []
        return replies if options.get("reply") else None


def cancelling_control(control: Any) -> type[CancellingControl]:
    """Return an app's own control class with `CancellingControl` before it, or itself if that is so already."""
    own = symbol_by_name(control)
    return (
        own if issubclass(own, CancellingControl) else type("CancellingControl", (CancellingControl, own), {})
    )


def cancelling(handle: Callable[..., Any], cancel: Callable[[list[str]], set[str]]) -> Callable[..., Any]:
    """Return a worker's handler of `revoke` or `terminate` that cancels runs first: the sender may know only the broker."""

    def cancel_and_handle(state: Any, *, task_id: Any, **options: Any) -> Any:
        others = _ids(task_id)
        try:
            others = sorted(cancel(others))
        except Unavailable as error:
            log.error("runs among the tasks %s are not cancelled: %s", others, error)
        return handle(state, task_id=others, **options)

    return cancel_and_handle


def _ids(given: Any) -> list[str]:
    return [str(task_id) for task_id in maybe_list(given) or ()]
