"""A program that is written as an ordinary function: it runs again from the top at each turn, and a step whose id is known returns at once.

    def onboard(flow: Flow, customer: str) -> str:
        profile = flow.step("profile", read_profile, customer)
        risk, docs = flow.gather(flow.step("risk", assess, profile), flow.step("docs", collect, profile))
        ...

A step that has not ended suspends the function: `Suspend` is raised, and whatever was new becomes the move. Since nothing but ids ties a
step to its place in the function, new code may meet an old run: a new id is new work, a missing one is skipped.

`gather` gets the values of its steps as Python evaluates them, one after another. To learn which of them belong together, a step that has
not ended returns a placeholder, and the function goes on until a `gather` takes it (its steps are one group then) or anything else happens
(then only the first of them is made: the others come after it).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

from agno_workers.core.messages import Message
from agno_workers.core.moves import End, Fail
from agno_workers.core.program import Call, CallKind, Do, MadeCall, Outcome, ProgramMove, Progress
from agno_workers.errors import InvalidInput, RunFailed, StepFailed

MOST_PLACEHOLDERS = 1_000
"""The steps of one `gather`, and how far a function goes on to look for one."""
MOST_ID_CHARS = 200


class Suspend(BaseException):
    """Raised where the function waits; no `except Exception` catches it."""


class Placeholder:
    """The value of a step that has not ended. Any use of it suspends the function."""

    __slots__ = ("_call", "_flow")

    def __init__(self, flow: Flow, call: Call) -> None:
        object.__setattr__(self, "_flow", flow)
        object.__setattr__(self, "_call", call)


def _used(self: Placeholder, *_: Any, **__: Any) -> NoReturn:
    flow: Flow = object.__getattribute__(self, "_flow")
    flow._suspend()


for _name in ["__getattribute__", "__setattr__", "__bool__", "__len__", "__iter__", "__next__", "__getitem__", "__setitem__", "__contains__", "__call__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__str__", "__repr__", "__format__", "__int__", "__float__", "__index__", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__mod__", "__rmod__", "__and__", "__or__", "__enter__", "__exit__", "__await__", "__reduce_ex__"]:  # fmt: skip
    setattr(Placeholder, _name, _used)


class StepResult(NamedTuple):
    """How a step of a `gather` ended."""

    id: str
    value: Any
    error: StepFailed | None
    is_used: bool
    """False: it came too late, or was cancelled."""


class Pending:
    """A step that was started: `flow.gather` and `flow.parallel` wait for it, and `result()` does."""

    def __init__(
        self, flow: Flow, id: str, what: Any, input: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        self.id = id
        self._flow = flow
        self._asked = what, input, options

    def result(self) -> Any:
        """Return the value. Raises StepFailed."""
        return self._flow._value(self.id, *self._asked)


class Calls(Protocol):
    """The agents, teams, workflows and functions that steps call."""

    def identify(self, what: Any) -> tuple[CallKind, str]:
        """Return the kind and the name of a step. Raises InvalidInput for what can't be called."""
        ...

    def call(self, id: str, what: Any, input: Sequence[Any], options: Mapping[str, Any]) -> Call:
        """Return the call of a new step. Raises InvalidInput for input that does not fit."""
        ...

    def read(self, what: Any, value: Any) -> Any:
        """Return the value of a step from the stored JSON."""
        ...


class Join(NamedTuple):
    """When the branches of a `parallel` or `gather` are enough."""

    kind: str
    n: int = 1


ALL, FIRST, BEST_EFFORT = Join("all"), Join("quorum", 1), Join("best_effort")


def quorum(n: int) -> Join:
    """Wait for `n` branches that succeed: the others are cancelled. StepFailed when so many can't succeed any more."""
    if type(n) is not int or n < 1:
        raise InvalidInput(f"quorum(n) takes a whole number from 1, got {n!r}.")
    return Join("quorum", n)


class Ended(NamedTuple):
    """A branch that has ended: its place, whether it succeeded, and the arrival of its last step."""

    place: int
    is_ok: bool
    arrival: int


