"""A run does not fail because it is long: large results are stored, the oldest messages are summarized, and a refusal leads to both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from agno_workers.core.agent import Agent, Compaction, History, Limits, Prices
from agno_workers.core.messages import ModelRequest, StopReason, ToolResult, stored_results
from agno_workers.core.policy import Retry
from agno_workers.core.run import Run, RunStatus, StepKind, StepStatus
from agno_workers.core.step import CommitResult
from agno_workers.core.tokens import estimate_request
from agno_workers.core.tool import ToolContext
from agno_workers.engine.turn import Engine
from agno_workers.errors import InvalidInput, ModelRejected, ModelUnavailable, Unavailable
from agno_workers.models import resolve
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.tools import tool
from tests import invariants
from tests.fakes.provider import Provider, running
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

WINDOW = 8_000
REPORT = "\n".join(f"line {number}: the value of item {number} is {number * 7}" for number in range(1, 2_001))
TOO_LONG = ModelRejected(
    "The transcript is longer than the context window of scripted:m.", provider="scripted", model="m", code="context_window"
)  # fmt: skip
names = count()


@tool
def report(lines: int = 2_000) -> str:
    """Return the report."""
    return "\n".join(REPORT.split("\n")[:lines])


@tool(effect="transactional")
def report_in_transaction(ctx: ToolContext) -> str:
    """Return the report."""
    return REPORT


@tool(external_execution=True)
def survey() -> str:
    """Make a survey."""
    raise AssertionError("somebody outside does this")


def reading(turns: int) -> Turn:
    return Turn(calls=(("report", {"lines": turns}),))


class Reader:
    """A model that calls `report` until it was called `turns` times, and summarizes. It refuses a request of more than `window` tokens."""

    def __init__(
        self, turns: int, *, lines: int = 20, window: int = WINDOW, refusal: Turn | None = None
    ) -> None:
        self.asked: list[ModelRequest] = []
        self.summaries: list[ModelRequest] = []
        self.refused = 0
        self.summarize: Callable[[], Turn] = lambda: Turn(text=f"{self.calls} reports were read.")
        self.calls = 0
        self._turns, self._lines, self._window = turns, lines, window
        self._refusal = refusal or Turn(error=TOO_LONG)
        self.model = Scripted(f"reader_{next(names)}", self._next)

    def _next(self, request: ModelRequest) -> Turn:
        if request.system.startswith("You summarize"):
            self.summaries.append(request)
            return self.summarize()
        if estimate_request(request) > self._window:
            self.refused += 1
            return self._refusal
        self.asked.append(request)
        self.calls += 1
        if self.calls > self._turns:
            return Turn(text="all read")
        return Turn(calls=(("report", {"lines": self._lines}),))


def agent_of(reader: Reader, **options: Any) -> Agent:
    fields = {
        "limits": Limits(turns=1_000, tool_calls=1_000),
        "retry": Retry(attempts=2),
        "compaction": Compaction(window_tokens=WINDOW),
    }
    return Agent(name="a", model=reader.model, tools=[report], **fields | options)


def compactions(scenario: Scenario, run: Run) -> list[dict[str, Any]]:
    return scenario.db.sql(
        "SELECT * FROM agno.compaction WHERE run_id = %(id)s ORDER BY until_seq", id=run.id
    )


# Large results.


def test_large_result_is_stored_and_can_be_read_and_searched(scenario: Scenario) -> None:
    preview: list[str] = []

    def answer(request: ModelRequest) -> Turn:
        results = [
            part for message in request.messages for part in message.parts if isinstance(part, ToolResult)
        ]
        offered.append({spec.name for spec in request.tools})
        if len(results) < 1:
            return Turn(calls=(("report", {}),))
        preview[:] = stored_results(request.messages[2])
        if len(results) < 3:
            return Turn(
                calls=(
                    ("read_result", {"id": preview[0], "from_line": 999, "lines": 2}),
                    ("search_result", {"id": preview[0], "query": "ITEM 1997"}),
                )
            )
        return Turn(text="ok")

    offered: list[set[str]] = []
    agent = Agent(
        name="a",
        model=Scripted(f"reads_{next(names)}", answer),
        tools=[report],
        compaction=Compaction(offload_tokens=100),
    )
    run = scenario.run(agent)
    shown, read, found = scenario.results(run.id)
    assert offered[0] == {"report"}
    assert offered[1] == {"report", "read_result", "search_result"}
    assert len(shown) < 4_000
    assert shown.startswith(f"[Result {preview[0]}: about ")
    assert "line 1: " in shown
    assert "line 2000: " in shown
    assert scenario.handle(run.id).result_text(preview[0]) == REPORT
    lines = REPORT.split("\n")
    assert read == f"[Lines 999 to 1000 of 2000. Go on with from_line=1001.]\n{lines[998]}\n{lines[999]}"
    assert found == f"[1 of 2000 lines have these words.]\n1997: {lines[1996]}"
    with pytest.raises(InvalidInput, match="no stored result 'r00000000'"):
        scenario.handle(run.id).result_text("r00000000")


def test_large_results_of_every_kind_of_call_are_stored(scenario: Scenario) -> None:
    member = Agent(name="member", model=ScriptedReplies(Turn(text=REPORT)).model)
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("report_in_transaction", {}),
        ("survey", {}),
        ("member", {"task": "report"}),
    )
    boss = Agent(
        name="boss", model=ScriptedReplies(Turn(calls=calls), Turn(text="ok")).model,
        tools=[report_in_transaction, survey, member],
    )  # fmt: skip
    engine = scenario.engine(boss, member)
    step = scenario.submit("boss")
    execute_run(engine, step)
    (child,) = scenario.db.sql("SELECT id FROM agno.run WHERE parent_run_id IS NOT NULL")
    scenario.execute_pending(engine, child["id"])
    (requirement,) = scenario.handle(step.run_id).requirements
    requirement.complete(REPORT)
    run = scenario.execute_pending(engine, step.run_id)
    assert run.status is RunStatus.DONE
    stored = scenario.db.sql(
        "SELECT id, content FROM agno.stored_result WHERE run_id = %(id)s ORDER BY seq", id=run.id
    )
    assert [row["content"] for row in stored] == [REPORT] * 3
    assert [result[:18] for result in scenario.results(run.id)] == [f"[Result {row['id']}:" for row in stored]


def test_limit_of_earlier_code_is_read_before_the_call(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the result would be lost while Postgres does not answer: that of a `once` tool for ever."""
    called = []

    @tool(effect="once")
    def pay() -> str:
        """Pay."""
        called.append(True)
        return "paid"

    agent = Agent(name="a", model=ScriptedReplies(Turn(calls=(("pay", {}),))).model, tools=[pay])
    (call,) = execute_step(scenario.engine(agent), scenario.submit("a")).sends
    engine = scenario.engine(replace(agent, instructions="Be brief."))

    def unavailable(_: str) -> None:
        raise Unavailable("Postgres does not answer")

    monkeypatch.setattr(engine.journal, "definition", unavailable)
    with pytest.raises(Unavailable):
        execute_step(engine, call)
    assert called == []


