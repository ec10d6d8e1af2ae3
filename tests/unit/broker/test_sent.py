"""Sent messages are deleted from the outbox later, in a thread, and many at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from agno_workers.broker.sent import SentMessages
from agno_workers.errors import Unavailable
from tests.conftest import ROOT

WAIT_S = 30


class SlowOutbox:
    """An outbox whose statements wait for `go`."""

    publish_after_s = 0.0

    def __init__(self, error: Exception | None = None) -> None:
        self.deleted: list[list[int]] = []
        self.asked, self.go = threading.Event(), threading.Event()
        self._error = error

    def published(self, outbox_ids: Sequence[int]) -> None:
        self.asked.set()
        assert self.go.wait(WAIT_S)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        self.deleted.append(list(outbox_ids))


def sent_to(outbox: Any) -> SentMessages:
    sent = SentMessages(outbox)
    sent.add([1])
    assert outbox.asked.wait(WAIT_S)
    return sent


def test_messages_that_are_sent_during_a_statement_are_deleted_by_the_next_one() -> None:
    outbox = SlowOutbox()
    sent = sent_to(outbox)
    for number in range(2, 5):
        sent.add([number])
    sent.add([])
    outbox.go.set()
    sent.close()
    assert outbox.deleted == [[1], [2, 3, 4]]


@pytest.mark.parametrize("error", [Unavailable("Postgres is down"), ValueError("a bug")])
def test_failed_statement_is_logged_and_the_next_one_follows(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = SlowOutbox(error)
    sent = sent_to(outbox)
    sent.add([2])
    outbox.go.set()
    sent.close()
    assert outbox.deleted == [[2]]
    assert "1 sent message(s) remain in the outbox" in caplog.text


def test_messages_that_are_sent_after_the_end_are_deleted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may send many more after the main thread has ended."""
    outbox = SlowOutbox()
    outbox.go.set()
    sent = sent_to(outbox)
    sent.close()
    monkeypatch.delattr("time.sleep")
    for number in (2, 3):
        sent.add([number])
    assert outbox.deleted == [[1], [2], [3]]


def test_forked_process_deletes_its_own_messages_only() -> None:
    outbox = SlowOutbox()
    sent = sent_to(outbox)
    sent.add([2])
    child = os.fork()
    if not child:
        outbox.go = threading.Event()
        outbox.go.set()
        sent.add([3])
        sent.close()
        os._exit(outbox.deleted != [[3]])
    outbox.go.set()
    sent.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert outbox.deleted == [[1], [2]]


_PROGRAM = """
import atexit
from agno_workers.broker.sent import SentMessages
class Outbox:
    publish_after_s = 10.0
    published = staticmethod(print)
sent = SentMessages(Outbox())
atexit.register(sent.add, [3])
sent.add([1])
sent.add([2])
"""


def test_process_that_exits_deletes_its_last_messages() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "[1, 2]\n[3]\n"
