"""The product of the crash matrix: places where a process dies, kinds of steps that it dies in, and ways to die."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agno_workers.core.tool import Effect
from agno_workers.sdk.handles import RunHandle
from agno_workers.signals import SIGNALS
from tests import invariants
from tests.acceptance.matrix.fleet import (
    KEEPER_EVERY_S,
    KEEPER_LEASE_S,
    LEASE_S,
    PUBLISH_AFTER_S,
    RESEND_AFTER_S,
    Fleet,
    lines,
    repeats,
)

CHILD, WORKER, PAUSE, DEPLOY = "SIGKILL of a prefork child", "SIGKILL", "SIGSTOP past the lease", "SIGTERM"
"""Ways to die. A prefork child dies alone; the others hit a worker with all its steps."""

_LOOK_EVERY_S = 1.0
"""The interval in which the keeper searches for lost messages, and Celery for dead children."""
WAIT_S = 30
_SIGNALS = {PAUSE: "STOP", DEPLOY: "TERM"}
_SLACK = 16
"""The keeper's rounds during a run without any fault, on a busy machine."""


@dataclass(frozen=True)
class Kind:
    """The work during which the process dies."""

    name: str
    agent: str
    says: str
    """The beginning of the run's answer."""
    passes: int = 0
    """Steps of the same kind that pass the failpoint before."""
    effect: Effect | None = None
    tool: str = "look"
    reconcile: bool = False
    needs: str = ""
    """The answer of a person that the step needs."""

    def ask(self, ledger: Path) -> str:
        call = f"{self.tool} {json.dumps({'path': str(ledger)})}"
        if self.agent == "listed":
            return str(ledger)
        return f"matrix {json.dumps({'task': call})}" if self.agent in ("boss", "squad") else call


TURNS = (
    Kind("the first turn", "matrix", "looked"),
    Kind("the turn after the barrier", "matrix", "looked", 1),
    Kind("a turn that delegates", "boss", "looked"),
    Kind("the first turn of a delegated run", "boss", "looked", 1),
    Kind("the last turn of a delegated run", "boss", "looked", 2),
    Kind("the turn after a delegation", "boss", "looked", 3),
)
TOOLS = (
    Kind("a pure tool", "matrix", "looked", effect=Effect.PURE, tool="look"),
    Kind("an idempotent tool", "matrix", "noted", effect=Effect.IDEMPOTENT, tool="note"),
    Kind("a transactional tool", "matrix", "booked", effect=Effect.TRANSACTIONAL, tool="book"),
    Kind("a `once` tool", "matrix", "sent", effect=Effect.ONCE, tool="send"),
    Kind("a `once` tool with a reconcile hook", "matrix", "transferred", effect=Effect.ONCE, tool="transfer", reconcile=True),
    Kind("a tool of a delegated run", "boss", "noted", effect=Effect.IDEMPOTENT, tool="note"),
    Kind("a tool that a person has approved", "matrix", "published, approved by ann", effect=Effect.IDEMPOTENT, tool="publish",
         needs="approve"),
    Kind("a tool with an argument from a person", "matrix", "refunded to DE1", effect=Effect.IDEMPOTENT, tool="refund",
         needs="answer"),
)  # fmt: skip
PROGRAM_TURNS = (
    Kind("the first turn of a workflow", "errand", "looked"),
    Kind("a turn of a workflow that makes calls", "errand", "looked", 1),
    Kind("the run of a workflow's step", "errand", "looked", 2),
    Kind("the last turn of a workflow", "errand", "looked", 4),
    Kind("the first turn of a team", "squad", "looked"),
    Kind("the last turn of a team's member", "squad", "looked", 2),
    Kind("the last turn of a team", "squad", "looked", 3),
)
FORMS = (
    Kind("the first turn of a declared workflow", "listed", "<"),
    Kind("the last turn of a declared workflow", "listed", "<", 4),
    Kind("the first turn of a broadcast", "chorus", "looked"),
    Kind("the turn of a broadcast that asks the leader", "chorus", "looked", 3),
    Kind("the last turn of a broadcast", "chorus", "looked", 5),
)
"""The other forms of programs."""
FUNCTIONS = (
    Kind("a pure step", "errand", "looked", 1, Effect.PURE, "look"),
    Kind("a transactional step", "errand", "booked", 1, Effect.TRANSACTIONAL, "book"),
    Kind("a `once` step", "errand", "sent", 1, Effect.ONCE, "send"),
    Kind(
        "a `once` step with a reconcile hook",
        "errand",
        "transferred",
        1,
        Effect.ONCE,
        "transfer",
        reconcile=True,
    ),
)
COMPACTION = Kind("a compaction", "longwinded", "summarized")
_IS_CUT_SHORT = (
    "turn.claimed", "turn.replied", "tool.claimed", "tool.executed", "compact.claimed", "compact.replied",
)  # fmt: skip
_IS_EXECUTED = ("tool.executed", "tool.recorded")


