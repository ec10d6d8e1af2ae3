"""Convert a Celery call of `agno.run` to a RunRequest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agno_workers.core.request import OPTIONS, SUBMIT_OPTIONS, RunRequest, run_request
from agno_workers.core.run import Canvas
from agno_workers.errors import InvalidInput

MakeRequest = Callable[..., RunRequest]
"""A maker of requests for another kind of run; see `wiring.REQUESTS`."""


def request_from_call(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    canvas: Canvas,
    kinds: Mapping[str, MakeRequest],
    **options: Any,
) -> RunRequest:
    """Return the request of a call. `args` are inputs, `kwargs` hold agent, input and RunOptions, `options` are other SubmitOptions.

    An agent `PREFIX:NAME`, such as `knowledge:docs`, asks for a run of another kind; `kinds` maps the prefix to its maker.
    Raises InvalidInput.
    """
    given = dict(kwargs)
    for name in sorted(set(given) & (SUBMIT_OPTIONS - OPTIONS)):
        raise InvalidInput(
            f"{name} is an option of the message, not a keyword argument of the run: pass it to apply_async or send_task."
        )
    agent, last = given.pop("agent", None), given.pop("input", None)
    inputs = [*args, last] if last is not None else list(args)
    prefix, _, name = agent.partition(":") if isinstance(agent, str) else ("", "", "")
    if name and prefix in kinds:
        return kinds[prefix](name, inputs, {**given, **options}, canvas=canvas)
    return run_request(agent, inputs, {**given, **options}, canvas=canvas)
