"""The gate of a worker that has a signing key: no message without a right signature, and none twice."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import redis

from agno_workers.broker.names import STEP_TASKS
from agno_workers.broker.quarantine import Quarantine
from agno_workers.broker.signing import NONCE, SIGNED_AT, Refusal, Sent, Signer

log = logging.getLogger(__name__)

_STEP_NONCE_S = 600
"""A step that comes twice does no harm (its second claim gets no row); its nonce is kept to see that it happens."""
_NONCE_S = 24 * 3600
_CLOCKS_APART_S = 300


def nonce_key(nonce: str) -> str:
    """Where Redis remembers that a message was taken."""
    return f"agno:nonce:{nonce}"


@dataclass(frozen=True)
class MessageVerifier:
    """What a message has to pass before it is work."""

    quarantine: Quarantine
    client: redis.Redis
    signer: Signer | None
    """None: no signature is asked for."""
    max_age_s: int = 0
    """A message that was signed longer ago is refused, unless it carries a step; 0: none is."""

    def refusal(self, message: Any) -> Refusal | None:
        if self.signer is None:
            return None
        return self.signer.refusal(_sent(message)) or self._repeated(message.headers)

    def _repeated(self, headers: dict[str, Any]) -> Refusal | None:
        """Whether this very message was taken before. Its signature is right, so its headers can be relied on."""
        is_step = headers["task"] in STEP_TASKS
        age_s = time.time() - headers[SIGNED_AT] / 1000
        if self.max_age_s and age_s > self.max_age_s and not is_step:
            return Refusal(
                "replayed", f"it was signed {age_s:.0f} s ago, and signing_max_age_s is {self.max_age_s}."
            )
        kept_s = self.max_age_s + _CLOCKS_APART_S if self.max_age_s else _NONCE_S
        try:
            fresh = self.client.set(
                nonce_key(headers[NONCE]), 1, nx=True, ex=_STEP_NONCE_S if is_step else kept_s
            )
        except redis.RedisError as error:  # it is out of the queue: to refuse it would be to lose it
            log.warning("task %s can't be looked up as a replay and is carried: %s", headers["id"], error)
            return None
        return None if fresh else Refusal("replayed", "the very same message was taken before.")


def _sent(message: Any) -> Sent:
    return Sent(
        message.headers,
        message.body or b"",
        message.content_type,
        message.content_encoding,
        message.delivery_info.get("routing_key"),
    )