@dataclass(frozen=True)
class Cell:
    """One death."""

    kind: Kind
    place: str
    how: str

    @property
    def number(self) -> str:
        """Its row in the matrix."""
        match self.place, self.how:
            case _, how if how == PAUSE:
                return "C15"
            case _, how if how == DEPLOY:
                return "C21"
            case (("turn.received" | "tool.received" | "compact.received"), _):
                return "C7"
            case (("turn.claimed" | "tool.claimed" | "compact.claimed"), _):
                return "C8"
            case (("turn.replied" | "tool.executed" | "compact.replied"), _):
                return "C9"
            case "turn.recorded", _ if self.kind in (*PROGRAM_TURNS[2:4], FORMS[1], FORMS[4]):
                return "C11"
            case "turn.recorded", _ if self.kind.passes in (0, 1):
                return "C13"
            case _:
                return "C11"

    @property
    def lane(self) -> str:
        return "children" if self.how == CHILD else "machines"

    def run(self, fleet: Fleet, folder: Path) -> None:
        ledger = folder / "ledger"
        fleet.arm(self.place, passes=self.kind.passes, how=_SIGNALS.get(self.how, ""))
        before = fleet.beat()
        run = fleet.client.runs.submit(self.kind.agent, self.kind.ask(ledger))
        _person(run, self.kind.needs)
        answer = run.result(timeout=WAIT_S)
        rounds = fleet.beat() - before
        invariants.until(
            lambda: not fleet.is_armed(self.place)
        )  # the end of the run may be seen before the death
        assert rounds <= self.within_rounds
        if self.how == PAUSE:
            _late(fleet, run)
        if self.how == DEPLOY:
            fleet.await_end()
        assert answer.startswith(self.says)
        assert repeats(fleet.executions(run.id)) == self.repeats
        keys = lines(ledger)
        assert len(keys) == self.ledger
        assert len(set(keys)) <= 1
        if self.kind.effect is Effect.TRANSACTIONAL:
            rows = fleet.sql("SELECT FROM public.booking WHERE key = %(key)s", key=keys[0])
            assert len(rows) == 1

    @property
    def id(self) -> str:
        return f"{self.number} {self.place}, {self.kind.name}, {self.how}"

    @property
    def done(self) -> str:
        """The fault."""
        return f"{self.kind.name}, {self.how}: {SIGNALS[self.place]}"

    @property
    def is_unknown(self) -> bool:
        """True when the outcome of the call is unknown."""
        return self.is_cut_short and self.kind.effect is Effect.ONCE and not self.kind.reconcile

    @property
    def is_cut_short(self) -> bool:
        """True when the step was claimed and not recorded."""
        return self.place in _IS_CUT_SHORT and self.how != DEPLOY

    @property
    def repeats(self) -> int:
        """Executions beyond one per step. A worker that shuts down finishes fast steps."""
        return int(self.is_cut_short and not self.is_unknown)

    @property
    def says(self) -> str:
        """The beginning of the run's answer."""
        if self.is_unknown:
            module = "tests.agents:" if self.kind.agent == "errand" else ""
            return f"!It is not known whether {module}{self.kind.tool} took effect"
        if self.kind.reconcile and self.place == "tool.executed" and self.how != DEPLOY:
            return "transferred before"
        return self.kind.says

    @property
    def ledger(self) -> int:
        """The number of lines in the ledger of executions, which is outside any transaction."""
        if self.kind.effect is None or not self.is_cut_short:
            return 1
        was_executed = self.place in _IS_EXECUTED
        if self.kind.effect is Effect.ONCE:
            return 1 if self.kind.reconcile or was_executed or self.how == PAUSE else 0
        return 2 if was_executed or self.how == PAUSE else 1

    @property
    def within_rounds(self) -> int:
        """The most rounds of the keeper from the submit to the end."""
        return math.ceil(self.within_s / KEEPER_EVERY_S) + _SLACK

    @property
    def within_s(self) -> float:
        if self.how == DEPLOY:
            return 0.0
        lost_s = RESEND_AFTER_S + _LOOK_EVERY_S
        wait_s = PUBLISH_AFTER_S
        if self.place.endswith(".received"):
            wait_s = lost_s
        elif self.place in _IS_CUT_SHORT:
            wait_s = LEASE_S
        if self.how == CHILD:
            return _LOOK_EVERY_S + (0 if self.place in _IS_CUT_SHORT else wait_s)
        # Redis may still deliver a message to a stopped worker.
        return wait_s + KEEPER_LEASE_S + (lost_s if self.how == PAUSE else 0)

    @property
    def holds(self) -> str:
        """Return what must hold beside the invariants, and beside the answer `says`."""
        by = {
            Effect.ONCE: "executed at most once, `unknown`, and the model is told" if self.is_unknown else "executed once",
            Effect.TRANSACTIONAL: "one row",
            None: "one result",
        }.get(self.kind.effect, f"executed {'twice' if self.ledger == 2 else 'once'}, with one key")  # fmt: skip
        late = "; the late result changes nothing" if self.how == PAUSE else ""
        return f"{by}{late}; the run ends within {self.within_rounds} rounds"


