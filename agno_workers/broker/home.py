"""Queues of the parts of a canvas: each plain task goes where its own app would send it.

Our workers continue a canvas behind a run, and know neither the routes nor the tasks of the app that it came from. So the process
that submits the canvas writes the queue of each plain task into its signature. Queues that are named already are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.utils.functional import maybe_list
from kombu.utils.url import url_to_parts

from agno_workers.broker.names import RUN

_ROUTES = ("queue", "exchange", "routing_key")
_MAPS = ("celery.map", "celery.starmap")
_LOOPBACK = ("localhost", "127.0.0.1", "::1", None, "")


def routed(app: Celery, signature: Any) -> dict[str, Any]:
    """Return a copy of a signature of a canvas that `app` sends, in which each plain task names its queue."""
    copy = dict(signature)
    kwargs, options = dict(copy.get("kwargs") or {}), dict(copy.get("options") or {})
    for name in ("link", "link_error", "chain"):
        if options.get(name):
            options[name] = [routed(app, each) for each in maybe_list(options[name])]
    match copy.get("subtask_type"):
        case "chain" | "group":
            kwargs["tasks"] = [routed(app, each) for each in kwargs["tasks"]]
        case "chord":
            header = kwargs["header"]
            is_one = isinstance(header, dict)
            kwargs["header"] = routed(app, header) if is_one else [routed(app, each) for each in header]
            kwargs["body"] = routed(app, kwargs["body"])
        case _ if copy["task"] in _MAPS:  # each worker has these: they go where their own task is known
            options = _route(app, kwargs["task"]) | options
        case None if copy["task"] != RUN:
            options = _route(app, signature) | options
    return {**copy, "kwargs": kwargs, "options": options}


def _route(app: Celery, signature: Any) -> dict[str, Any]:
    """Return the options that lead a plain task home; none where they are given, or nobody here knows more than its worker."""
    name, options = signature["task"], signature.get("options") or {}
    if any(options.get(each) for each in _ROUTES):
        return {}
    task = getattr(
        signature, "_type", None
    )  # a task object knows its app; a name belongs to the app that sends it
    home = app if task is None else task.app
    if task is None and (home.finalized or home.autofinalize):
        task = home.tasks.get(name)
    if task is None and getattr(home, "stores_canvases", False):
        return {}  # workers of our own app know their tasks
    own = {each: getattr(task, each, None) for each in (*_ROUTES, "priority")}
    route = home.amqp.router.route(
        {each: value for each, value in own.items() if value is not None},
        name,
        signature.get("args"),
        signature.get("kwargs"),
        task,
    )
    named = {**route, "queue": getattr(route.get("queue"), "name", None)}
    return {each: named[each] for each in (*_ROUTES, "priority") if named.get(each) is not None}


def lead_home(app: Celery, agents_queue: str, before_send: Callable[[], None]) -> None:
    """Let an attached app name the queues of what follows a task that it sends, and send runs without a queue to the agents.

    `before_send` is called before each message is made.
    """
    own = app.conf.task_routes
    routes = list(own) if isinstance(own, list | tuple) else [own] if own else []
    default = {RUN: {"queue": Queue(agents_queue, Exchange(agents_queue), routing_key=agents_queue)}}
    if default not in routes:
        app.conf.task_routes = [*routes, default]
    protocols, plain = app.amqp.task_protocols, app.amqp.as_task_v2

    def create(*args: Any, **options: Any) -> Any:
        before_send()
        message = plain(*args, **options)
        positional, keywords, canvas = message.body
        return message._replace(body=(positional, keywords, _canvas(app, canvas)))

    protocols[2] = create


def _canvas(app: Celery, canvas: dict[str, Any]) -> dict[str, Any]:
    def each(tasks: Iterable[Any] | None) -> list[dict[str, Any]] | None:
        return tasks and [routed(app, task) for task in tasks]  # type: ignore[return-value]  # None and [] are kept

    return {
        "callbacks": each(canvas["callbacks"]),
        "errbacks": each(canvas["errbacks"]),
        "chain": each(canvas["chain"]),
        "chord": canvas["chord"] and routed(app, canvas["chord"]),
    }


def broker_problem(app: Celery, broker_url: str, key_prefix: str) -> str | None:
    """Return why our workers and this app don't meet in one broker, or None. Passwords are left out."""
    ours = _place(broker_url)
    for name in ("broker_read_url", "broker_write_url"):
        found = getattr(app.conf, name)
        if found and (theirs := _place(found)) != ours:
            return (
                f"the Celery app {app.main or 'without a name'!r} uses the broker {theirs} ({name}), but the workers of agno-workers read "
                f"{ours} (AGNO_BROKER_URL): its messages would lie unread. Give both the same address; CELERY_BROKER_URL in the "
                "environment wins over the app's own setting."
            )
    used = (app.conf.broker_transport_options or {}).get("global_keyprefix", key_prefix)
    if used != key_prefix:
        return (
            f"the Celery app {app.main or 'without a name'!r} begins its keys in Redis with {used!r} (broker_transport_options), but the "
            f"workers of agno-workers with {key_prefix!r} (AGNO_BROKER__KEY_PREFIX): its messages would lie unread. Leave the former out."
        )
    return None


def _place(url: Any) -> str:
    """Return an address of a broker without its user, its password and its options, so that two spellings of one are equal."""
    try:
        return _parsed(url if isinstance(url, str) else ";".join(url))
    except (ValueError, TypeError):
        return "that can't be read"


@lru_cache(maxsize=32)
def _parsed(url: str) -> str:
    """See `_place`, which is called for each message of an attached app. Raises ValueError."""
    first, *others = url.split(";")
    scheme, host, port, _, _, path, query = url_to_parts(first)
    if "socket" in scheme or scheme == "unix":
        database = query.get("virtual_host") or query.get("db") or "0"
        place = f"redis+socket://{host or ''}/{path or ''} database {database}"
    elif scheme in ("redis", "rediss"):
        place = f"redis://{'localhost' if host in _LOOPBACK else host}:{port or 6379}/{(path or '').strip('/') or 0}"
    else:
        place = f"{scheme}://{host or 'localhost'}{f':{port}' if port else ''}/{path or ''}"
    return " and ".join([place, *(_place(each) for each in others)])
