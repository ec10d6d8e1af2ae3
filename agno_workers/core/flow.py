"""A program that is written as an ordinary function: it runs again from the top at each turn, and a step whose id is known returns at once.

    def onboard(flow: Flow, customer: str) -> str:
        profile = flow.step("profile", read_profile, customer)
        risk, docs = flow.gather(flow.step("risk", assess, profile), flow.step("docs", collect, profile))
        ...

A step that has not ended suspends the function: `Suspend` is raised, and whatever was new becomes the move. Since nothing but ids ties a
step to its place in the function, new code may meet an old run: a new id is new work, a missing one is skipped.

Python evaluates the steps of a `gather` one after another, before it calls `gather`. So from the moment at which the code takes `flow.gather`
until it calls it, a step waits for nothing: it is a `Pending`, which `gather` takes.

All joins are decided by the order in which steps ended, so that each later turn decides the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import MethodType
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypeVar, cast

from agno_workers.core.checks import brief
from agno_workers.core.mapping import MapResult, OnError, mapped
from agno_workers.core.messages import Message
from agno_workers.core.moves import End
from agno_workers.core.program import Call, CallKind, Do, MadeCall, Outcome, ProgramMove, Progress
from agno_workers.core.state import Read, State, nothing
from agno_workers.errors import InvalidInput, RunFailed, StepFailed, message_of

MOST_NEW = 10_000
"""The most steps that a turn makes; `flow.map` has no limit."""
MOST_ID_CHARS = 200


class Suspend(BaseException):
    """Raised where the function waits; no `except Exception` catches it."""


class StepResult(NamedTuple):
    """How a step of a `gather`, or a branch of a `parallel`, ended."""

    id: str
    """The id of the step, or the place of the branch from "0"."""
    value: Any
    """Its result; None where it failed or has not ended."""
    error: StepFailed | None
    """Why it failed, or None."""
    is_used: bool
    """False: it failed, came too late, or was cancelled. A `best_effort` uses failures too."""


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


class _Asked(NamedTuple):
    """A step that the function has asked for. Its call is made of its input only when it is needed."""

    id: str
    made: MadeCall | None
    build: Callable[[], Call]
    read: Callable[[Any], Any]
    """Return its value for the stored JSON."""


class Pending:
    """A step that the function does not wait for yet: `result()` and `flow.gather` do."""

    def __init__(self, flow: Flow, asked: _Asked) -> None:
        self.id = asked.id
        self._flow = flow
        self._asked = asked

    def result(self) -> Any:
        """Return the value. Raises StepFailed."""
        return self._flow._value(self._asked)

    def _is_no_value(self, *_: object) -> NoReturn:
        raise InvalidInput(
            f"step {self.id!r} is used before its value is known: read it with result(), and give branches of several steps to flow.parallel.",
            step=self.id,
        )

    __bool__ = __eq__ = __str__ = _is_no_value  # else they would be True, False, and "<Pending ...>"
    __hash__ = object.__hash__


class _Gather:
    """The method `gather`, which is told when code takes it: that is before its arguments are evaluated."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.__wrapped__ = method

    def __get__(self, flow: Flow | None, owner: type[Flow]) -> Any:
        if flow is None:
            return self.__wrapped__
        flow._refuse_in_gather("flow.gather")
        bound = MethodType(self.__wrapped__, flow)
        flow._branch.gather = weakref.ref(bound)
        return bound


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _told_when_taken(method: _Method) -> _Method:
    return cast(_Method, _Gather(method))


class Join(NamedTuple):
    """When the branches of a `parallel` or `gather` are enough."""

    kind: Literal["all", "quorum", "best_effort"]
    n: int = 1


ALL, FIRST, BEST_EFFORT = Join("all"), Join("quorum", 1), Join("best_effort")
_WORDS = {"all": ALL, "first": FIRST, "best_effort": BEST_EFFORT}
AnyJoin = Join | Literal["all", "first", "best_effort"]


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


class Verdict(NamedTuple):
    """A join that is decided. Ends after `arrival` came too late for it."""

    used: tuple[int, ...]
    """The places of the branches whose results are used, in the order of their arrival."""
    arrival: int
    """The end that decided it."""
    is_enough: bool = True