def _person(run: RunHandle, needs: str) -> None:
    """Give the answer that the run waits for."""
    if not needs:
        return
    invariants.until(lambda: run.requirements)
    (requirement,) = run.requirements
    if needs == "approve":
        requirement.approve(by="ann")
    else:
        requirement.answer({"iban": "DE1"}, by="ann")


def _late(fleet: Fleet, run: RunHandle) -> None:
    """Let the stopped worker continue: its late result changes nothing."""
    before = fleet.executions(run.id), run.messages, run.run
    stopped = fleet.stopped()
    stopped.kill(signal.SIGCONT)
    stopped.wait_for("succeeded in")
    assert (fleet.executions(run.id), run.messages, run.run) == before


def _product() -> Iterator[Cell]:
    for kind in TURNS:
        for place in ("turn.received", "turn.claimed", "turn.replied", "turn.recorded"):
            yield Cell(kind, place, CHILD)
    for kind in TOOLS:
        for place in ("tool.received", "tool.claimed", "tool.executed", "tool.recorded"):
            yield Cell(kind, place, CHILD)
    for kind in PROGRAM_TURNS[:4]:
        for place in ("turn.received", "turn.claimed", "turn.replied", "turn.recorded"):
            yield Cell(kind, place, CHILD)
    for kind in (*PROGRAM_TURNS[4:], *FORMS):
        for place in ("turn.replied", "turn.recorded"):
            yield Cell(kind, place, CHILD)
    for kind in FUNCTIONS:
        for place in ("tool.claimed", "tool.executed", "tool.recorded"):
            yield Cell(kind, place, CHILD)
    for place in ("compact.received", "compact.claimed", "compact.replied", "compact.recorded"):
        yield Cell(COMPACTION, place, CHILD)
    yield Cell(COMPACTION, "compact.replied", WORKER)
    for place in ("turn.claimed", "turn.recorded"):
        for kind in (TURNS[0], TURNS[2], TURNS[4]):
            yield Cell(kind, place, WORKER)
    yield Cell(TURNS[1], "turn.received", WORKER)
    for kind in TOOLS[:5]:
        yield Cell(kind, "tool.executed", WORKER)
    for place in ("tool.received", "tool.claimed", "tool.recorded"):
        yield Cell(TOOLS[1], place, WORKER)
    for kind in PROGRAM_TURNS[1:4]:
        yield Cell(kind, "turn.replied", WORKER)
    yield Cell(PROGRAM_TURNS[1], "turn.recorded", WORKER)
    yield Cell(FUNCTIONS[2], "tool.executed", WORKER)
    for kind in (TURNS[0], TURNS[4]):
        yield Cell(kind, "turn.replied", PAUSE)
    for kind in TOOLS[1:5]:
        yield Cell(kind, "tool.executed", PAUSE)
    yield Cell(PROGRAM_TURNS[1], "turn.replied", PAUSE)
    yield Cell(FUNCTIONS[2], "tool.executed", PAUSE)
    yield Cell(TURNS[0], "turn.replied", DEPLOY)
    yield Cell(TURNS[2], "turn.recorded", DEPLOY)
    yield Cell(PROGRAM_TURNS[1], "turn.recorded", DEPLOY)
    yield Cell(TOOLS[3], "tool.executed", DEPLOY)


CELLS = tuple(_product())