def test_large_result_stays_whole_without_a_limit(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("report", {}),)), Turn(text="ok"))
    run = scenario.run(
        Agent(name="a", model=replies.model, tools=[report], compaction=Compaction(offload_tokens=None))
    )
    assert scenario.results(run.id) == [REPORT]


@pytest.mark.parametrize(
    ("changed", "is_found"), [({}, True), ({"session_id": "t", "user_id": "eve"}, False), ({"session_id": "t"}, False), ({"session_id": None}, False)]
)  # fmt: skip
def test_stored_result_is_read_by_the_session_and_the_user_of_its_run_only(
    scenario: Scenario, changed: dict[str, Any], is_found: bool
) -> None:
    mine = {"session_id": "s", "user_id": "ann"}
    replies = ScriptedReplies(Turn(calls=(("report", {}),)), Turn(text="ok"))
    first = scenario.run(Agent(name="a", model=replies.model, tools=[report]), **mine)
    (result_id,) = stored_results(scenario.transcript(first)[2])
    later = ScriptedReplies(Turn(calls=(("read_result", {"id": result_id, "lines": 1}),)), Turn(text="ok"))
    run = scenario.run(Agent(name="a", model=later.model, tools=[report]), **mine | changed)
    assert ("line 1: " in scenario.results(run.id)[0]) == is_found


