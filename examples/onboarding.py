"""Onboarding of a customer: two checks side by side, an approval by a person where the risk is high, a pause, and a welcome.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.onboarding agno-workers up
    eval "$(agno-workers env)" && python -m examples.onboarding

Workers may die at any line: a step that is done is not executed again. The pause is a second here; a week would be the same row in Postgres,
and would occupy no worker.
"""

import time

from agno_workers import Agent, Flow, StepFailed, workflow
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn


def read_profile(customer: str) -> dict[str, str]:
    """Return what a database would know of a customer."""
    return {"name": customer, "country": "Atlantis" if "Nemo" in customer else "Portugal"}


def assess_risk(profile: dict[str, str]) -> int:
    """Return a risk from 0 to 10."""
    return 7 if profile["country"] == "Atlantis" else 1


def collect_documents(profile: dict[str, str]) -> list[str]:
    """Return the documents that a customer has to sign."""
    return [f"contract for {profile['name']}", "terms"]


def greet(request: ModelRequest) -> Turn:
    """Write as the model of the welcome would."""
    return Turn(text=f"Welcome! {request.messages[-1].text}")


welcomer = Agent(name="welcomer", model=Scripted("welcomer", greet), instructions="Welcome a new customer.")


@workflow
def onboard(flow: Flow, customer: str) -> str:
    """Each step has an id, by which a later turn finds its result."""
    profile = flow.step("profile", read_profile, customer)
    risk, documents = flow.gather(
        flow.step("risk", assess_risk, profile), flow.step("documents", collect_documents, profile)
    )
    if risk > 3:
        try:
            flow.approve(f"Accept {customer}?", id="approval", risk=risk, country=profile["country"])
        except StepFailed as error:
            return f"{customer} was not accepted: {error}"
    flow.sleep(seconds=1)  # "after a day", in a real onboarding: hours=24
    return str(flow.step("welcome", welcomer, f"Please sign: {', '.join(documents)}."))


if __name__ == "__main__":
    easy = onboard.delay("Ana")
    print(easy.get(timeout=60))

    risky = onboard.delay("Captain Nemo")
    while not (asked := risky.handle.requirements):  # `agno-workers approvals ls` shows them, too
        time.sleep(0.1)
    print(f"A person is asked: {asked[0].tool}")
    asked[0].approve(by="olga")
    print(risky.get(timeout=60))
