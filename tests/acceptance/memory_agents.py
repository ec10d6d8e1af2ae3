"""An agent that remembers what it is told, word for word."""

from __future__ import annotations

import json
import re
from typing import Any

from agno_workers import Agent, Memory
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn


def _remembering(request: ModelRequest) -> Turn:
    said = request.messages[0].text
    match request.output and request.output.name:
        case None:
            return Turn(text=f"{request.system.count('- [')} memories")
        case "Learned":
            learned = [
                _candidate(int(number), text)
                for number, text in re.findall(r"Exchange (\d+), .*\nUser: (.*)", said)
            ]
            return Turn(text=json.dumps({"memories": learned}))
        case _:
            ids = re.findall(r"\[(\w+)\] ", said)
            merge = {"action": "merge", "ids": ids, "text": "Ann likes tea and bread.", "kind": "preference"}
            return Turn(text=json.dumps({"changes": [merge] if len(ids) > 1 else []}))


def _candidate(number: int, text: str) -> dict[str, Any]:
    return {"exchange": number, "text": text, "kind": "fact", "confidence": 1, "action": "add", "id": None}


rememberer = Agent(name="rememberer", model=Scripted("rememberer", _remembering), memory=Memory())
