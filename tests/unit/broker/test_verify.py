"""The age of a signed message, and how long its nonce is kept."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import redis
from kombu.message import Message

from agno_workers.broker.quarantine import Quarantine
from agno_workers.broker.signing import SignedParts, Signer
from agno_workers.broker.verify import MessageVerifier

MAX_AGE_S = 3600


class Nonces:
    """A Redis that stores nonces, and for how long."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def set(self, name: str, _: int, *, nx: bool, ex: int) -> bool | None:
        assert nx
        return None if name in self.kept else self.kept.setdefault(name, ex) == ex


def signed(task: str, at: float, monkeypatch: pytest.MonkeyPatch) -> Message:
    """Return a message from a sender whose clock shows `at`."""
    signer = Signer("the key of these tests")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: int(at * 1e9))
        headers = signer.headers(
            SignedParts({"task": task, "id": "1"}, b"[]", "application/json", "utf-8", "q")
        )
    return Message(
        b"[]", headers=headers, content_type="application/json", content_encoding="utf-8", properties={"delivery_info": {"routing_key": "q"}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "max_age_s", "age_s", "told"),
    [
        ("shop.pay", MAX_AGE_S, 0, None),
        ("shop.pay", MAX_AGE_S, MAX_AGE_S - 60, None),
        ("shop.pay", MAX_AGE_S, MAX_AGE_S + 60, "signed 3660 s ago"),
        ("shop.pay", MAX_AGE_S, -240, None),
        ("shop.pay", MAX_AGE_S, -360, "signed 360 s in the future"),
        ("shop.pay", MAX_AGE_S, -86400, "signed 86400 s in the future"),
        ("agno.run", MAX_AGE_S, -86400, "signed 86400 s in the future"),
        ("agno.turn", MAX_AGE_S, -86400, None),
        ("agno.turn", MAX_AGE_S, 86400, None),
        ("shop.pay", 0, -86400, None),
        ("shop.pay", 0, 86400, None),
    ],
)
def test_message_is_refused_for_its_age_with_a_word_about_clocks(
    task: str, max_age_s: int, age_s: float, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    nonces, signer = Nonces(), Signer("the key of these tests")
    verifier = MessageVerifier(cast(Quarantine, None), cast(redis.Redis, nonces), signer, max_age_s)
    message: Any = signed(task, now - age_s, monkeypatch)
    refusal = verifier.refusal(message)
    if told is None:
        assert refusal is None
        assert len(nonces.kept) == 1
        again = verifier.refusal(message)
        assert again is not None
        assert again.detail == "the same message was accepted before."
    else:
        assert refusal is not None
        assert refusal.reason == "replayed"
        assert told in refusal.detail
        assert "clock" in refusal.detail
        assert not nonces.kept


@pytest.mark.parametrize("sender_s", [-299, 0, 299])
@pytest.mark.parametrize("worker_s", [-299, 0, 299])
def test_nonce_is_kept_until_the_message_is_too_old_for_every_worker(
    sender_s: float, worker_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks of the sender and of a second worker differ from that of the first, which accepts the message."""
    now = 1_800_000_000.0
    nonces, signer = Nonces(), Signer("the key of these tests")
    verifier = MessageVerifier(cast(Quarantine, None), cast(redis.Redis, nonces), signer, MAX_AGE_S)
    message: Any = signed("shop.pay", now + sender_s, monkeypatch)
    monkeypatch.setattr(time, "time", lambda: now)
    assert verifier.refusal(message) is None
    (kept_s,) = nonces.kept.values()
    nonces.kept.clear()  # it expired
    monkeypatch.setattr(time, "time", lambda: now + kept_s + 1 + worker_s)
    refusal = verifier.refusal(message)
    assert refusal is not None
    assert "signed" in refusal.detail
