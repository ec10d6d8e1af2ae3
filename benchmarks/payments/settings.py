"""When a payment is interrupted, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PAY = 'call pay {"order": "order-17", "cents": 4200}'
PACK = 'call pack {"seconds": 4}'
MODEL_TAKES_S = 2.0
KILLED_AFTER_S = 1.0
"""From the line in the ledger to the SIGKILL from outside. `pay` returns at once; the rest of the run takes longer."""


@dataclass(frozen=True)
class Setting:
    """One way to die."""

    name: str
    title: str
    says: str
    """The instructions to the fake model."""
    killed: Literal["worker", "at once", "everything"]
    """`worker`: from outside, a while after the payment. `at once`: by its own hand between the tool's return and any
    record of it. `everything`: worker, submitter, Redis and Postgres from outside, then all are started again."""


SETTINGS = (
    Setting(
        "alone",
        "`pay` alone; worker killed while the model reads the result",
        f"delay={MODEL_TAKES_S}\n{PAY}",
        "worker",
    ),
    Setting(
        "beside",
        "`pay` beside a slow tool; worker killed while the slow one works",
        f"{PAY}\n{PACK}",
        "worker",
    ),
    Setting(
        "unrecorded",
        "worker killed between `pay`'s return and its record",
        f"{PAY}",
        "at once",
    ),
    Setting(
        "everything",
        "`pay` beside a slow tool; worker, submitter, Redis and Postgres killed at once",
        f"{PAY}\n{PACK}",
        "everything",
    ),
)
