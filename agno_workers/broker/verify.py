"""Verification in a worker that has a signing key: each message needs a valid signature and is accepted once."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import redis

from agno_workers.broker.names import STEP_TASKS
from agno_workers.broker.quarantine import Quarantine
from agno_workers.broker.signing import NONCE, SIGNED_AT, Refusal, SignedParts, Signer

log = logging.getLogger(__name__)

_STEP_NONCE_S = 600
"""A step's replay does no harm (its second claim gets no row); its nonce is kept to report the replay."""
_NONCE_S = 24 * 3600
_MAX_CLOCK_SKEW_S = 300
"""Clocks may differ by this. With a maximum age, a message from further in the future is rejected: it would outlive its nonce."""


def nonce_key(nonce: str) -> str:
    """Return the Redis key that marks a message as accepted."""
    return f"agno:nonce:{nonce}"


@dataclass(frozen=True)
class MessageVerifier:
    """Accepts or rejects messages before they are executed."""

    quarantine: Quarantine
    client: redis.Redis
    signer: Signer | None
    """None: every message is accepted."""
    max_age_s: int = 0
    """An older message is rejected, unless it is a step; 0: no limit."""
    key_prefix: str = ""

    def refusal(self, message: Any) -> Refusal | None:
        if self.signer is None:
            return None
        return self.signer.refusal(_signed_parts(message)) or self._replay(message.headers)

    def _replay(self, headers: dict[str, Any]) -> Refusal | None:
        """Return why a message counts as replayed, or None. Its headers are valid: the signature was checked."""
        is_step = headers["task"] in STEP_TASKS
        age_s = time.time() - headers[SIGNED_AT] / 1000
        if self.max_age_s and not is_step and not -_MAX_CLOCK_SKEW_S <= age_s <= self.max_age_s:
            return Refusal("replayed", self._wrong_age(age_s))
        nonce_s = self.max_age_s + 2 * _MAX_CLOCK_SKEW_S if self.max_age_s else _NONCE_S
        try:
            is_new = self.client.set(
                f"{self.key_prefix}{nonce_key(headers[NONCE])}",
                1,
                nx=True,
                ex=_STEP_NONCE_S if is_step else nonce_s,
            )
        except redis.RedisError as error:  # it has left its queue: rejecting it would lose it
            log.warning("task %s is executed without a check for a replay: %s", headers["id"], error)
            return None
        return None if is_new else Refusal("replayed", "the same message was accepted before.")

    def _wrong_age(self, age_s: float) -> str:
        if age_s < 0:
            return (
                f"the message was signed {-age_s:.0f} s in the future: the sender's clock or this worker's is wrong. Synchronize "
                "them with NTP, and send it again."
            )
        return (
            f"the message was signed {age_s:.0f} s ago, and signing.max_age_s is {self.max_age_s}: it waited too long or was replayed, "
            "or the sender's clock or this worker's is wrong (`agno-workers doctor` compares clocks)."
        )


def _signed_parts(message: Any) -> SignedParts:
    return SignedParts(
        message.headers,
        message.body or b"",
        message.content_type,
        message.content_encoding,
        (message.properties.get("delivery_info") or {}).get("routing_key"),
    )