def test_history_with_a_preview_offers_to_read_it(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("report", {}),)), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[report], history=History(runs=1, tools=False))
    scenario.run(agent, session_id="s")
    scenario.run(agent, session_id="s")
    assert [spec.name for spec in replies.asked[-1].tools] == ["report", "read_result", "search_result"]


def test_fork_keeps_its_stored_results_when_the_run_is_deleted(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(calls=(("report", {}),)), Turn(text="ok"))
    engine = scenario.engine(Agent(name="a", model=replies.model, tools=[report]))
    step = scenario.submit("a")
    execute_run(engine, step)
    fork = scenario.handle(step.run_id).fork("turn:2")
    (result_id,) = stored_results(fork.messages[2])
    scenario.db.sql("DELETE FROM agno.run WHERE id = %(id)s", id=step.run_id)
    assert fork.result_text(result_id) == REPORT


# Compaction.


def test_run_of_300_turns_stays_within_a_window_of_8000_tokens(scenario: Scenario) -> None:
    reader = Reader(300)
    agent = agent_of(reader, prices=Prices(1e6, 1e6))
    run = scenario.run(agent, "Read all reports.")
    assert (run.status, run.content, run.turns, run.tool_calls) == (RunStatus.DONE, "all read", 301, 300)
    assert reader.refused == 0
    assert max(map(estimate_request, reader.asked)) <= 0.8 * WINDOW
    assert {request.messages[0].text for request in reader.asked} == {"Read all reports."}
    made = compactions(scenario, run)
    assert 10 < len(made) == len(reader.summaries) < 40
    assert max(map(estimate_request, reader.summaries)) < WINDOW
    assert (
        f"[A summary of the messages 1 to {made[-1]['until_seq'] - 1} of this run"
        in reader.asked[-1].messages[1].text
    )
    assert len(scenario.transcript(run)) == 602  # the messages stay
    texts = [request.system.split() + request.messages[0].text.split() for request in reader.summaries]
    assert run.usage.input_tokens > sum(map(len, texts))
    assert run.cost_usd == run.usage.input_tokens + run.usage.output_tokens
    events = [event.event for event in scenario.queries.events(run.id)]
    assert events.count("CompactionStarted") == events.count("CompactionCompleted") == len(made)
    assert not [name for name, statement in invariants.ALWAYS.items() if scenario.pool.run(statement)]


@pytest.mark.parametrize(
    "refusal", [Turn(error=TOO_LONG), Turn(text="As far as", stop=StopReason.CONTEXT_WINDOW)]
)
def test_refusal_of_a_model_with_an_unknown_window_compacts_and_asks_again(
    scenario: Scenario, refusal: Turn
) -> None:
    reader = Reader(40, lines=60, refusal=refusal)
    run = scenario.run(agent_of(reader, compaction=Compaction()), "Read all reports.")
    assert (run.status, run.content, run.turns) == (RunStatus.DONE, "all read", 41)
    assert reader.refused == 1  # the window is known then
    assert len(compactions(scenario, run)) >= 2


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as found:
        yield found


@pytest.mark.parametrize(
    "name", ["openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude-sonnet-5", "local:llama"]
)
def test_refusal_of_each_provider_compacts_and_asks_again(
    scenario: Scenario, provider: Provider, name: str
) -> None:
    url = provider.url if name.startswith("anthropic") else provider.openai_url
    agent = Agent(name="a", model=resolve(name, api_key="sk-fake", base_url=url), tools=[report])
    run = scenario.run(agent, "window=6000\n" + "\nthen\n".join(['call report {"lines": 40}'] * 5))
    assert (run.status, run.content) == (RunStatus.DONE, "The report was read.")
    (made, *_) = compactions(scenario, run)
    assert "The report was read." in made["summary"]


