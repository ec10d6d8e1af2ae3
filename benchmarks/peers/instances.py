"""Builds agents, ours or agno's, and prints what that costs as JSON: `python instances.py ours|agno COUNT`.

A program of its own that needs nothing of ours, because agno is measured by the Python of another environment.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

KINDS = {"plain": "an agent with instructions", "tool": "an agent with instructions and a tool"}
INSTRUCTIONS = "Be concise, reply with one sentence."
_KEPT = 1000


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"It is sunny in {city}."


def main() -> None:
    make = {"ours": ours, "agno": agno}[sys.argv[1]]()
    count = int(sys.argv[2])
    print(
        json.dumps(
            {kind: {"build_s": build_s(make[kind], count), "bytes": size(make[kind])} for kind in KINDS}
        )
    )


def ours() -> dict[str, Callable[[], Any]]:
    from agno_workers import Agent  # noqa: PLC0415 - only one of the two is there

    tools = [get_weather]
    return {
        "plain": lambda: Agent(name="short", model="openai:gpt-5", instructions=INSTRUCTIONS),
        "tool": lambda: Agent(name="short", model="openai:gpt-5", instructions=INSTRUCTIONS, tools=tools),
    }


def agno() -> dict[str, Callable[[], Any]]:
    """Return the ways to build agno's Agent, which agno's own benchmark also measures: without a model, the smallest that it can be."""
    from agno.agent import Agent  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    tools = [get_weather]
    return {
        "plain": lambda: Agent(name="short", system_message=INSTRUCTIONS),
        "tool": lambda: Agent(name="short", system_message=INSTRUCTIONS, tools=tools),
    }


def build_s(make: Callable[[], Any], count: int) -> float:
    """Seconds for one, with the last one thrown away."""
    for _ in range(100):
        make()
    began = time.perf_counter()
    for _ in range(count):
        make()
    return (time.perf_counter() - began) / count


def size(make: Callable[[], Any]) -> float:
    """Bytes that one holds while it is kept."""
    kept: list[Any] = [None] * _KEPT
    make()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for place in range(_KEPT):
        kept[place] = make()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / len(kept)


if __name__ == "__main__":
    main()
