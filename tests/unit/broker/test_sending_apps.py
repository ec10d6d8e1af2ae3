"""Celery apps that send runs: what workers can't read or execute is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.control import Control
from celery.exceptions import ImproperlyConfigured

from agno_workers import attach
from agno_workers.broker.app import create
from agno_workers.broker.control import CancellingControl
from agno_workers.errors import InvalidInput, SettingsError
from agno_workers.settings import Settings

BROKER = "redis://127.0.0.1:1/0"
SETTINGS = Settings(database={"url": "postgresql://127.0.0.1:1/none"}, broker={"url": BROKER})


def attached(**conf: Any) -> Celery:
    app = Celery("shop", broker=BROKER, set_as_current=False)
    app.conf.update(conf)
    return attach(app, SETTINGS)


def ours() -> Celery:
    return create(BROKER, queues={"agents": "a", "tools": "t", "knowledge": "k"}, broker_timeout_s=1)


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"task_serializer": "pickle"}, "task_serializer is 'pickle'"),
        ({"task_serializer": "msgpack"}, "task_serializer is 'msgpack'"),
        ({"result_serializer": "pickle"}, "result_serializer is 'pickle'"),
        ({"accept_content": ["pickle"]}, "accept_content is"),
        ({"result_accept_content": ["yaml"]}, "result_accept_content is"),
        ({"task_protocol": 1}, "task_protocol is 1"),
        ({"task_protocol": 1, "task_serializer": "pickle"}, "'pickle' and task_protocol is 1"),
    ],
)
def test_app_that_workers_cannot_read_is_refused(conf: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        attached(**conf)
    late = attached()
    late.conf.update(conf)
    with pytest.raises(ImproperlyConfigured, match=told):
        late.backend.encode(1)


def test_app_that_accepts_more_than_json_is_attached() -> None:
    assert attached(accept_content=["json", "pickle"], result_accept_content=["application/json"]).backend


Send = Callable[[Any, Celery], object]
IN_THIS_PROCESS: dict[str, Send] = {
    "delay": lambda run, _: run.delay(),
    "apply_async": lambda run, _: run.apply_async(countdown=1),
    "group": lambda run, app: group([run, run], app=app).delay(),
    "chain": lambda run, _: chain(run, run).delay(),
    "chord": lambda run, app: chord([run, run], run, app=app).delay(),
}


@pytest.mark.parametrize("make", [ours, attached])
@pytest.mark.parametrize("way", [*IN_THIS_PROCESS, "apply", "call"])
def test_run_is_not_executed_in_the_process_that_sends_it(make: Callable[[], Celery], way: str) -> None:
    app = make()
    app.conf.task_always_eager = way in IN_THIS_PROCESS
    run = app.signature("agno.run", args=["hi"], kwargs={"agent": "echo"})
    ways: dict[str, Send] = {
        **IN_THIS_PROCESS,
        "apply": lambda run, _: run.apply(),
        "call": lambda run, _: run(),
    }
    with pytest.raises(InvalidInput, match="task_always_eager"):
        ways[way](run, app)


@pytest.mark.parametrize("make", [ours, attached])
def test_serializer_of_one_message_is_refused(make: Callable[[], Celery]) -> None:
    with pytest.raises(InvalidInput, match="'pickle'"):
        make().signature("agno.run", args=["hi"], kwargs={"agent": "echo"}).apply_async(serializer="pickle")


def test_control_class_of_an_attached_app_is_kept() -> None:
    class Own(Control):  # type: ignore[misc]  # celery ships no types
        def own(self) -> str:
            return "own"

    app = Celery("shop", broker=BROKER, set_as_current=False, control=Own)
    _ = app.control  # Celery caches it
    control = attach(app, SETTINGS).control
    assert isinstance(control, CancellingControl)
    assert control.own() == "own"


def test_app_can_be_attached_again() -> None:
    app = attached()
    control = app.control
    assert isinstance(control, CancellingControl)
    assert type(attach(app, SETTINGS).control) is type(control)


def test_app_that_finalizes_itself_can_be_attached() -> None:
    app = Celery("shop", broker=BROKER, set_as_current=False, autofinalize=False)
    assert attach(app, SETTINGS) is app
    app.finalize()
    assert "agno.run" in app.tasks


def test_key_as_an_option_of_the_message_is_refused() -> None:
    app = ours()
    run = app.signature("agno.run", args=["hi"], kwargs={"agent": "echo"})
    for canvas in (run, group([run, run], app=app), chord([run, run], run, app=app)):
        with pytest.raises(InvalidInput, match="each run of it"):
            canvas.apply_async(idempotency_key="k")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"countdwn": 3}, "unknown option of apply_async 'countdwn'. Did you mean 'countdown'?"),
        ({"qeue": "slow"}, "Did you mean 'queue'?"),
        ({"countdown": "soon"}, "countdown must be seconds, got 'soon'"),
        ({"eta": "soon"}, "eta must be a time in ISO 8601, got 'soon'"),
        ({"priority": "high"}, "priority must be a whole number"),
        ({"queue": 5}, "queue must be text"),
        ({"expires": "soon"}, "expires can't be set for a run"),
        ({"time_limit": 5}, "time_limit can't be set for a run"),
        ({"routing_key": "slow"}, "routing_key can't be set for a run: name its queue"),
        ({"user_id": "u"}, "user_id is an argument of a run"),
    ],
    ids=str,
)
def test_option_that_a_run_does_not_have_is_refused(options: dict[str, Any], told: str) -> None:
    app = ours()
    app.dispatch = lambda: None  # nothing is stored
    with pytest.raises(InvalidInput) as refused:
        app.signature("agno.run", args=["hi"], kwargs={"agent": "echo"}).apply_async(**options)
    assert told in str(refused.value)
    with pytest.raises(InvalidInput):
        app.send_task("agno.run", ["hi"], {"agent": "echo"}, **options)