def test_request_with_nothing_to_compact_fails_and_says_what_to_do(scenario: Scenario) -> None:
    run = scenario.run(agent_of(Reader(1)), "long " * 10_000)
    assert (run.status, run.reason) == (RunStatus.FAILED, "context_window")
    assert run.error is not None
    assert run.error["type"] == "ModelRejected"
    assert "Nothing in it can be compacted" in run.error["message"]


def test_results_that_are_larger_than_the_window_are_summarized_too(scenario: Scenario) -> None:
    reader = Reader(3, lines=1_500)
    run = scenario.run(agent_of(reader, compaction=Compaction(window_tokens=WINDOW, offload_tokens=None)))
    assert run.status is RunStatus.DONE
    assert reader.refused == 0
    assert max(map(estimate_request, reader.summaries)) < WINDOW


def test_new_result_is_read_before_it_is_summarized(scenario: Scenario) -> None:
    reader = Reader(12, lines=300)  # each more than `keep` of the window
    run = scenario.run(agent_of(reader), "Read all reports.")
    assert run.status is RunStatus.DONE
    assert len(compactions(scenario, run)) > 2
    assert [request.messages[-1].role for request in reader.asked] == ["user", *["tool"] * 12]


@pytest.mark.parametrize("summary", ["", "long " * 20_000])
def test_run_whose_model_cannot_summarize_goes_on_with_its_messages_shortened(
    scenario: Scenario, summary: str
) -> None:
    reader = Reader(60)
    reader.summarize = lambda: Turn(text=summary)
    run = scenario.run(agent_of(reader))
    assert (run.status, reader.refused) == (RunStatus.DONE, 0)
    assert all("each shortened" in each["summary"] for each in compactions(scenario, run))


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (Turn(error=ModelUnavailable("it is down", provider="scripted", model="m")), "it is down"),
        (Turn(error=ModelRejected("it is forbidden", provider="scripted", model="m")), "it is forbidden"),
    ],
)
def test_compaction_that_fails_is_declined_and_the_turn_decides(
    scenario: Scenario, summary: Turn, reason: str
) -> None:
    reader = Reader(100)
    reader.summarize = lambda: summary
    engine = scenario.engine(agent_of(reader))
    step = scenario.submit("a")
    execute_run(engine, step)
    while ready := scenario.db.sql("SELECT id, kind FROM agno.step WHERE status = 'ready'"):
        scenario.let_time_pass()
        execute_run(engine, replace(step, step_id=ready[0]["id"], kind=StepKind(ready[0]["kind"])))
    run = scenario.queries.run(step.run_id)
    assert (run.status, run.reason) == (RunStatus.FAILED, "context_window")
    assert run.error is not None
    assert "could not be compacted" in run.error["message"]
    assert reason in run.error["message"]


def test_history_that_is_too_long_is_shortened(scenario: Scenario) -> None:
    reader = Reader(0)
    agent = agent_of(reader, history=History(runs=5, tokens=20_000))
    for number in range(3):
        assert scenario.run(agent, f"{number} " + "word " * 2_200, session_id="s").status is RunStatus.DONE
    assert scenario.run(agent, "last", session_id="s").content == "all read"
    assert [message.text[:4] for message in reader.asked[-1].messages] == [
        "1 wo",
        "all ",
        "2 wo",
        "all ",
        "last",
    ]


# What may happen meanwhile.


def waiting(scenario: Scenario, reader: Reader) -> tuple[Engine, Any, Any]:
    """Execute a run until a turn of it waits for a compaction; return the engine, the run's first step and the compaction's."""
    engine = scenario.engine(agent_of(reader))
    first = scenario.submit("a", "Read all reports.")
    todo = [first]
    while todo[0].kind is not StepKind.COMPACT:
        todo += execute_step(engine, todo.pop(0)).sends
    (compact,) = todo
    return engine, first, compact


