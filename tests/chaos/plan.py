"""The plan of faults: a value made from a seed, so that it can be printed before a run and repeated after it.

Three lanes (workers, redis, postgres) run side by side. A lane has one fault at a time and every one ends, so whatever
meets, something can move again.
"""

from __future__ import annotations

import random

import msgspec

WORKERS = ("worker-0", "worker-1")
EVERYBODY = "everybody"
CLIENTS = "clients"

KINDS: dict[str, dict[str, tuple[float, float]]] = {
    "workers": {
        "kill -9 of a worker": (0.0, 0.0),
        "kill -9 of a pool child": (0.0, 0.0),
        "pause of a worker": (3.5, 5.0),  # longer than its lease
        "SIGTERM of a worker": (0.0, 0.0),
    },
    "redis": {
        "FLUSHALL": (0.0, 0.0),
        "redis down": (1.0, 4.0),
        "redis slow": (0.5, 2.0),
        "redis connections reset": (0.2, 1.5),
        "redis silent": (1.0, 6.0),  # longer than the patience with it (broker_timeout_s), or shorter
        "redis answers lost": (0.5, 2.5),
    },
    "postgres": {
        "postgres killed": (0.0, 0.0),
        "postgres slow": (0.5, 2.0),
        "postgres connections reset": (0.2, 1.5),
        "postgres silent": (1.0, 4.5),
        "postgres answers lost": (0.5, 2.5),
    },
}
"""The faults of each lane, with their least and most seconds."""

GAPS_S = {"workers": (2.5, 6.0), "redis": (1.5, 5.0), "postgres": (2.0, 6.0)}
"""The seconds between two faults; a new worker needs some to be ready."""
_FIRST_S = (0.5, 2.0)
DEATHS = ("kill -9 of a worker", "kill -9 of a pool child")


class Fault(msgspec.Struct, frozen=True):
    at_s: float
    """Seconds since the start."""
    lane: str
    kind: str
    seconds: float
    on: str
    """The owner of the connections or the process: `everybody`, `clients`, or one of WORKERS."""

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at_s:6.1f} s  {self.kind}{lasts}, {self.on}"


def plan(seed: int, seconds: float, kinds: dict[str, dict[str, tuple[float, float]]] = KINDS) -> list[Fault]:
    """The faults of a run. All have begun after `seconds`; within a lane each kind comes before any comes again."""
    faults = [fault for lane in kinds for fault in _lane(seed, seconds, lane, kinds[lane])]
    return sorted(faults, key=lambda fault: fault.at_s)


def only(*names: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return only the named kinds of KINDS."""
    return {lane: {name: kinds[name] for name in kinds if name in names} for lane, kinds in KINDS.items()}


def _lane(seed: int, seconds: float, lane: str, kinds: dict[str, tuple[float, float]]) -> list[Fault]:
    dice = random.Random(
        f"{seed} {lane}"
    )  # of its own, so that a change to one lane leaves the others as they were
    faults: list[Fault] = []
    bag: list[str] = []
    at_s = dice.uniform(*_FIRST_S)
    while kinds and at_s < seconds:
        bag = bag or dice.sample(sorted(kinds), len(kinds))
        kind = bag.pop()
        lasts = round(dice.uniform(*kinds[kind]), 1)
        faults.append(Fault(round(at_s, 1), lane, kind, lasts, _whose(dice, lane, kind)))
        at_s += lasts + dice.uniform(*GAPS_S[lane])
    return faults


def _whose(dice: random.Random, lane: str, kind: str) -> str:
    if kind == "kill -9 of a pool child":
        return WORKERS[1]  # the one with a prefork pool
    if lane == "workers":
        return dice.choice(WORKERS)
    if kind in ("FLUSHALL", "redis down", "postgres killed"):
        return EVERYBODY
    return dice.choice((EVERYBODY, EVERYBODY, CLIENTS, *WORKERS))