def decide_join(
    join: Join, ended: Iterable[Ended], pending: int, deadline: int | None = None
) -> Verdict | int:
    """Decide a join, or return how many more branches must end before it can be decided.

    `deadline` is the arrival of the timer, if it has ended. Nothing but arrivals decides, so that late results change nothing.
    """
    ended = sorted(ended, key=lambda each: each.arrival)
    in_time = [each for each in ended if deadline is None or each.arrival < deadline]
    succeeded, failed = [each for each in in_time if each.is_ok], [each for each in in_time if not each.is_ok]
    if join.kind == "quorum":
        spare = len(ended) + pending - join.n
        if len(succeeded) >= join.n:
            used = succeeded[: join.n]
            return Verdict(tuple(each.place for each in used), used[-1].arrival)
        if len(failed) > spare:
            return Verdict((), failed[max(spare, 0)].arrival, False)
        if deadline is not None:
            return Verdict((), deadline, False)
        return min(join.n - len(succeeded), spare - len(failed) + 1)
    is_complete = not pending and len(in_time) == len(ended)
    if not is_complete and deadline is None:
        return pending
    arrival = deadline if deadline is not None and not is_complete else ended[-1].arrival if ended else 0
    return Verdict(tuple(each.place for each in in_time), arrival, is_complete or join.kind == "best_effort")


class _Branch:
    """One pass through the function, or through a branch of it."""

    def __init__(self) -> None:
        self.is_over = False
        self.value: Any = None
        self.error: StepFailed | None = None
        self.arrival = 0
        """The last end that it has seen."""
        self.gather: weakref.ref[MethodType] | None = None
        """The `flow.gather` that was taken last, until it is called."""
        self.asked: dict[str, None] = {}
        """The steps in its arguments."""
        self.is_suspended = False
        self.new: dict[str, Call] = {}
        self.open: set[str] = set()
        """The calls of earlier turns that have not ended."""
        self.wake_after = 1

    @property
    def is_gathering(self) -> bool:
        """True while the arguments of a `gather` are evaluated; not after an error in them, when the bound method is gone."""
        return self.gather is not None and self.gather() is not None

    def add(self, other: _Branch) -> None:
        self.new |= other.new
        self.open |= other.open


class _ReadOnly(State):
    """State that a workflow reads."""

    def _add(self, operation: str, key: str, _operand: Any) -> None:
        raise InvalidInput(
            f"{operation} of {key!r}: flow.state can only be read, since the code of a workflow runs again at each turn: "
            "write it in a step, a function that takes ctx and uses ctx.state."
        )