def test_compaction_that_is_executed_twice_is_recorded_once(scenario: Scenario) -> None:
    reader = Reader(60)
    engine, first, compact = waiting(scenario, reader)
    begun: list[object] = []

    def while_another_worker_executes_it() -> Turn:
        if not begun:
            begun.append("the lease of the first execution ends")
            scenario.db.expire(compact.step_id)
            begun.append(execute_step(engine, compact))
        return Turn(text="a summary")

    reader.summarize = while_another_worker_executes_it
    assert not execute_step(engine, compact).recorded
    _, recorded = begun
    assert isinstance(recorded, CommitResult)
    execute_run(engine, recorded.sends[0])
    assert scenario.queries.run(first.run_id).status is RunStatus.DONE
    assert scenario.db.step(compact.step_id)["attempt"] == 2


def test_cancel_ends_a_turn_that_waits_for_a_compaction(scenario: Scenario) -> None:
    engine, first, compact = waiting(scenario, Reader(60))
    open_steps = {
        step.kind: step.status for step in scenario.queries.steps(first.run_id) if step.status.is_open
    }
    assert open_steps == {StepKind.TURN: StepStatus.WAITING, StepKind.COMPACT: StepStatus.READY}
    assert scenario.handle(first.run_id).cancel()
    assert not execute_step(engine, compact).recorded
    assert {step.status for step in scenario.queries.steps(first.run_id)} == {
        StepStatus.DONE,
        StepStatus.CANCELLED,
    }


def test_paused_run_is_compacted_once_it_is_resumed(scenario: Scenario) -> None:
    engine, first, compact = waiting(scenario, Reader(60))
    handle = scenario.handle(first.run_id)
    handle.pause()
    assert not execute_step(engine, compact).recorded
    handle.resume()
    assert scenario.execute_pending(engine, first.run_id).status is RunStatus.DONE


def test_fork_sees_what_its_turn_saw(scenario: Scenario) -> None:
    reader = Reader(60)
    run = scenario.run(agent_of(reader), "Read all reports.")
    (made, *_) = compactions(scenario, run)
    (compacted,) = scenario.db.sql(
        "SELECT key FROM agno.step WHERE seq = %(at_seq)s AND kind = 'turn'", **made
    )
    turn = int(compacted["key"].split(":")[1])
    again = Reader(0)
    engine = scenario.engine(agent_of(again))
    for at, known in ((turn - 1, 0), (turn, 1)):
        fork = scenario.handle(run.id).fork(f"turn:{at}")
        assert len(compactions(scenario, fork.run)) == known
        scenario.execute_pending(engine, fork.id)
    before, after = again.asked
    assert before.messages == reader.asked[turn - 2].messages
    assert after.messages == reader.asked[turn - 1].messages
    assert len(after.messages) < len(before.messages)
    with pytest.raises(
        InvalidInput, match=rf"step compact:{turn}:1 cannot be forked: choose a turn or a tool call"
    ):
        scenario.handle(run.id).fork(f"compact:{turn}:1")


def test_retry_of_a_run_goes_on_from_its_summary(scenario: Scenario) -> None:
    reader = Reader(60)
    engine = scenario.engine(agent_of(reader))
    step = scenario.submit("a", "Read all reports.")
    answers = reader._next

    def fails_once(request: ModelRequest) -> Turn:
        if len(reader.asked) == 50 and not failed:
            failed.append(request)
            return Turn(error=ModelRejected("no", provider="scripted", model="m"))
        return answers(request)

    failed: list[ModelRequest] = []
    reader.model._turns = fails_once
    execute_run(engine, step)
    assert scenario.queries.run(step.run_id).status is RunStatus.FAILED
    assert scenario.handle(step.run_id).retry()
    assert scenario.execute_pending(engine, step.run_id).status is RunStatus.DONE
    assert reader.asked[50].messages == failed[0].messages
    assert re.search(r"\[A summary of the messages 1 to \d+ of this run", failed[0].messages[1].text)
