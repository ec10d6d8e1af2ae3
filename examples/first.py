"""The README's agent, as a program. Servers and workers in one shell, this file in another:

    AGNO_IMPORTS=examples.first agno-workers up
    agno-workers run writer "What is a lease?"

It is a program, too, which finds the servers of `up`: `python -m examples.first`.
"""

from agno_workers import Agent, Effect, tool


@tool(effect=Effect.PURE)
def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


writer = Agent(
    name="writer",
    instructions="Answer in one sentence.",
    tools=[word_count],
    model="scripted:echo",  # repeats its input; with a key: "openai:…", "anthropic:…"; your own server: "local:…"
)

if __name__ == "__main__":
    run = writer.delay("What is a barrier?")  # in Postgres when this returns
    print(run.get(timeout=60))
