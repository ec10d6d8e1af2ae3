"""A research team: a leader splits a question, two researchers work side by side, and the leader answers from what they found.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.research_team agno-workers up
    eval "$(agno-workers env)" && python -m examples.research_team

Only the models are scripts; with a key, use "openai:…" in their places.
"""

from agno_workers import Agent, Effect, Team, tool
from agno_workers.core.messages import ModelRequest, ToolResult
from agno_workers.models.scripted import Scripted, Turn

ARCHIVE = {
    "leases in law": "A lease is a right for a time: Roman law knew it as locatio conductio.",
    "leases in software": "A lease expires by itself, so a process that dies blocks nobody (Gray and Cheriton, 1989).",
}
"""The internet of this example."""


@tool(effect=Effect.PURE)
def search(topic: str) -> str:
    """Search the archive."""
    return ARCHIVE[topic]


def results(request: ModelRequest) -> list[str]:
    """Return the results of the calls that the model has made so far."""
    return [part.content for each in request.messages for part in each.parts if isinstance(part, ToolResult)]


def research(request: ModelRequest) -> Turn:
    """Search for the task, and answer with what was found, as a researcher's model would."""
    if found := results(request):
        return Turn(text=found[0])
    (topic,) = [topic for topic in ARCHIVE if topic in request.messages[0].text]
    return Turn(calls=(("search", {"topic": topic}),))


def lead(request: ModelRequest) -> Turn:
    """Split the question, and make one answer of both findings, as the leader's model would."""
    if found := results(request):
        return Turn(text=f"Two things have one name. {' '.join(found)}")
    return Turn(
        calls=(
            ("historian", {"task": "Find out about leases in law"}),
            ("engineer", {"task": "Find out about leases in software"}),
        )
    )


historian = Agent(
    name="historian", model=Scripted("historian", research), tools=[search], description="Knows the past."
)
engineer = Agent(
    name="engineer", model=Scripted("engineer", research), tools=[search], description="Knows machines."
)
research_team = Team(
    name="research_team",
    members=[historian, engineer],
    leader=Scripted("research_lead", lead),
    instructions="Ask those who know, side by side. Answer in three sentences.",
)

if __name__ == "__main__":
    run = research_team.delay("What is a lease?")  # in Postgres when this returns
    print(run.get(timeout=60))
    for step in run.handle.steps:  # the same as `agno-workers runs show ID`
        if step.child_run_id is not None:
            print(f"  ({step.name} worked in a run of its own: {step.status})")
