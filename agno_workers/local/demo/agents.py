"""The demo's agents and its knowledge base. Its workers import this module; DEMO_* say what they work with.

`helper` answers out of the documents, `analyst` reads one of them, `editor` what all analysts wrote, `researcher` calls eight
tools side by side. Who calls the tools is a script: a small local model can't, and the demo should show the same each
time. Only `helper` is a model's, where there is one that calls tools.
"""

from __future__ import annotations

import os
import re

import msgspec

from agno_workers import Agent, Knowledge
from agno_workers.core.messages import ModelRequest, ModelSettings, ToolResult
from agno_workers.knowledge.references import Found
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.tools.files import FileTools

MODEL = os.environ.get("DEMO_MODEL") or "scripted:demo"
FOLDER = os.environ.get("DEMO_FOLDER")
docs = Knowledge(
    os.environ.get("DEMO_KNOWLEDGE") or "demo",
    description="The documents of this demo.",
    embedder=os.environ.get("DEMO_EMBEDDER") or "local",
)


def _write(request: ModelRequest) -> Turn:
    """Scripted writing: counts and quotes, so that each answer is about its own document."""
    text = request.messages[-1].text
    first = next((line.strip("#*> ") for line in text.splitlines() if len(line.split()) > 3), text[:80])
    return Turn(
        text=f"{len(text.split())} words in {len(text.splitlines())} line(s). It begins: {first[:100]}"
    )


def _help(request: ModelRequest) -> Turn:
    """Scripted help: searches for the question, and answers with the sentences of the results that have most of its words."""
    question = request.messages[0].text
    results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    if not results:
        return Turn(calls=(("search_knowledge", {"query": question}),))
    if results[-1].is_error:
        return Turn(text=results[-1].content)
    found = msgspec.json.decode(results[-1].content, type=Found)
    wanted = set(_words(question))
    sentences = [
        (-len(wanted & set(_words(sentence))), place, f"{_short(sentence.strip(), 300)} [{each.n}]")
        for place, each in enumerate(found.results[:4])
        for sentence in re.split(r"(?<=[.!?])\s+|\n{2,}", each.content)
        if 30 < len(sentence) < 400 and sentence.rstrip().endswith((".", "!"))
    ]
    sentences.sort()
    best = [text for score, _, text in sentences[:2] if score <= sentences[0][0] + 1]
    return Turn(text=" ".join(best) or found.note or f"It is said in [{found.results[0].n}].")


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if len(word) > 3]


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


def _short(text: str, chars: int = 90) -> str:
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= chars else f"{line[: chars - 1]}…"


def _settings(max_output_tokens: int) -> ModelSettings:
    """A toy needs a short leash: it would repeat itself until its window is full. Real models get their defaults."""
    if not MODEL.startswith("local:"):
        return ModelSettings()
    return ModelSettings(temperature=0.2, max_output_tokens=max_output_tokens, extra={"repeat_penalty": 1.2})


Scripted("demo", _write)
_CALLS_TOOLS = not MODEL.startswith(("local:", "scripted:"))

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
helper = Agent(
    name="helper",
    model=MODEL if _CALLS_TOOLS else Scripted("demo-helper", _help),
    instructions="Search the knowledge base, and answer out of it in one or two sentences.",
    knowledge=docs,
)
researcher = Agent(
    name="researcher",
    model=Scripted("demo-researcher", _research),
    tools=[FileTools(FOLDER)] if FOLDER else [],
)
