"""Workers that share a queue and do not know the same agents: no run fails, and none waits in silence."""

from __future__ import annotations

from agno_workers import Client
from agno_workers.core.run import RunStatus
from tests.acceptance.terminal import Type
from tests.conftest import StartWorker


def test_step_of_an_unknown_agent_waits_for_a_worker_that_knows_it(
    start_worker: StartWorker, client: Client, type_: Type
) -> None:
    ignorant = start_worker(AGNO_IMPORTS="")
    told = "".join(ignorant.lines)
    assert (
        "this worker knows no agent, so it returns the steps of its queue agents and tools: set AGNO_IMPORTS"
        in told
    )
    first = client.runs.submit("echo", "hi", allow_unknown=True)
    ignorant.wait_for("step was returned")
    shown = " ".join(type_("runs", "show", first.id).out.split())
    assert (
        "1 worker of the queue 'agents' does not know the agent 'echo': add the module that defines it to AGNO_IMPORTS"
        in shown
    )
    assert "turn:1: the model call could not begin with UnknownAgent" in shown
    found = " ".join(type_("doctor").out.split())
    assert "echo: 1 step, waiting for up to" in found
    assert "does not know the agent 'echo'" in found
    assert "knows no agent and returns all steps of agents" in found

    start_worker()  # its start sends what waited for it
    runs = [first, *(client.runs.submit("caller", 'add {"a": 1, "b": 2}') for _ in range(5))]
    for run in runs:
        assert run.wait(60).status is RunStatus.DONE
        assert {step.attempt for step in run.steps} == {1}
