"""An assistant that remembers: Ann tells it a fact on Monday, and asks on Wednesday, in another session.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.assistant agno-workers up
    eval "$(agno-workers env)" && python -m examples.assistant

Nobody waits for days here: a day is a session with an id of its own, and the name of the day comes with each message. Sessions, history,
memory, state and context are those of any other program. Only the model is a script; with a key, use "openai:…" in its place.
"""

import json
import os
import re
from uuid import uuid4

from agno_workers import (
    Agent,
    Client,
    Context,
    Effect,
    History,
    Memory,
    RunContext,
    RunHandle,
    ToolContext,
    tool,
)
from agno_workers.core.messages import ModelRequest, ToolResult
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.types import Event, IfBusy

# The agent.


@tool(effect=Effect.IDEMPOTENT)
def add_to_list(item: str, ctx: ToolContext) -> str:
    """Put something on the shopping list."""
    ctx.state_of("user").union("shopping", [item])  # state: written with the tool's result, or not at all
    return f"{item.capitalize()} is on your list."


@tool(effect=Effect.IDEMPOTENT, requires_confirmation=True)
def order(ctx: ToolContext) -> str:
    """Order what is on the shopping list."""
    shopping = ctx.state_of("user")
    ordered = shopping.get("shopping", [])
    shopping.delete("shopping")
    return f"Ordered: {', '.join(ordered)}."


def today(ctx: RunContext) -> str:
    """Return the day, as a clock would."""
    return str(ctx.metadata["day"])


def answer(request: ModelRequest) -> Turn:
    """Answer as a model would that reads its history, memories, context and tool results."""
    if request.output:
        return learn(request)
    match request.messages[-1].text:
        case "I am allergic to nuts. Put bread on my list.":
            return Turn(calls=(("add_to_list", {"item": "bread"}),))
        case "What did I ask for?":
            asked = [each.text for each in request.messages if each.role == "user" and each.from_history]
            return Turn(text=f"You said: {' '.join(asked)}")
        case "Suggest a snack.":
            knows = "allergic to nuts" in request.system
            day = "Wednesday" if "Wednesday" in request.system else "some day"
            return Turn(text=f"It is {day}: {'olives, since nuts are not for you' if knows else 'nuts'}.")
        case "Order my list.":
            return Turn(calls=(("order", {}),))
        case "And put melon on the next one.":
            return Turn(calls=(("add_to_list", {"item": "melon"}),))
        case _:  # the result of its call
            results = [each for each in request.messages[-1].parts if isinstance(each, ToolResult)]
            return Turn(text=results[0].content)


def learn(request: ModelRequest) -> Turn:
    """Reply to the background run that asks what is worth remembering: the JSON of its schema."""
    facts = re.findall(r"Exchange (\d+), .*\nUser: I am (allergic to \w+)", request.messages[0].text)
    memories = [
        {"exchange": int(number), "text": f"Ann is {fact}.", "kind": "health", "confidence": 1, "action": "add", "id": None}
        for number, fact in facts
    ]  # fmt: skip
    return Turn(text=json.dumps({"memories": memories}))


assistant = Agent(
    name="assistant",
    model=Scripted("assistant", answer),
    instructions="Help with the shopping.",
    tools=[add_to_list, order],
    history=History(search_past_sessions=0),  # of one session: what Wednesday knows is memory
    memory=Memory(),  # learned in the background, after the answer
    context=Context({"today": today}),
)

# Ann, who talks with it.


class Ann:
    """A user, new with each start of this program, so that it remembers nothing of an earlier one."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = f"ann-{uuid4().hex[:8]}"

    def says(self, day: str, text: str, if_busy: IfBusy = "queue") -> RunHandle:
        """Submit a message to the session of a day."""
        session_id = f"{day}-{self.id}"
        return self.client.runs.submit(
            "assistant", text, session_id=session_id, user_id=self.id, if_busy=if_busy, metadata={"day": day}
        )

    def asks(self, day: str, text: str) -> RunHandle:
        """Submit a message, wait for the answer, and print both."""
        run = self.says(day, text)
        self.prints(text, run.result(timeout=60))
        return run

    def prints(self, text: str, answer: str) -> None:
        print(f"  Ann: {text}\n  Assistant: {answer}")

    def waits_for_learning(self) -> None:
        """Wait for the background runs; a real user does not wait for them, and has left by now."""
        while left := self.client.runs.list(agent="assistant", open=True, background=True):
            for run in left:
                self.client.runs.get(run.id).wait(timeout=60)


def talk(client: Client) -> None:
    ann = Ann(client)
    print("A day is a session here: nobody waits until Wednesday.\n\nMonday, a first session.")
    ann.asks("Monday", "I am allergic to nuts. Put bread on my list.")
    run = ann.asks("Monday", "What did I ask for?")
    print(f"  (history: the model saw {len(run.history)} messages of the run before)")
    ann.waits_for_learning()
    print(f"  (learned after the answer: {[each.text for each in client.memories.list(ann.id)]})")

    print("\nWednesday, another session: its history is empty, and the memory is there.")
    run = ann.asks("Wednesday", "Suggest a snack.")
    print(f"  (recalled: {[each.text for each in run.memories]}; context: {run.context})")

    print("\nAn order needs her approval. Before it, one more message joins the live run.")
    run = ann.says("Wednesday", "Order my list.")
    for event in run.events(timeout=60):
        if isinstance(event, Event) and event.event == "ToolCallWaiting":
            break
    more = ann.says("Wednesday", "And put melon on the next one.", if_busy="steer")
    for requirement in run.requirements:
        requirement.approve(by="ann")
    ann.prints("Order my list. … And put melon on the next one.", run.result(timeout=60))
    if more.steered:
        print(f"  (the message is {more.steered.receipt().status}: one run read both)")
    print(f"  (state of the user: {client.state('user', ann.id).all()})")
    changes = reversed(client.state("user", ann.id).history("shopping"))
    print(f"  (its changes: {[(each.operation, each.value) for each in changes]})")


if __name__ == "__main__":
    with Client(os.environ["AGNO_DATABASE_URL"]) as client:
        talk(client)
