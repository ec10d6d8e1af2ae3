"""The demo's agents. Its workers import this module; DEMO_MODEL and DEMO_FOLDER say what they work with.

`analyst` reads one document, `editor` what all analysts wrote, `researcher` calls eight tools side by side. Who calls
the tools is a script: a small local model can't, and the demo should show the same each time.
"""

from __future__ import annotations

import os
import re

from agno_workers import Agent
from agno_workers.core.messages import ModelRequest, ModelSettings, ToolResult
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.tools.files import FileTools

MODEL = os.environ.get("DEMO_MODEL") or "scripted:demo"
FOLDER = os.environ.get("DEMO_FOLDER")


def _write(request: ModelRequest) -> Turn:
    """Scripted writing: counts and quotes, so that each answer is about its own document."""
    text = request.messages[-1].text
    first = next((line.strip("#*> ") for line in text.splitlines() if len(line.split()) > 3), text[:80])
    return Turn(
        text=f"{len(text.split())} words in {len(text.splitlines())} line(s). It begins: {first[:100]}"
    )


def _research(request: ModelRequest) -> Turn:
    """Scripted research: the first turn calls eight tools on the files that the input lists, the second reports."""
    names = request.messages[0].text.splitlines()[1:]
    results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    if not results:
        return Turn(text="I look at the files from eight sides at once.", calls=_eight_calls(names))
    return Turn(text="\n".join(f"- {result.name}: {_short(result.content)}" for result in results))


def _eight_calls(names: list[str]) -> tuple[tuple[str, dict[str, str]], ...]:
    """Eight tools, the files in turn."""
    about_a_file = [
        "word_count",
        "headings",
        "longest_line",
        "count_code_blocks",
        "most_common_words",
        "links",
    ]
    each = [(tool, {"path": names[place % len(names)]}) for place, tool in enumerate(about_a_file)]
    return (("list_files", {}), ("search_text", {"query": "the"}), *each)


def _short(text: str) -> str:
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= 90 else f"{line[:89]}…"


def _settings(max_output_tokens: int) -> ModelSettings:
    """A toy needs a short leash: it would repeat itself until its window is full. Real models get their defaults."""
    if not MODEL.startswith("local:"):
        return ModelSettings()
    return ModelSettings(temperature=0.2, max_output_tokens=max_output_tokens, extra={"repeat_penalty": 1.2})


Scripted("demo", _write)

analyst = Agent(
    name="analyst",
    model=MODEL,
    instructions="Provide a concise, objective summary of the input text in up to two sentences, focusing on key facts.",
    settings=_settings(max_output_tokens=50),
)
editor = Agent(
    name="editor",
    model=MODEL,
    instructions="Provide a concise, objective summary of the input text, which holds notes on several documents, in one short paragraph.",
    settings=_settings(max_output_tokens=80),
)
researcher = Agent(
    name="researcher",
    model=Scripted("demo-researcher", _research),
    tools=[FileTools(FOLDER)] if FOLDER else [],
)
