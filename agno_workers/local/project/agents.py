"""Your agents. AGNO_IMPORTS=agents tells workers and commands to find them here."""

from agno_workers import Agent, tool


@tool(effect="pure")
def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


writer = Agent(
    name="writer",
    model="scripted:echo",  # repeats its input; with a key: "openai:…" or "anthropic:…"
    instructions="Answer in one sentence.",
    tools=[word_count],
)