def decide_join(
    join: Join, ended: Iterable[Ended], pending: int, deadline: int | None = None
) -> list[int] | None:
    """Return the places of the branches whose results are used, in the order of their arrival; None: wait. Raises StepFailed when there are too few.

    `deadline` is the arrival of the timer, if it has ended. Nothing but arrivals decides, so that late results change nothing.
    """
    late = deadline if deadline is not None else 2**62
    in_time = sorted((each for each in ended if each.arrival < late), key=lambda each: each.arrival)
    succeeded = [each.place for each in in_time if each.is_ok]
    is_over = pending == 0 or deadline is not None
    match join.kind:
        case "quorum" if len(succeeded) >= join.n:
            return succeeded[: join.n]
        case "quorum" if is_over or len(succeeded) + pending < join.n:
            raise StepFailed(
                f"{len(succeeded)} of the {join.n} results that are needed came in time", reason="quorum"
            )
        case "quorum":
            return None
        case _:
            return [each.place for each in in_time] if is_over else None


class _Scope:
    """One pass through a branch."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        """The calls whose placeholders the function has."""
        self.is_suspended = False
        self.arrival = 0
        self.new: dict[str, Call] = {}
        self.open: set[str] = set()
        self.wake_after = 0

    def add(self, other: _Scope) -> None:
        """Wait for what another one waits for, too."""
        self.new |= other.new
        self.open |= other.open
        self.wake_after = min(self.wake_after or other.wake_after, other.wake_after)


class Flow:
    """The run of a workflow, for its function. Every step has an id of its own."""

    def __init__(self, progress: Progress, calls: Calls) -> None:
        self._progress = progress
        self._calls = calls
        self._scope = _Scope()
        self._seen: set[str] = set()
        self._cancel: list[str] = []

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._progress.run_id

    @property
    def now(self) -> datetime:
        """The time of this turn, by the clock of Postgres."""
        return self._progress.now

    @property
    def input(self) -> Message:
        """The first message of the run."""
        return self._progress.input

    @property
    def session_id(self) -> str | None:
        """The session of the run."""
        return self._progress.session_id

    @property
    def user_id(self) -> str | None:
        """The person whom the run is for."""
        return self._progress.user_id

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the run."""
        return self._progress.metadata

    @property
    def known(self) -> Collection[str]:
        """The ids of the steps that earlier turns made."""
        return self._progress.calls.keys()

    def step(self, id: str, what: Any, *input: Any, **options: Any) -> Any:
        """Return the result of an agent, a team, a workflow or a function. Raises StepFailed when it failed.

        The first turn that comes here makes the call; later ones read its result, by the id.
        """
        return self._value(id, what, input, options)

    def start(self, id: str, what: Any, *input: Any, **options: Any) -> Pending:
        """Prepare a step for `gather` with a `join`."""
        return Pending(self, id, what, input, options)

    def gather(self, *steps: Any, join: Join = ALL, deadline_s: float | None = None) -> list[Any]:
        """Make steps side by side, and return their values in order: `a, b = flow.gather(flow.step(...), flow.step(...))`.

        With a `join` or a `deadline_s`, write `flow.start(...)` for each step: the result is a StepResult for each.
        """
        self._check()
        if join is not ALL or deadline_s is not None:
            if wrong := [each for each in steps if type(each) is not Pending]:
                raise InvalidInput(
                    f"flow.gather(join=..., deadline_s=...) takes steps that were started, got {type(wrong[0]).__name__}: write flow.start(...) in place of flow.step(...)."
                )
            found = self.parallel(
                *(each.result for each in steps),
                join=join,
                deadline_s=deadline_s,
                id=steps[0].id if steps else "",
            )
            return [each._replace(id=step.id) for each, step in zip(found, steps, strict=True)]
        values = [each.result() if type(each) is Pending else each for each in steps]
        group = [object.__getattribute__(each, "_call") for each in values if type(each) is Placeholder]
        if self._scope.waiting and {call.key for call in self._scope.waiting} - {call.key for call in group}:
            self._suspend()
        if group:
            self._scope.waiting.clear()
            self._wait_for(group, len(group))
        return values

    def parallel(
        self, *branches: Callable[[], Any], join: Join = ALL, deadline_s: float | None = None, id: str = ""
    ) -> list[Any]:
        """Run functions of several steps side by side, and return their values; with a `join` or a `deadline_s`, a StepResult of each.

        Raises StepFailed as soon as all have ended and one has failed.
        """
        self._check()
        if self._scope.waiting:
            self._suspend()
        ended: dict[int, tuple[Any, StepFailed | None, int]] = {}
        pending: list[_Scope] = []
        for place, branch in enumerate(branches):
            try:
                is_over, value, scope = self._drive(branch)
            except StepFailed as error:
                ended[place] = None, error, error.ids.get("arrival", 0)
                continue
            if is_over:
                ended[place] = value, None, scope.arrival
            else:
                pending.append(scope)
        self._scope.arrival = max([self._scope.arrival, *(at for _, _, at in ended.values())])
        if join is ALL and deadline_s is None:
            if pending:
                self._wait_in(pending)
            if failed := [error for _, error, _ in ended.values() if error]:
                raise failed[0]
            return [ended[place][0] for place in range(len(branches))]
        timer = self._deadline(f"{id}:deadline", deadline_s)
        made = [Ended(place, error is None, at) for place, (_, error, at) in ended.items()]
        used = decide_join(
            join, made, len(pending), timer.outcome.arrival if timer and timer.outcome else None
        )
        if used is None:
            self._wait_in(pending)
        self._cancel += sorted(
            {key for scope in pending for key in scope.open}
            | ({f"{id}:deadline"} if timer and not timer.outcome else set())
        )
        return [
            StepResult(str(place), value, error, place in used)
            for place in range(len(branches))
            for value, error, _ in [ended.get(place, (None, None, 0))]
        ]

    def approve(
        self,
        question: str,
        *,
        id: str | None = None,
        within_s: float | None = None,
        on_timeout: Literal["reject", "approve", "fail"] = "reject",
        **shown: Any,
    ) -> dict[str, Any]:
        """Wait until a person approves; return `{"by", "note", ...}`. Raises StepFailed when the person rejects, or nobody answers in time.

        `shown` is JSON that the person sees beside the question.
        """
        call = Call(
            key=id or question,
            kind=CallKind.APPROVAL,
            name=question,
            shown=shown,
            within_s=within_s,
            on_timeout=on_timeout,
        )
        answer: dict[str, Any] = self._await(call)
        if answer.get("verdict") != "approved":
            raise StepFailed(
                f"step {call.key!r}: {answer.get('by') or 'a person'} rejected {question!r}: {answer.get('note') or 'no note'}.",
                step=call.key,
                reason="rejected",
            )
        return answer

    def sleep(self, *, id: str = "sleep", **time: float) -> None:
        """Wait for a time, such as `hours=24`, in the words of timedelta. A second sleep needs an `id` of its own."""
        self._await(Call(key=id, kind=CallKind.TIMER, until=self.now + timedelta(**time)))

    def wait_for_signal(self, name: str, *, id: str | None = None, timeout_s: float | None = None) -> Any:
        """Wait for a signal, and return its payload; one that was sent before is kept, and taken once. Raises StepFailed after `timeout_s`."""
        return self._await(Call(key=id or name, kind=CallKind.SIGNAL, name=name, within_s=timeout_s))

    def map(self, id: str, items: Sequence[Any], what: Any, **_options: Any) -> Any:
        """Return the results of the same step for each item, in order."""
        return self.gather(*(self.start(f"{id}/{place}", what, item) for place, item in enumerate(items)))

    # The machine.

    def move(self, function: Callable[[], Any]) -> ProgramMove:
        """Run the function from the top, and return the run's next move."""
        try:
            is_over, value, scope = self._drive(function)
        except StepFailed as error:
            return Fail(str(error), error.ids.get("reason") or "step_failed", type(error).__name__)
        if is_over:
            return End(value)
        return Do(tuple(scope.new.values()), tuple(dict.fromkeys(self._cancel)), scope.wake_after)

    def _drive(self, function: Callable[[], Any]) -> tuple[bool, Any, _Scope]:
        """Run a function until it ends or waits."""
        outer, self._scope = self._scope, _Scope()
        try:
            value = function()
            if self._scope.waiting and not self._scope.is_suspended:
                self._suspend()
            return not self._scope.is_suspended, value, self._scope
        except Suspend:
            return False, None, self._scope
        finally:
            self._scope = outer

    def _check(self) -> None:
        """Let nothing happen in `finally` blocks of a function that waits."""
        if self._scope.is_suspended:
            raise Suspend

    def _made(self, id: str, kind: CallKind, name: str) -> MadeCall | None:
        """Return what earlier turns know of a step. Raises InvalidInput for an id that is used twice, RunFailed for one that was another step."""
        if type(id) is not str or not id.strip() or len(id) > MOST_ID_CHARS or id.startswith("turn:"):
            raise InvalidInput(
                f"a step's id must be text of 1 to {MOST_ID_CHARS} characters that does not begin with 'turn:', got {id!r}.",
                step=id,
            )
        if id in self._seen:
            raise InvalidInput(
                f"two steps have the id {id!r}: give each its own, such as f'page-{{n}}'.", step=id
            )
        self._seen.add(id)
        made = self._progress.calls.get(id)
        if made is not None and (made.kind, made.name) != (kind, name):
            raise RunFailed(
                f"step {id!r} was the {made.kind} {made.name!r} and is the {kind} {name!r} now: give new work a new id.",
                run_id=self.run_id, reason="step_changed",
            )  # fmt: skip
        return made

    def _value(self, id: str, what: Any, input: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Return the value of a step, or a placeholder."""
        self._check()
        if _holds_placeholder(input) or _holds_placeholder(options):
            self._suspend()
        made = self._made(id, *self._calls.identify(what))
        if made is not None and made.outcome is not None:
            return self._calls.read(what, self._result(id, made.outcome))
        call = self._calls.call(id, what, input, options) if made is None else Call(key=id, kind=made.kind)
        self._scope.waiting.append(call)
        if len(self._scope.waiting) > MOST_PLACEHOLDERS:
            self._suspend()
        return Placeholder(self, call)

    def _await(self, call: Call) -> Any:
        """Return the value of a call that is never part of a `gather`."""
        self._check()
        if self._scope.waiting:
            self._suspend()
        made = self._made(call.key, call.kind, call.name)
        if made is not None and made.outcome is not None:
            return self._result(call.key, made.outcome)
        return self._wait_for([call], 1)

    def _result(self, id: str, outcome: Outcome) -> Any:
        self._scope.arrival = max(self._scope.arrival, outcome.arrival)
        if outcome.status == "done":
            return outcome.value
        why = (outcome.error or {}).get("message") or outcome.status
        raise StepFailed(
            f"step {id!r} {outcome.status}: {why}", step=id, arrival=outcome.arrival, error=outcome.error
        )

    def _deadline(self, key: str, seconds: float | None) -> MadeCall | None:
        if seconds is None:
            return None
        timer = Call(key=key, kind=CallKind.TIMER, until=self.now + timedelta(seconds=seconds))
        made = self._made(key, timer.kind, timer.name)
        if made is None:
            self._scope.new[key] = timer
        return made or MadeCall(CallKind.TIMER, "")

    def _suspend(self) -> NoReturn:
        """Wait for the first step that has not ended: those after it come later."""
        first, *_ = self._scope.waiting
        self._wait_for([first], 1)

    def _wait_for(self, calls: Sequence[Call], wake_after: int) -> NoReturn:
        scope = self._scope
        for call in calls:
            if call.key in self._progress.calls:
                scope.open.add(call.key)
            else:
                scope.new[call.key] = call
        scope.wake_after = wake_after
        scope.is_suspended = True
        raise Suspend

    def _wait_in(self, pending: Sequence[_Scope]) -> NoReturn:
        for scope in pending:
            self._scope.add(scope)
        self._scope.is_suspended = True
        raise Suspend


def _holds_placeholder(value: Any) -> bool:
    if type(value) is Placeholder:
        return True
    if type(value) is dict:
        return any(_holds_placeholder(each) for each in value.values())
    return type(value) in (list, tuple, set) and any(_holds_placeholder(each) for each in value)
