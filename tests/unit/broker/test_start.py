"""Whatever is raised while a worker starts, it does not start: one sentence, exit status 2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from celery.worker import WorkController

from agno_workers.broker.start import start_check
from agno_workers.errors import SettingsError, Unavailable


@pytest.fixture
def start() -> Iterator[Callable[..., None]]:
    """Start a worker whose check raises this error, or returns these problems."""
    celery = Celery("checked", broker="memory://", set_as_current=False)

    def run(outcome: BaseException | list[str], **options: object) -> None:
        def problems(_: object) -> list[str]:
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        celery.steps["worker"] = {start_check(problems)}
        WorkController(
            app=celery, pool_cls="solo", **options
        )  # as celery.contrib.testing does, without a signal

    yield run
    celery.close()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (["Redis may evict queues.", "The schema is old."], "Redis may evict queues. The schema is old."),
        (SettingsError("setting 'a' is wrong."), "setting 'a' is wrong."),
        (Unavailable("Postgres can't be reached."), "Postgres can't be reached."),
        (TypeError("issubclass() arg 1 must be a class"), "TypeError: issubclass() arg 1 must be a class"),
        (ImportError("no module"), "ImportError: no module"),
        (KeyError("agent"), "KeyError: 'agent'"),
        (RecursionError(), "RecursionError was raised."),
        (MemoryError(), "MemoryError was raised."),
        (AssertionError("two\nlines"), "AssertionError: two lines"),
        (Unprintable(), "Unprintable was raised."),
        (ExceptionGroup("both", [OSError("a"), OSError("b")]), "ExceptionGroup: both (2 sub-exceptions)"),
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit(), "SystemExit was raised."),
        (GeneratorExit(), "GeneratorExit was raised."),
        (asyncio.CancelledError(), "CancelledError was raised."),
    ],
    ids=repr,
)
def test_worker_exits_with_one_sentence(
    outcome: BaseException | list[str],
    told: str,
    start: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        start(outcome)
    assert ended.value.code == 2
    assert capfd.readouterr().err == f"agno-workers: the worker does not start: {told}\n"


def test_sentence_is_in_the_log_when_there_is_a_log_file(
    start: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL), pytest.raises(SystemExit):
        start(["Redis may evict queues."], logfile=str(tmp_path / "worker.log"))
    assert "Redis may evict queues." in caplog.text


def test_ctrl_c_stops_the_start(start: Callable[..., None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(KeyboardInterrupt())
