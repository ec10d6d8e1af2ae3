"""Memory with real workers: what was answered is learned once, whatever dies; and the commands with which a user controls it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from agno_workers import Client
from agno_workers.core.run import RunStatus
from tests import invariants
from tests.acceptance.terminal import Type, Typed
from tests.conftest import StartWorker

QUEUES = "agents,tools,background"
WORKER = {
    "queues": QUEUES,
    "AGNO_IMPORTS": "tests.acceptance.memory_agents",
    "AGNO_RUNS__LEASE_S": "1.5",
    "AGNO_RUNS__RENEW_EVERY_S": "0.5",
}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"AGNO_IMPORTS": "tests.acceptance.memory_agents"}


def tell(client: Client, *texts: str) -> None:
    for text in texts:
        run = client.runs.submit("rememberer", text, user_id="ann")
        assert run.wait(timeout=30).status is RunStatus.DONE


def learned(client: Client) -> list[str | None]:
    return [each.text for each in client.memories.list("ann")]


def test_answer_is_learned_once_though_workers_die_before_and_after_the_model_is_asked(
    client: Client, start_worker: StartWorker, database_url: str
) -> None:
    first = start_worker(**WORKER, AGNO_CRASH_AT="turn.recorded")
    tell(client, "Ann likes tea.")  # its worker dies when the answer is stored, and nothing is learned
    first.process.wait(timeout=30)
    assert learned(client) == []
    second = start_worker(**WORKER, AGNO_CRASH_AT="background.worked")
    second.process.wait(timeout=30)
    assert learned(client) == []
    start_worker(**WORKER)
    invariants.until(lambda: learned(client))
    tell(client, "ann likes tea")
    invariants.until(lambda: not client.runs.list(open=True, background=True))
    assert learned(client) == ["Ann likes tea."]
    assert len(client.memories.history(client.memories.list("ann")[0].id)) == 1

    books = [f"Ann has read book {number}." for number in range(200)]
    client.batches.submit("rememberer", [*books, *books], user_id="ann").wait(timeout=60)
    invariants.until(lambda: not client.runs.list(open=True, background=True), timeout_s=60)
    assert sorted(map(str, learned(client))) == sorted([*books, "Ann likes tea."])
    invariants.hold(database_url)


def test_user_controls_memories_with_commands(type_: Type, client: Client, start_worker: StartWorker) -> None:
    start_worker(**WORKER)
    tell(client, "Ann likes tea.", "Ann likes bread.")
    invariants.until(lambda: len(learned(client)) == 2)
    assert client.runs.submit("rememberer", "How many?", user_id="ann").result(timeout=30) == "2 memories"
    invariants.until(lambda: len(learned(client)) == 3)

    def memory(*arguments: str, **changed: str) -> Typed:
        typed = type_("memory", *arguments, **changed)
        assert typed.status == 0, typed.err
        return typed

    listed: list[dict[str, Any]] = memory("ls", "--user", "ann", "--json").json
    ids = {each["text"]: each["id"] for each in listed}
    tea, bread, question = (ids[text] for text in ("Ann likes tea.", "Ann likes bread.", "How many?"))
    table = memory("ls", "--user", "ann", COLUMNS="80").out
    assert all(len(line) <= 80 for line in table.splitlines())
    assert tea[-8:] in table
    shown = memory("show", tea[-8:], "--user", "ann").out
    assert re.search(r"of user ann; version 1; .*; recalled by \d runs?; from run [0-9a-f-]{36}\n", shown)
    run_id = next(
        each.id
        for each in client.runs.list(user_id="ann", agent="rememberer")
        if each.content == "2 memories"
    )
    assert "Ann likes tea.  fact" in type_("runs", "show", run_id).out
    assert len(type_("runs", "show", run_id, "--json").json["memories"]) == 2

    assert (
        f"Memory {tea} is at version 2." in memory("edit", tea, "Ann likes black tea.", "--by", "support").out
    )
    assert "Ann likes black tea." in memory("history", tea).out
    assert "support" in memory("history", tea).out
    assert memory("undo", tea).out == f"The last change of memory {tea} is undone: Ann likes tea.\n"
    assert "is not recalled any more" in memory("forget", question[-8:], "--user", "ann").out
    assert "forgotten" in memory("ls", "--user", "ann", "--all").out
    assert "nobody can answer" in type_("memory", "redact", question).err
    assert "is gone" in memory("redact", question, "--yes").out
    assert "How many?" not in memory("export", "--user", "ann").out

    proposed = memory("consolidate", "--user", "ann").out
    assert "+ Ann likes tea and bread." in proposed
    assert sorted(map(str, learned(client))) == ["Ann likes bread.", "Ann likes tea."]
    run = proposed.split("--apply ")[1].split("`")[0]
    assert "Applied." in memory("consolidate", "--apply", run).out
    assert learned(client) == ["Ann likes tea and bread."]
    assert "have changed since" in type_("memory", "consolidate", "--apply", run).err
    assert json.loads(memory("consolidate", "--user", "ann", "--json").out)["changes"] == []
    assert "is closed" in type_("memory", "edit", bread, "x").err
    assert "was closed before; nothing changed" in memory("forget", bread).out
    client.memories.delete_all("ann")
    client.consent("ann").deny("memory")
    assert memory("ls", "--user", "ann").out.startswith("No memories. ann has switched memory off")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ls",), "whose memories? Name the owner: --user USER"),
        (("export", "--scope", "agent"), "--owner NAME"),
        (("ls", "--user", "ann", "--scope", "agent"), "use either it, or scope and owner"),
        (("ls", "--user", "ann", "--kind", "fcat"), "no kind 'fcat'. Did you mean 'fact'?"),
        (("ls", "--user", "ann", "--at", "yesterday"), "--at 'yesterday' is not a time"),
        (("show", "12345678"), "add --user USER"),
        (("show", "12", "--user", "ann"), "is too short"),
        (
            ("show", "12345678", "--user", "ann"),
            "no memory of ann has an id that begins or ends with '12345678': `agno-workers memory ls --user ann --all` lists them",
        ),
        (
            ("show", "00000000-0000-0000-0000-000000000000"),
            "no memory '00000000-0000-0000-0000-000000000000' in this database",
        ),
        (("consolidate", "--user", "ann"), "no agent has run for user:ann"),
        (
            ("consolidate", "--apply", "00000000-0000-0000-0000-000000000000"),
            "is not a consolidation of memories",
        ),
    ],
)
def test_wrong_command_gets_one_clear_sentence(arguments: tuple[str, ...], said: str, type_: Type) -> None:
    typed = type_("memory", *arguments)
    assert (typed.status, typed.out) == (2, "")
    assert said in typed.err
    assert len(typed.err.splitlines()) == 1
