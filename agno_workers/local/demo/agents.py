"""The demo's agents and its knowledge base. Its workers import this module; the DEMO_* variables configure it.

`helper` answers from the documents, `analyst` summarizes one document, `editor` summarizes the analysts' texts, and
`researcher` calls eight tools in parallel. A script calls the tools: a small local model can't, and the demo should show
the same each time. Only `helper` uses a model for that, if the model can call tools.
"""

from __future__ import annotations

import os
import re

import msgspec

from agno_workers import Agent, Knowledge
from agno_workers.core.messages import ModelRequest, ModelSettings, ToolResult
from agno_workers.knowledge.references import Found
from agno_workers.local.demo.tools import FolderTools
from agno_workers.models.scripted import Scripted, Turn

MODEL = os.environ.get("DEMO_MODEL") or "scripted:demo"
FOLDER = os.environ.get("DEMO_FOLDER")
docs = Knowledge(
    os.environ.get("DEMO_KNOWLEDGE") or "demo",
    description="The documents of this demo.",
    embedder=os.environ.get("DEMO_EMBEDDER") or "local",
)


def _write(request: ModelRequest) -> Turn:
    """Count and quote, so that each answer is about its own document."""
    text = request.messages[-1].text
    first = next((line.strip("#*> ") for line in text.splitlines() if len(line.split()) > 3), text[:80])
    return Turn(
        text=f"{len(text.split())} words in {len(text.splitlines())} line(s). It begins: {first[:100]}"
    )


def _help(request: ModelRequest) -> Turn:
    """Search for the question, then answer with the sentences that share most words with it."""
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
    return Turn(text=" ".join(best) or found.note or f"See [{found.results[0].n}].")


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if len(word) > 3]


def _research(request: ModelRequest) -> Turn:
    """Call eight tools on the files that the input lists, then report their results."""
    names = request.messages[0].text.splitlines()[1:]
    results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    if not results:
        return Turn(text="I call eight tools on the files in parallel.", calls=_eight_calls(names))
    return Turn(text="\n".join(f"- {result.name}: {_short(result.content)}" for result in results))


def _eight_calls(names: list[str]) -> tuple[tuple[str, dict[str, str]], ...]:
    """Return eight calls, each on the next file."""
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
    """Bound the words of the toy, which would repeat itself until its context is full. Real models keep their defaults."""
    if not MODEL.startswith("local:"):
        return ModelSettings()
    return ModelSettings(temperature=0.2, max_output_tokens=max_output_tokens, extra={"repeat_penalty": 1.2})


Scripted("demo", _write)
_CALLS_TOOLS = not MODEL.startswith(("local:", "scripted:"))

analyst = Agent(
    name="analyst",
    model=MODEL,
    instructions="Provide a concise, objective summary of the input text in up to two sentences, focusing on key facts.",
    settings=_settings(max_output_tokens=32),
)
editor = Agent(
    name="editor",
    model=MODEL,
    instructions="Provide a concise, objective summary of the input text, which holds notes on several documents, in one short paragraph.",
    settings=_settings(max_output_tokens=48),
)
helper = Agent(
    name="helper",
    model=MODEL if _CALLS_TOOLS else Scripted("demo-helper", _help),
    instructions="Search the knowledge base, and answer from it in one or two sentences.",
    knowledge=docs,
)
researcher = Agent(
    name="researcher",
    model=Scripted("demo-researcher", _research),
    tools=[FolderTools(FOLDER)] if FOLDER else [],
)
