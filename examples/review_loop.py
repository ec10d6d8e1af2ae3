"""Quality control: two writers submit, a reviewer sends back what does not meet the criteria, and the supervisor decides.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.review_loop agno-workers up
    eval "$(agno-workers env)" && python -m examples.review_loop

Only the models are scripts; with a key, use "openai:…" in their places.
"""

import json
import re

from agno_workers import Agent, Team
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.teams import supervise

MOST_WORDS = 8


def write_at_length(request: ModelRequest) -> Turn:
    """Write too much, until somebody wants it shorter."""
    if "shorter" in request.messages[-1].text:
        return Turn(text="A lease ends by itself.")
    return Turn(text="A lease is a right that somebody is given for a time, after which it ends by itself.")


def write_nonsense(_: ModelRequest) -> Turn:
    """Write something else, whatever anybody wants."""
    return Turn(text="Lorem ipsum.")


def review(request: ModelRequest) -> Turn:
    """Judge a submission, as JSON of the schema that a reviewer has."""
    work = request.messages[-1].text.partition("## Work so far")[2].partition("## Requirements")[0]
    words = len(re.findall(r"\w+", work.partition("\n### ")[2].partition("\n")[2]))
    if "lease" not in work:
        verdict = {"verdict": "reject", "feedback": "This is not about leases."}
    elif words > MOST_WORDS:
        verdict = {"verdict": "revise", "feedback": f"{words} words: make it shorter."}
    else:
        verdict = {"verdict": "approve", "feedback": "Clear and short."}
    return Turn(text=json.dumps(verdict))


def decide(request: ModelRequest) -> Turn:
    """Take what was approved, as the model of a supervisor would."""
    text = request.messages[-1].text
    approved = re.search(r"The reviewer approved it.*?\n\n(.*?)\n", text, re.DOTALL)
    return Turn(text=approved[1] if approved else "Nothing was good enough.")


press = Team(
    name="press",
    members=[
        Agent(name="wordy", model=Scripted("wordy", write_at_length)),
        Agent(name="lost", model=Scripted("lost", write_nonsense)),
    ],
    mode=supervise(
        criteria=["It is about leases.", f"It has at most {MOST_WORDS} words."],
        reviewer=Scripted("reviewer", review),
        rounds=3,
    ),
    leader=Scripted("supervisor", decide),
)

if __name__ == "__main__":
    run = press.delay("Explain leases.")
    print(run.get(timeout=60))
    for each in run.handle.record["verdicts"]:
        print(f"  ({each['who']}, round {each['round']}: {each['verdict']}, {each['feedback']})")