class Flow:
    """The run of a workflow, for its function. Every step has an id of its own."""

    def __init__(self, progress: Progress, calls: Calls, read_state: Read = nothing) -> None:
        self._progress = progress
        self._calls = calls
        self._read_state = read_state
        self._branch = _Branch()
        self._seen: set[str] = set()
        self._cancel: dict[str, None] = {}
        self._state: State | None = None

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._progress.run_id

    @property
    def session_id(self) -> str | None:
        """The session of the run."""
        return self._progress.session_id

    @property
    def user_id(self) -> str | None:
        """The user of the run."""
        return self._progress.user_id

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the submit."""
        return self._progress.metadata

    @property
    def now(self) -> datetime:
        """The time of this turn, by the clock of Postgres."""
        return self._progress.now

    @property
    def input(self) -> Message:
        """The first message of the run."""
        return self._progress.input

    @property
    def known(self) -> Collection[str]:
        """The ids of the steps that earlier turns made."""
        return self._progress.calls.keys()

    @property
    def state(self) -> State:
        """The state of the run's session, or of the run without one, to read: it may be another one at the next turn. Write it in a step,
        with `ctx.state`.
        """
        if self._state is None:
            scope, owner = ("session", self.session_id) if self.session_id else ("run", self.run_id)
            self._state = _ReadOnly(scope, owner, self._read_state)
        return self._state

    def step(self, id: str, what: Any, /, *input: Any, **options: Any) -> Any:
        """Return the result of an agent, a team, a workflow, a function, or of one question to a model ("openai:gpt-5-mini").

        The first turn that comes here makes the call; later ones read its result, by the id. Raises StepFailed when it failed.
        """
        return self._value(self._asked(id, what, input, options))

    def start(self, id: str, what: Any, /, *input: Any, **options: Any) -> Pending:
        """Start a step, and go on. `result()` of what is returned waits for it, and so does `gather`."""
        asked = self._asked(id, what, input, options)
        if asked.made is None:
            call = asked.build()
            asked = asked._replace(build=lambda: call)
        self._branch.add(self._single(asked))
        return Pending(self, asked)

    @_told_when_taken
    def gather(self, *steps: Any, join: AnyJoin = ALL, deadline_s: float | None = None) -> list[Any]:
        """Wait for steps side by side, and return their values in order: `a, b = flow.gather(flow.step(...), flow.step(...))`.

        Its arguments are steps, also approvals, waits and maps, or what `flow.start` returned. `join` is `"all"`, `"first"`, `quorum(n)` or
        `"best_effort"`: the last three return a StepResult for each step. Those that are needed no more are cancelled.
        """
        here = self._branch
        here.gather = None
        for each in steps:
            if type(each) is not Pending:
                raise InvalidInput(
                    f"flow.gather takes steps, got {brief(each)}: write flow.gather(flow.step(...), flow.step(...)), or flow.start(...) before it."
                )
            here.asked.pop(each.id, None)
        self._check()
        branches = [self._single(each._asked) for each in steps]
        ids = [each.id for each in steps]
        return self._join(
            ids[0] if ids else "", ids, branches, join_of(join, len(steps)), deadline_s, is_single=True
        )

    def parallel(
        self, *branches: Callable[[], Any], join: AnyJoin = ALL, deadline_s: float | None = None, id: str = "parallel"
    ) -> list[Any]:  # fmt: skip
        """Run functions of several steps side by side, and return their values, or with a `join` a StepResult of each, as `gather` does.

        A second `parallel` with a `deadline_s` needs an `id` of its own. Raises StepFailed once all have ended and one has failed.
        """
        self._refuse_in_gather("flow.parallel")
        join = join_of(join, len(branches))
        driven = [self._drive(branch) for branch in branches]
        return self._join(id, [str(place) for place in range(len(branches))], driven, join, deadline_s)

    def map(
        self, id: str, items: Any, what: Any, /, *, window: int = 20, on_error: OnError = "collect"
    ) -> list[Any] | MapResult:
        """Call a function, an agent, a team or a workflow for each of `items`, at most `window` at once, and return the results in order.

        `items` is a list, also a long one, or the id of an earlier step whose result is one. With many or large results, a MapResult is
        returned, which reads them in pages. An item that fails is a StepFailed in place of its result; with `on_error="fail"`, the first one
        ends the map, which raises StepFailed.
        """
        self._check()
        if type(items) is str:
            made = self._progress.calls.get(items)
            if made is None or made.outcome is None or made.outcome.status != "done":
                raise InvalidInput(f"flow.map({id!r}): no earlier step {items!r} has a result: pass a list, or the id of a step before it.", step=id)  # fmt: skip
            items = made.outcome.value
        return self._value(self._asked(id, mapped(id, items, what, window, on_error), (), {}))  # type: ignore[no-any-return]

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

        def read(answer: dict[str, Any]) -> dict[str, Any]:
            if answer.get("verdict") != "approved":
                raise StepFailed(
                    f"step {call.key!r}: {answer.get('by') or 'a person'} rejected {question!r}: {answer.get('note') or 'no note'}.",
                    step=call.key,
                    reason="rejected",
                )
            return answer

        return self._wait(call, read)  # type: ignore[no-any-return]

    def sleep(self, *, id: str = "sleep", until: datetime | None = None, **time: float) -> Any:
        """Wait for a time, such as `hours=24`, in the words of timedelta, or `until` a time. A second sleep needs an `id` of its own."""
        try:
            due = until or self.now + timedelta(**time)
        except (TypeError, OverflowError) as error:
            raise InvalidInput(
                f"step {id!r}: flow.sleep takes a time, such as hours=24: {error}.", step=id
            ) from error
        if (until is None) is not bool(time) or due.tzinfo is None:
            raise InvalidInput(
                f"step {id!r}: flow.sleep takes a time, such as hours=24, or until=... with a time zone.",
                step=id,
            )
        return self._wait(Call(key=id, kind=CallKind.TIMER, until=due))

    def wait_for_signal(self, name: str, *, id: str | None = None, timeout_s: float | None = None) -> Any:
        """Wait for a signal, and return its payload; one that was sent before is kept, and taken once. Raises StepFailed after `timeout_s`."""
        return self._wait(Call(key=id or name, kind=CallKind.SIGNAL, name=name, within_s=timeout_s))

    record: Any = None
    """The JSON that was kept last."""

    def keep_record(self, record: Any) -> None:
        """Store JSON about the run beside its answer, or beside its error: `RunHandle.record` returns the last one that was kept."""
        self.record = record

    # The machine.

    def move(self, function: Callable[[], Any]) -> ProgramMove:
        """Run the function from the top, and return the run's next move. Raises as the function does."""
        root = self._drive(function)
        if root.error is not None:
            raise root.error
        if root.is_over:
            return End(root.value)
        if len(root.new) > MOST_NEW:
            raise InvalidInput(
                f"{len(root.new):,} steps at once, and the most is {MOST_NEW:,}: use flow.map."
            )
        return Do(tuple(root.new.values()), tuple(self._cancel), root.wake_after)

    def _drive(self, function: Callable[[], Any]) -> _Branch:
        """Run a function until it ends or waits."""
        outer, self._branch = self._branch, _Branch()
        branch = self._branch
        try:
            try:
                branch.value = function()
            except StepFailed as error:
                branch.error = error
            except Exception:
                if not branch.is_suspended:
                    raise
            branch.gather = None
            self._check()
            branch.is_over = True
        except Suspend:
            branch.error = None
        finally:
            self._branch = outer
        return branch

    def _check(self) -> None:
        """Let nothing happen in `finally` blocks of a function that waits, and no step of a `gather` be lost."""
        if self._branch.is_suspended:
            raise Suspend
        if self._branch.asked and not self._branch.is_gathering:
            first = next(iter(self._branch.asked))
            raise InvalidInput(
                f"step {first!r} is in the arguments of flow.gather, and was not given to it: give branches of several steps to flow.parallel, "
                "and write flow.gather(...) where it is called.",
                step=first,
            )

    def _refuse_in_gather(self, what: str) -> None:
        self._check()
        if self._branch.is_gathering:
            raise InvalidInput(
                f"{what} in the arguments of flow.gather: give branches of several steps to flow.parallel, and write flow.gather(...) where it is "
                "called."
            )

    def _suspend(self, wake_after: int) -> NoReturn:
        self._branch.wake_after = wake_after
        self._branch.is_suspended = True
        raise Suspend

    def _made(self, id: str, kind: CallKind, name: str) -> MadeCall | None:
        """Return what earlier turns know of a step. Raises InvalidInput for an id that is used twice, RunFailed for one that was another step."""
        made = self._progress.calls.get(id) if type(id) is str else None
        if made is None and (
            type(id) is not str or not id.strip() or len(id) > MOST_ID_CHARS or id.startswith("turn:")
        ):
            raise InvalidInput(
                f"a step's id must be text of 1 to {MOST_ID_CHARS} characters that does not begin with 'turn:', got {brief(id)}."
            )
        if id in self._seen:
            raise InvalidInput(
                f"two steps have the id {id!r}: give each its own, such as f'page-{{n}}'.", step=id
            )
        self._seen.add(id)
        if made is not None and (
            made.kind is not kind or (made.name != name and kind is not CallKind.APPROVAL)
        ):
            raise RunFailed(
                f"step {id!r} was the {made.kind} {made.name!r} and is the {kind} {name!r} now: give new work a new id.",
                run_id=self.run_id, step=id, reason="step_changed",
            )  # fmt: skip
        return made

    def _asked(self, id: str, what: Any, input: Sequence[Any], options: Mapping[str, Any]) -> _Asked:
        self._check()
        for each in (*input, *options.values()):
            if type(each) is Pending:
                each._is_no_value()
        try:
            kind, name = self._calls.identify(what)
        except InvalidInput as error:
            raise InvalidInput(f"step {id!r}: {error}", step=str(id)) from error
        made = self._made(id, kind, name)
        return _Asked(
            id, made, lambda: self._calls.call(id, what, input, options), partial(self._calls.read, what)
        )

    def _wait(self, call: Call, read: Callable[[Any], Any] = lambda value: value) -> Any:
        """Return the value of a call that is made of nothing."""
        self._check()
        return self._value(self._given(call, read))

    def _given(self, call: Call, read: Callable[[Any], Any] = lambda value: value) -> _Asked:
        return _Asked(call.key, self._made(call.key, call.kind, call.name), lambda: call, read)

    def _value(self, asked: _Asked) -> Any:
        """Return the value of a step; in the arguments of a `gather`, what it takes."""
        self._check()
        here = self._branch
        if here.is_gathering:
            here.asked[asked.id] = None
            return Pending(self, asked)
        if asked.made is not None and asked.made.outcome is not None:
            return self._read(asked)
        here.add(self._single(asked))
        return self._suspend(1)

    def _read(self, asked: _Asked) -> Any:
        assert asked.made is not None
        assert asked.made.outcome is not None
        try:
            return asked.read(self._result(asked.id, asked.made.outcome))
        except StepFailed as error:  # an answer that does not fit: a retry asks for it again
            error.ids.setdefault("step", asked.id)
            raise

    def _result(self, id: str, outcome: Outcome) -> Any:
        self._branch.arrival = max(self._branch.arrival, outcome.arrival)
        if outcome.status == "done":
            return _copied(outcome.value)
        why = (outcome.error or {}).get("message")
        raise StepFailed(
            f"step {id!r} {'was cancelled' if outcome.status == 'cancelled' else outcome.status}{f': {why}' if why else ''}",
            run_id=self.run_id, step=id, reason=f"step_{outcome.status}", error=outcome.error,
        )  # fmt: skip

    def _single(self, asked: _Asked) -> _Branch:
        """Return the branch of one step."""
        branch = _Branch()
        if asked.made is None:
            branch.new[asked.id] = asked.build()
        elif asked.made.outcome is None:
            branch.open.add(asked.id)
        else:
            return self._drive(lambda: self._read(asked))
        return branch

    def _join(
        self, id: str, ids: Sequence[str], branches: Sequence[_Branch], join: Join, deadline_s: float | None, *, is_single: bool = False
    ) -> list[Any]:  # fmt: skip
        """Return what the branches returned, or wait. Raises StepFailed where they are not enough."""
        here = self._branch
        timer = self._timer(id, deadline_s)
        deadline = timer.made.outcome.arrival if timer and timer.made and timer.made.outcome else None
        ended = [
            Ended(place, each.error is None, each.arrival)
            for place, each in enumerate(branches)
            if each.is_over
        ]
        pending = [each for each in branches if not each.is_over]
        verdict = decide_join(join, ended, len(pending), deadline)
        for each in branches:
            here.add(each)
        if isinstance(verdict, int):
            if timer is not None:
                here.add(self._single(timer))
            self._suspend(
                verdict if is_single and timer is None else min(each.wake_after for each in pending)
            )
        here.arrival = max(here.arrival, verdict.arrival)
        needless = [key for each in pending for key in (*each.new, *sorted(each.open))]
        if timer is not None and timer.made is not None and timer.made.outcome is None:
            needless.append(timer.id)
        for key in needless:
            here.new.pop(key, None)
            here.open.discard(key)
            if key in self._progress.calls:
                self._cancel[key] = None
        if join.kind == "all":
            for each in branches:
                if each.error is not None and each.arrival <= verdict.arrival:
                    raise each.error
        if not verdict.is_enough:
            is_late = deadline == verdict.arrival
            late = f" within {deadline_s:g} s" if is_late else ""
            succeeded = sum(each.is_ok and each.arrival <= verdict.arrival for each in ended)
            text = (
                f"{succeeded} of {len(branches)} branches of {id!r} succeeded{late}, and {join.n} are needed"
            )
            if join.kind == "all":
                text = f"{len(branches) - len(verdict.used)} of {len(branches)} branches of {id!r} did not end{late}"
            errors = [each.error for each in branches if each.error and each.arrival <= verdict.arrival]
            why = f": {message_of(errors[-1])}" if errors else ""
            step = timer.id if is_late and timer else None  # a retry of the run makes it again
            raise StepFailed(
                f"{text}{why}", run_id=self.run_id, reason="deadline" if is_late else "quorum", step=step
            )
        if join.kind == "all":
            return [each.value for each in branches]
        return [
            StepResult(name, each.value, each.error, place in verdict.used)
            if each.is_over and each.arrival <= verdict.arrival
            else StepResult(name, None, None, False)
            for place, (name, each) in enumerate(zip(ids, branches, strict=True))
        ]

    def _timer(self, id: str, seconds: Any) -> _Asked | None:
        if seconds is None:
            return None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
            raise InvalidInput(f"deadline_s must be seconds above 0, got {brief(seconds)}.")
        timer = Call(key=f"{id}:deadline", kind=CallKind.TIMER, until=self.now + timedelta(seconds=seconds))
        return self._given(timer)


def _copied(value: Any) -> Any:
    """Return a copy of JSON: the function may change it, and the next turn reads it again."""
    if type(value) is list:
        return [_copied(each) for each in value]
    return {key: _copied(each) for key, each in value.items()} if type(value) is dict else value


def join_of(join: Any, branches: int) -> Join:
    """Return a join by its word. Raises InvalidInput."""
    found = _WORDS.get(join) if type(join) is str else join
    if type(found) is not Join:
        raise InvalidInput(
            f"join must be one of 'all', 'first', 'best_effort' and quorum(n), got {brief(join)}."
        )
    if found.kind == "quorum" and found.n > branches:
        raise InvalidInput(
            f"{found.n} of {branches} branches can't succeed: quorum(n) takes at most the number of branches."
        )
    return found
