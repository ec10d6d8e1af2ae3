"""The README's twelve lines. In one shell the servers and workers, in another this file:

    AGNO_IMPORTS=examples.first ./run up
    ./run agno-workers run editor "Agents are durable when their steps are rows."

With MODEL=openai:gpt-5-mini (and a key) in the first shell a model answers; without, an echo does.
"""

import os

from agno_workers import Agent, tool


@tool
def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


editor = Agent(
    name="editor",
    model=os.environ.get("MODEL", "scripted:echo"),
    instructions="Improve the text. Count its words before and after.",
    tools=[word_count],
)

if __name__ == "__main__":
    run = editor.delay("Agents are durable when their steps are rows.")  # kept: it is in Postgres now
    print(run.get(timeout=60))
