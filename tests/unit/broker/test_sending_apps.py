"""Celery apps that send runs: what workers can't read or execute is refused in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.control import Control
from celery.exceptions import ImproperlyConfigured

from agno_workers import attach, wiring
from agno_workers.broker.app import create
from agno_workers.broker.backend import PostgresBackend
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
    return create(
        BROKER, queues={"agents": "a", "tools": "t", "knowledge": "k", "background": "b"}, broker_timeout_s=1
    )


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


@pytest.fixture
def settings_of_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AGNO_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setenv("AGNO_BROKER_URL", BROKER)
    wiring.forget()
    yield
    wiring.forget()


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


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"broker_url": "redis://u:secret@elsewhere:6379/0"}, "redis://elsewhere:6379/0 .*redis://localhost:1/0"),
        ({"broker_url": "redis://127.0.0.1:1/7"}, "redis://localhost:1/7 .*redis://localhost:1/0"),
        ({"broker_url": "amqp://u:secret@127.0.0.1:1//"}, "amqp://127.0.0.1:1"),
        ({"broker_url": "sentinel://:secret@a:1;sentinel://:secret@b:2"}, "sentinel://a:1/ and sentinel://b:2/"),
        ({"broker_url": ["redis://127.0.0.1:1/0", "redis://:secret@b:2/0"]}, "redis://b:2/0"),
        ({"broker_url": "redis+socket://:secret@/tmp/redis.sock"}, "redis.socket:///tmp/redis.sock database 0"),
        ({"broker_write_url": "redis://:secret@elsewhere/0"}, "elsewhere:6379/0 .broker_write_url"),
        ({"broker_read_url": "redis://:secret@elsewhere/0"}, "elsewhere:6379/0 .broker_read_url"),
        ({"broker_transport_options": {"global_keyprefix": "own:"}}, "'own:' .*AGNO_BROKER__KEY_PREFIX"),
    ],
)  # fmt: skip
def test_app_with_another_broker_is_refused(conf: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as refused:
        attached(**conf)
    assert "secret" not in str(refused.value)
    assert "'shop'" in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://localhost:1", "redis://u:p@127.0.0.1:1/0", "rediss://[::1]:1//?x=1"]
)
def test_same_broker_may_be_written_otherwise(url: str) -> None:
    assert attached(broker_url=url).backend


def test_broker_of_the_environment_is_refused_by_our_own_app(
    settings_of_env: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:secret@elsewhere:6379/0")
    with pytest.raises(SettingsError, match="CELERY_BROKER_URL"):
        wiring.celery_app()


def test_app_without_a_broker_gets_ours() -> None:
    assert attach(Celery("shop", set_as_current=False), SETTINGS).conf.broker_url == BROKER


Prepare = Callable[[Celery], object]
OTHER_BACKENDS: dict[str, tuple[dict[str, Any], Prepare, Prepare]] = {
    "a setting": ({"backend": "redis://127.0.0.1:1/1"}, lambda _: None, lambda _: None),
    "a class": ({"backend": "disabled"}, lambda app: setattr(app, "backend_cls", "cache+memory://"), lambda _: None),
    "used before": ({"backend": "redis://127.0.0.1:1/1"}, lambda app: app.backend, lambda _: None),
    "used before by its threads": ({"backend": "rpc://"}, lambda app: app.backend, lambda _: None),
    "finalized before": ({"backend": "rpc://"}, lambda app: app.finalize(), lambda _: None),
    "a setting made later": ({}, lambda _: None, lambda app: app.conf.update(result_backend="rpc://")),
    "a configuration loaded later": (
        {}, lambda _: None, lambda app: app.config_from_object({"result_backend": "rpc://", "broker_url": BROKER}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", OTHER_BACKENDS)
def test_app_that_had_another_result_backend_gets_ours(how: str) -> None:
    options, before, after = OTHER_BACKENDS[how]
    app = Celery("shop", broker=BROKER, set_as_current=False, **options)
    before(app)
    attach(app, SETTINGS)
    after(app)
    assert isinstance(app.backend, PostgresBackend)
    assert isinstance(app.AsyncResult("x").backend, PostgresBackend)
    assert app.amqp.router.route({}, "agno.run")["queue"].name == "agents"


def test_configuration_that_is_loaded_later_is_checked() -> None:
    app = attach(Celery("shop", set_as_current=False), SETTINGS)
    app.config_from_object({"broker_url": "redis://elsewhere/0"})
    with pytest.raises(SettingsError, match="elsewhere"):
        app.send_task("agno.run")


def test_result_backend_of_the_environment_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "rpc://")
    for app in (attached(), ours()):
        assert isinstance(app.backend, PostgresBackend)


def test_each_attached_app_sends_its_own_runs() -> None:
    apps = [attached(), attached(), ours()]
    assert [app.tasks["agno.run"].app for app in apps] == apps


ROUTES: list[tuple[Any, str]] = [
    (None, "agents"),
    ({"shop.*": {"queue": "shop"}}, "agents"),
    ({"agno.*": {"queue": "vip"}}, "vip"),
    ([{"agno.run": "vip"}], "vip"),
    (lambda name, *_, **__: {"queue": "vip"} if name == "agno.run" else None, "vip"),
]


@pytest.mark.parametrize(("routes", "queue"), ROUTES)
def test_routes_of_an_attached_app_come_first(routes: Any, queue: str) -> None:
    app = attach(attached(task_routes=routes), SETTINGS)
    assert app.amqp.router.route({}, "agno.run")["queue"].name == queue
    assert app.amqp.router.route({}, "other")["queue"].name == "celery"


def test_our_own_app_is_attached_already() -> None:
    app = ours()
    control = app.control
    assert attach(app, SETTINGS) is app
    assert app.control is control


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
