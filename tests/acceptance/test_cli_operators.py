"""The commands of operators: runs that wait, answers of people, dead letters, and the doctor."""

from __future__ import annotations

import getpass
import io
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agno_workers import Client
from agno_workers.core.run import RunStatus
from tests import invariants
from tests.acceptance.terminal import Type
from tests.conftest import StartWorker, Worker
from tests.forking import inherited

NOBODY = "0198c0de-0000-7000-8000-000000000000"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Import agents whose tools wait for people."""
    return environment | {"AGNO_IMPORTS": "tests.acceptance.people_agents"}


def submitted(type_: Type, text: str, agent: str = "clerk") -> str:
    return type_("run", agent, text, "--no-wait").out.strip()


def waiting(type_: Type, run_id: str = "") -> dict[str, dict[str, Any]]:
    """Return the calls that wait for a person, by tool."""
    found = type_("runs", "waiting", "--json", *(["--run", run_id] if run_id else [])).json
    return {requirement["tool"]: requirement for requirement in found}


def asking(type_: Type, *calls: str) -> tuple[str, dict[str, str]]:
    """Submit a run whose calls all wait for people; return its id, and the ids of its steps by tool."""
    run_id = submitted(type_, "\n".join(calls))
    invariants.until(lambda: len(waiting(type_, run_id)) == len(calls))
    return run_id, {tool: requirement["step_id"] for tool, requirement in waiting(type_, run_id).items()}


def steps(type_: Type, run_id: str) -> dict[str, dict[str, Any]]:
    return {step["key"]: step for step in type_("runs", "show", run_id, "--json").json["steps"]}


def sentence(text: str) -> str:
    """Undo the wrapping of lines."""
    return " ".join(text.split())


# People in the loop.


def test_people_list_waiting_calls_and_answer_them(type_: Type, worker: Worker, client: Client) -> None:
    run_id, step = asking(
        type_, 'transfer {"amount": 5}', 'refund {"amount": 7}', 'deliver {"parcel": "' + "p" * 2000 + '"}'
    )
    listed = type_("runs", "waiting", COLUMNS="80").out
    assert "transfer waits for a person to approve or reject it" in listed
    assert "refund waits for a person to fill in iban, urgent" in listed
    assert f"agno-workers runs answer {step['refund'][-8:]} iban=… urgent=…" in listed
    assert "unless answered, it is rejected in" in listed
    assert f"agno-workers runs approve {step['transfer']}" in type_("runs", "waiting", "--wide").out
    assert len(listed) < 3000  # the parcel is not shown whole

    shown = sentence(type_("runs", "show", run_id, COLUMNS="80").out)
    assert "Tool transfer has waited " in shown
    assert f"`agno-workers runs approve {step['transfer']}`, or `runs reject`" in shown
    assert f"`agno-workers runs complete {step['deliver']} RESULT`" in shown

    assert "approved" in type_("runs", "approve", step["transfer"][-8:], "--note", "fine").out
    assert "answered" in type_("runs", "answer", step["refund"], "iban=DE 1", "urgent=true").out
    assert "completed" in type_("runs", "complete", run_id, "at the door", "--by", "ann").out
    assert client.runs.get(run_id).result(timeout=30) == "moved 5 | 7 to DE 1, urgent: True | at the door"
    assert type_("runs", "waiting").out == "No call waits for a person.\n"

    shown = type_("runs", "show", run_id).out
    assert f"transfer was answered by {getpass.getuser()}: approved: fine" in shown
    assert "(iban=DE 1, urgent=True)" in shown
    assert "deliver was answered by ann: completed" in shown


def test_approval_and_signal_continue_a_workflow(type_: Type, worker: Worker, client: Client) -> None:
    run_id = submitted(type_, "order 17", agent="fulfil")
    invariants.until(lambda: waiting(type_, run_id))
    listed = type_("runs", "waiting", COLUMNS="80").out
    assert "Ship it? waits for a person to approve or reject it" in listed
    assert 'shown: {"order":"order 17"}' in listed
    assert "Approval 'Ship it?' has waited" in sentence(type_("runs", "show", run_id, COLUMNS="80").out)
    assert "is approved" in type_("runs", "approve", run_id, "--by", "ann").out
    invariants.until(lambda: "for the signal 'paid'" in sentence(type_("runs", "show", run_id).out))

    for wrong, told in {
        ("paid", "5 euros"): "the payload is not JSON",
        (" ", "5"): "the name of a signal must be text of 1 to 200 characters",
        ("paid", "5", "--key", ""): "the key of signal 'paid' must be text of 1 to 500 characters",
    }.items():
        refused = type_("runs", "signal", run_id, *wrong)
        assert refused.status == 2
        assert told in sentence(refused.err)
    assert "no run" in type_("runs", "signal", NOBODY, "paid").err
    assert "is sent" in type_("runs", "signal", run_id, "paid", '{"eur": 5}', "--key", "k").out
    assert client.runs.get(run_id).result(timeout=30) == {"by": "ann", "paid": {"eur": 5}}
    assert "before" in type_("runs", "signal", run_id, "paid", "--key", "k").out
    assert f"run {run_id} is done and takes no signal" in sentence(
        type_("runs", "signal", run_id, "paid").err
    )


def test_long_argument_hides_no_other_and_is_approved_only_after_it_was_read(
    type_: Type, worker: Worker, client: Client
) -> None:
    run_id, step = asking(type_, 'transfer {"note": "' + "n" * 2000 + '", "amount": 1000000}')
    listed = type_("runs", "waiting", COLUMNS="400").out
    assert "note: " in listed
    assert "… (1,802 more characters)" in listed
    assert "amount: 1000000" in listed
    refused = type_("runs", "approve", step["transfer"])
    assert refused.status == 2
    assert (
        f"has 1 value that `runs waiting` cuts: read them with `agno-workers runs waiting --run {run_id} --full`"
        in refused.err
    )
    for read in (["runs", "waiting", "--run", run_id, "--full"], ["runs", "show", run_id]):
        assert "n" * 2000 in type_(*read, COLUMNS="5000").out
    assert waiting(type_, run_id)["transfer"]["arguments"] == {"note": "n" * 2000, "amount": 1000000}
    assert "approved" in type_("runs", "approve", step["transfer"], "--yes").out
    assert client.runs.get(run_id).result(timeout=30) == "moved 1000000"


def test_person_at_a_terminal_sees_the_whole_call_before_it_is_approved(
    type_: Type, worker: Worker, client: Client, environment: dict[str, str]
) -> None:
    run_id, step = asking(type_, 'transfer {"note": "' + "n" * 2000 + '", "amount": 1000000}')
    for answer, outcome in ((b"n\n", "Aborted"), (b"y\n", "is approved")):
        shown = at_a_terminal(environment, answer, "runs", "approve", step["transfer"])
        assert shown.count("n") > 2000
        assert "amount: 1000000" in shown
        assert shown.index("Make this call?") < shown.index(outcome)
    assert client.runs.get(run_id).result(timeout=30) == "moved 1000000"


def test_person_at_a_terminal_sees_what_is_filled_in_before_the_call_is_made(
    type_: Type, worker: Worker, environment: dict[str, str]
) -> None:
    _, step = asking(type_, 'refund {"amount": 7}')
    shown = at_a_terminal(environment, b"n\n", "runs", "answer", step["refund"], "iban=DE12 ", "urgent=true")
    assert shown.index('filled in: {"iban":"DE12 ","urgent":true}') < shown.index("Aborted")


def at_a_terminal(environment: dict[str, str], answer: bytes, *arguments: str) -> str:
    """Type a command and an answer at a terminal of its own, and return what it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agno_workers.cli.main", *arguments],
        env=inherited() | environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    shown = b""
    with suppress(OSError):  # a terminal without a program
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    process.wait(timeout=30)
    return shown.decode()


def test_rejected_call_is_not_made_and_the_model_reads_the_note(
    type_: Type, worker: Worker, client: Client
) -> None:
    run_id, _ = asking(type_, 'transfer {"amount": 5}')
    assert "rejected" in type_("runs", "reject", run_id, "--note", "Too much.", "--by", "bob").out
    assert (
        client.runs.get(run_id).result(timeout=30)
        == "!transfer was not called: a person rejected it. Too much."
    )
    assert "transfer was answered by bob: rejected" in type_("runs", "show", run_id).out


def test_wrong_answer_is_refused_with_the_right_one(type_: Type, worker: Worker) -> None:
    run_id, step = asking(type_, 'transfer {"amount": 5}', 'refund {"amount": 7}')
    wrong = {
        "name one of the steps": ["approve", run_id],
        "waits for a confirmation: approve or reject it": ["complete", step["transfer"], "x"],
        "waits for an answer: answer or reject it": ["resolve", step["refund"], "--happened"],
        "'iban' is not FIELD=VALUE": ["answer", step["refund"], "iban"],
        "iban has two values": ["answer", step["refund"], "iban=1", "iban=2"],
        "asks for iban, urgent, not for by, self": ["answer", step["refund"], "self=1", "by=2"],
        "asks for iban, urgent, got iban": ["answer", step["refund"], "iban=1"],
        "asks for nothing, not for iban": ["answer", step["transfer"], "iban=1"],
        "use exactly one of --happened, --again and": ["resolve", run_id, "--again", "--happened"],
        "RESULT needs --happened": ["resolve", run_id, "--again", "paid"],
        "is not a step or run id": ["approve", "nonsense"],
        "does not wait for a person: it was answered": ["approve", NOBODY],
        "no run": ["waiting", "--run", NOBODY],
    }
    for said, arguments in wrong.items():
        answer = type_("runs", *arguments)
        assert (answer.status, answer.out) == (2, "")
        assert said in answer.err
        assert answer.err.count("\n") == 1
    assert len(waiting(type_, run_id)) == 2

    type_("runs", "approve", step["transfer"])
    late = type_("runs", "approve", step["transfer"])
    assert (late.status, "was answered" in late.err) == (2, True)
    type_("runs", "cancel", run_id)
    assert "the run is cancelled" in type_("runs", "reject", run_id).err


def test_interrupted_payment_is_resolved_by_a_person(
    type_: Type, start_worker: StartWorker, client: Client, tmp_path: Path
) -> None:
    short = {"AGNO_RUNS__LEASE_S": "1", "AGNO_RUNS__RENEW_EVERY_S": "0.3"}
    worker = start_worker(**short)
    path, hold = tmp_path / "ledger", tmp_path / "ledger.hold"
    hold.touch()
    run_id = submitted(type_, f'charge {{"path": "{path}"}}')
    invariants.until(lambda: path.exists() and path.read_text())
    worker.kill()
    assert re.search(r"Tool charge (has been|was) running", type_("runs", "show", run_id).out)
    start_worker(**short)
    invariants.until(lambda: waiting(type_, run_id))
    listed = type_("runs", "waiting").out
    assert "charge waits for a person to find out whether it took effect" in listed
    assert "ended without a result" in listed
    hold.unlink()
    assert "made again" in type_("runs", "resolve", run_id, "--again").out
    assert client.runs.get(run_id).result(timeout=30) == "paid"
    assert len(path.read_text().splitlines()) == 2


def test_complete_reads_the_result_from_standard_input(
    type_: Type, worker: Worker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, _ = asking(type_, 'deliver {"parcel": "p"}')
    monkeypatch.setattr(sys, "stdin", io.StringIO("nobody was at home"))
    type_("runs", "complete", run_id, "-", "--error")
    assert client.runs.get(run_id).result(timeout=30) == "!nobody was at home"


# Steering a run.


def test_paused_run_is_shown_as_such_and_continues_when_resumed(
    type_: Type, worker: Worker, client: Client
) -> None:
    run_id, _ = asking(type_, 'transfer {"amount": 5}')
    assert "is paused" in type_("runs", "pause", run_id).out
    assert "has been paused since" in type_("runs", "pause", run_id).out
    assert f"{run_id[-8:]}  clerk  waiting paused" in type_("runs", "ls").out
    type_("runs", "approve", run_id)
    shown = sentence(type_("runs", "show", run_id, COLUMNS="80").out)
    assert re.search(
        rf"→ The run has been paused for .*: `agno-workers runs resume {run_id}` continues it", shown
    )
    assert "in the queue" not in shown
    assert client.runs.get(run_id).status is RunStatus.WAITING
    assert type_("runs", "resume", run_id).out == f"Run {run_id} continues.\n"
    assert client.runs.get(run_id).result(timeout=30) == "moved 5"
    assert type_("runs", "resume", run_id).out == f"Run {run_id} has ended already: it is done.\n"
    assert type_("runs", "pause", run_id).out == f"Run {run_id} has ended already: it is done.\n"


def test_resume_of_a_run_that_is_not_paused_reports_its_status(type_: Type) -> None:
    run_id = submitted(type_, "hi")
    assert type_("runs", "resume", run_id).out == f"Run {run_id} is not paused: it is queued.\n"


def test_fork_starts_at_a_step_with_new_arguments_or_input(
    type_: Type, worker: Worker, client: Client
) -> None:
    run_id = submitted(type_, 'add {"a": 1, "b": 2}')
    assert client.runs.get(run_id).result(timeout=30) == "3"
    at = ["runs", "fork", run_id, "--at"]
    forked = type_(*at, "tool:1:0", "--arguments", '{"a": 1, "b": 5}', "--key", "k").out.strip()
    assert client.runs.get(forked).result(timeout=30) == "6"
    assert type_(*at, "tool:1:0", "--key", "k").out.strip() == forked
    assert f"forked from {run_id}" in sentence(type_("runs", "show", forked).out)
    again = type_("runs", "fork", run_id, "--input", 'add {"a": 2, "b": 2}').out.strip()
    assert client.runs.get(again).result(timeout=30) == "4"

    wrong = {
        "has no step 'tool:9:9'": [*at, "tool:9:9"],
        "--arguments is not a JSON object": [*at, "tool:1:0", "--arguments", "a=1"],
        "--arguments is not a JSON object (Expected": [*at, "tool:1:0", "--arguments", "[1]"],
        "is a turn": [*at, "turn:2", "--arguments", "{}"],
        "takes arguments": [*at, "tool:1:0", "--input", "x"],
        "is empty": ["runs", "fork", run_id, "--input", " "],
        "no run": ["runs", "fork", NOBODY],
    }
    for said, arguments in wrong.items():
        answer = type_(*arguments)
        assert (answer.status, answer.out) == (2, "")
        assert said in answer.err
        assert answer.err.count("\n") == 1


def test_delegation_is_shown_in_both_runs(type_: Type, worker: Worker, client: Client) -> None:
    parent = submitted(type_, 'transfer {"amount": 5}', "manager")
    invariants.until(lambda: waiting(type_))
    child = waiting(type_)["transfer"]["run_id"]
    shown = sentence(type_("runs", "show", parent, COLUMNS="80").out)
    assert f"→ Delegated to clerk, whose run is waiting: `agno-workers runs show {child}`." in shown
    assert re.search(rf"└ clerk +{child[-8:]} +waiting", shown)
    assert f"delegated by {parent}" in sentence(type_("runs", "show", child).out)
    told = type_("runs", "show", parent, "--json").json
    assert told["children"] == [{"id": child, "agent": "clerk", "status": "waiting"}]
    assert len(told["why"]) == 1
    type_("runs", "approve", child)
    assert client.runs.get(parent).result(timeout=30) == '["moved 5"]'


def test_fork_at_a_delegation_starts_another_child_run(type_: Type, worker: Worker, client: Client) -> None:
    parent = submitted(type_, 'transfer {"amount": 5}', "manager")
    invariants.until(lambda: waiting(type_))
    type_("runs", "approve", waiting(type_)["transfer"]["run_id"])
    client.runs.get(parent).result(timeout=30)
    before = type_("runs", "show", parent, "--json").json
    at = ["runs", "fork", parent, "--at", "tool:1:0"]
    forked = type_(*at, "--arguments", '{"task": "transfer {\\"amount\\": 7}"}').out.strip()
    invariants.until(lambda: waiting(type_))
    child = waiting(type_)["transfer"]["run_id"]
    assert f"→ Delegated to clerk, whose run is waiting: `agno-workers runs show {child}`." in sentence(
        type_("runs", "show", forked).out
    )
    type_("runs", "approve", child)
    assert client.runs.get(forked).result(timeout=30) == '["moved 7"]'
    after = type_("runs", "show", parent, "--json").json
    assert [after[part] for part in ("run", "steps", "children")] == [
        before[part] for part in ("run", "steps", "children")
    ]
    refused = type_(*at, "--arguments", '{"amount": 7}')
    assert refused.status == 2
    assert 'is a delegation to clerk, which takes arguments={"task": "..."}' in refused.err


def test_runs_show_prints_cost_and_deadline_in_80_columns(
    type_: Type, worker: Worker, client: Client
) -> None:
    run_id, _ = asking(type_, 'transfer {"amount": 5}')
    shown = type_("runs", "show", run_id, COLUMNS="80").out
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"cost \$0\.0\d+ of \$1\.00; deadline 20\d\d-", sentence(shown))
    assert re.search(r"→ The run ends at its deadline, in (1 h 0 min|59 min \d+ s)\.", shown)
    assert re.search(r"→ The run has cost \$0\.0\d+, and ends at \$1\.00\.", shown)
    assert re.search(r"^tool:1:0  transfer  waiting  +\S+ m?s +0 ", shown, re.MULTILINE)


def test_ids_may_be_shortened_to_their_end_or_their_beginning(
    type_: Type, client: Client, database_url: str
) -> None:
    batch = client.batches.submit("clerk", ["a", "b"], allow_unknown=True)
    first, second = [listed["run"]["id"] for listed in type_("runs", "ls", "--json").json]
    listed = type_("runs", "ls", "--batch", batch.id[-8:], COLUMNS="80").out
    assert {line[:8] for line in listed.splitlines()[1:]} == {first[-8:], second[-8:]}
    for short in (first, first[-8:], first[-12:].upper(), first[:-1], first.replace("-", "")):
        assert type_("runs", "show", short, "--json").json["run"]["id"] == first

    twins = ["0198c0de-0000-7000-8000-00000000abcd", "0198c0de-0000-7000-8000-10000000abcd"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM agno.outbox")
        connection.execute("DELETE FROM agno.step")
        for run_id, twin in zip((first, second), twins, strict=True):
            connection.execute("DELETE FROM agno.message WHERE run_id = %s", (run_id,))
            connection.execute("UPDATE agno.run SET id = %s WHERE id = %s", (twin, run_id))
    refused = type_("runs", "cancel", "0000abcd")
    assert (refused.status, refused.out) == (2, "")
    assert all(twin in refused.err for twin in twins)
    assert re.search(
        r"^00000000abcd +clerk", type_("runs", "ls", COLUMNS="80").out, re.MULTILINE
    )  # longer, to tell them apart
    unknown = type_("runs", "cancel", "ffffffff")
    assert (
        "no run has an id that begins or ends with 'ffffffff': `agno-workers runs ls` lists runs"
        in unknown.err
    )


def test_events_of_a_run_are_numbered(type_: Type, worker: Worker) -> None:
    run_id = type_("run", "clerk", 'add {"a": 1, "b": 2}', "--json").json["run_id"]
    events = type_("runs", "events", run_id, "--json").json
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert type_("runs", "events", run_id, "--after", "2", "--json").json == events[2:]
    shown = type_("runs", "events", run_id[-8:], COLUMNS="80").out
    assert len(shown.splitlines()) == len(events) + 1
    assert max(map(len, shown.splitlines())) <= 80
    assert type_("runs", "events", run_id, "--after", "99").out == "No events after 99.\n"


# Dead letters.


def failed(type_: Type, tmp_path: Path, count: int) -> tuple[list[str], Path]:
    """Submit runs that fail for one reason, and succeed once the file is gone."""
    locked = tmp_path / "locked"
    locked.touch()
    runs = [submitted(type_, f"{number} {locked}", "moody") for number in range(count)]
    invariants.until(lambda: len(type_("runs", "ls", "--status", "failed", "--json").json) == count)
    return runs, locked


def test_dead_letters_are_grouped_by_error_and_retried_together(
    type_: Type, worker: Worker, client: Client, tmp_path: Path
) -> None:
    runs, locked = failed(type_, tmp_path, 3)
    closed = submitted(type_, 'closed {"text": "17"}')
    assert client.runs.get(closed).result(timeout=30) == "!shop 17 is closed"
    groups = type_("dead", "ls", "--json").json
    assert [(group["letters"], group["agent"], group["tool"], group["message"]) for group in groups] == [
        (3, "moody", "turn", "order … is locked by …"),
        (1, "clerk", "closed", "shop … is closed"),
    ]
    assert groups[0]["sample"] in runs
    listed = type_("dead", "ls", COLUMNS="80").out
    assert "3  failed  moody · turn  ModelRejected: order … is locked by …" in listed
    assert max(map(len, listed.splitlines())) <= 80
    for filters in (["--agent", "moody"], ["--tool", "turn"], ["--error", "ModelRejected"]):
        assert len(type_("dead", "ls", "--json", "--since", "1h", *filters).json) == 1
    assert type_("dead", "ls", "--agent", "nobody").out == "No such dead letters.\n"

    bulk = ["dead", "retry", "--error", "ModelRejected"]
    assert type_(*bulk, "--dry-run").out == "3 runs would be retried.\n"
    assert type_(*bulk, "--limit", "1").out == "Retried 1 run.\n"  # and fails again
    invariants.until(lambda: type_(*bulk, "--dry-run").out.startswith("3 "))
    locked.unlink()
    assert type_(*bulk).out == "Retried 3 runs.\n"
    assert [client.runs.get(run_id).result(timeout=30) for run_id in runs] == [
        f"order {number} is done" for number in range(3)
    ]
    assert type_("dead", "retry", "--all").out == "Retried 0 runs.\n"
    assert "runs fork RUN --at KEY" in type_("dead", "retry", "--tool", "closed").out


def test_failed_run_is_shown_with_the_next_move_and_retried_by_its_id(
    type_: Type, worker: Worker, client: Client, tmp_path: Path
) -> None:
    (run_id,), locked = failed(type_, tmp_path, 1)
    assert f"`agno-workers dead show {run_id}` shows what can be done" in sentence(
        type_("runs", "show", run_id).out
    )
    shown = sentence(type_("dead", "show", run_id, COLUMNS="80").out)
    assert "ModelRejected: order 0 is locked by job-0" in shown
    assert f"`agno-workers dead retry {run_id}` retries it" in shown
    assert type_("dead", "show", run_id, "--json").json["reason"] == "model_rejected"
    locked.unlink()
    assert type_("runs", "retry", run_id[-8:]).out == f"Run {run_id} continues from its last good turn.\n"
    assert client.runs.get(run_id).result(timeout=30) == "order 0 is done"
    again = type_("dead", "retry", run_id)
    assert again.status == 2
    assert f"is done, and only failed runs are retried: `agno-workers runs fork {run_id}`" in again.err
    assert "is done, not dead" in type_("dead", "show", run_id).err


def test_dead_call_is_made_again_in_a_fork(type_: Type, worker: Worker, client: Client) -> None:
    run_id = submitted(type_, 'closed {"text": "17"}')
    client.runs.get(run_id).wait(timeout=30)
    step_id = steps(type_, run_id)["tool:1:0"]["id"]
    shown = sentence(type_("dead", "show", step_id, COLUMNS="80").out)
    assert 'arguments: {"text": "17"}' in shown
    assert f"`agno-workers runs fork {run_id} --at tool:1:0` makes the call in a new run" in shown
    refused = type_("dead", "retry", step_id)
    assert refused.status == 2
    assert f"`agno-workers runs fork {run_id} --at tool:1:0`" in refused.err
    forked = type_(*f"runs fork {run_id} --at tool:1:0".split()).out.strip()
    assert client.runs.get(forked).result(timeout=30) == "!shop 17 is closed"


DEAD_WRONG = {
    "no runs are chosen": ["retry"],
    "--all retries all failed runs": ["retry", "--all", "--agent", "a"],
    "but not both": ["retry", NOBODY, "--all"],
    "no run or step has the id": ["retry", NOBODY],
    "no run or step": ["show", NOBODY],
    "is not a run or step id": ["show", "nonsense"],
    "'2 parsecs' is not a length of time: use": ["ls", "--since", "2 parsecs"],
    "'999999999999d' is not a length": ["ls", "--since", "999999999999d"],
    "'0s' is not a length": ["retry", "--since", "0s"],
}


@pytest.mark.parametrize("said", DEAD_WRONG)
def test_mistake_with_dead_letters_is_answered_in_one_sentence(type_: Type, said: str) -> None:
    answer = type_("dead", *DEAD_WRONG[said])
    assert (answer.status, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_new_database_has_no_dead_letters(type_: Type) -> None:
    assert type_("dead", "ls").out == "No dead letters.\n"
    assert type_("dead", "ls", "--json").json == []


# A doctor for work that is stuck.


def runs_of(type_: Type) -> list[str]:
    """Return the doctor's findings about runs, as `level: text`."""
    report = type_("doctor", "--json").json
    return [f"{finding['level']}: {finding['text']}" for finding in report if finding["about"] == "runs"]


WORKER = """
    INSERT INTO agno.worker (name, hostname, pid, version, pool, concurrency, queues)
    VALUES ('w', 'h', 1, '0', 'threads', 8, '["agents"]')"""
STUCK = {
    "fail: 1 run without an open step": "UPDATE agno.step SET status = 'cancelled'",
    "fail: 1 running step with a lease that expired up to 5 min": """
        UPDATE agno.step SET status = 'running', worker = 'w', lease_until = now() - interval '5 min'""",
    "fail: 1 message overdue in the outbox by up to 5 min": "UPDATE agno.outbox SET due_at = now() - interval '5 min'",
    "warn: 1 call waiting for a person for up to 3 d: `agno-workers runs waiting`": """
        UPDATE agno.step SET status = 'waiting', waits_for = 'confirmation', created_at = now() - interval '3 days'""",
    "warn: 1 request for background work left undone by failed runs for up to 5 min": """
        INSERT INTO agno.background_item (kind, owner, run_id, created_at)
        SELECT 'summary', 's', id, now() - interval '5 min' FROM agno.run""",
    "warn: agents: 1 step ready for up to 5 min": """
        UPDATE agno.step SET created_at = now() - interval '5 min', sent_at = now();"""
    + WORKER,
    "warn: the chord 00000000-0000-0000-0000-000000000001 of": """
        INSERT INTO agno.barrier (id, body, created_at)
        VALUES ('00000000-0000-0000-0000-000000000001', '{"task": "shop.total"}', now() - interval '1 hour')""",
}


@pytest.mark.parametrize("said", STUCK)
def test_doctor_finds_stuck_work(type_: Type, database_url: str, said: str) -> None:
    submitted(type_, "hi")
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert runs_of(type_) == ["ok: none stuck"]
        connection.execute(STUCK[said].encode())
    (found,) = runs_of(type_)
    assert found.startswith(said)
    if "lease" in said or "outbox" in said:
        assert "no keeper is alive. Each worker has one: start a worker" in found


def test_doctor_warns_of_background_work_that_no_worker_does(type_: Type, database_url: str) -> None:
    """Workers of an older deployment do not consume its queue; no run of a user waits for it."""
    submitted(type_, "hi")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """SELECT agno.request_background(id, '[{"kind": "summary", "owner": "s"}]') FROM agno.run"""
        )
    findings = type_("doctor", "--json").json
    said = {finding["text"].partition(" (")[0]: finding["level"] for finding in findings}
    assert said["No worker consumes the queue 'agents'"] == "fail"
    assert said["No worker consumes the queue 'background'"] == "warn"


def test_runs_ls_hides_background_work_and_counts_it(type_: Type, database_url: str) -> None:
    submitted(type_, "hi")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """SELECT agno.request_background(id, '[{"kind": "summary", "owner": "s"}]') FROM agno.run"""
        )
    listed = type_("runs", "ls").out
    assert "hi" in listed
    assert "1 run of background work not shown: see --background." in listed
    assert "Background work" not in listed
    shown = type_("runs", "ls", "--background").out
    assert "Background work: summary of s." in shown
    assert "not shown" not in shown
    (run,) = [each["run"] for each in type_("runs", "ls", "--background", "--json").json if each["run"]["kind"] == "background"]  # fmt: skip
    assert "background work: summary of s" in type_("runs", "show", run["id"]).out


def test_doctor_names_the_queue_of_a_returned_step_that_no_worker_consumes(
    type_: Type, database_url: str
) -> None:
    submitted(type_, "hi")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""
            UPDATE agno.step SET created_at = now() - interval '5 min', sent_at = NULL, not_before = now() + interval '1 min',
                error = '{"type": "UnknownAgent", "message": "", "ids": {"returns": 3, "workers": ["w"]}}'""")
    assert (
        "fail: clerk: 1 step, waiting for up to 5 min 0 s, and no worker consumes the queue 'agents': start one with `-Q agents`."
        in runs_of(type_)
    )


def test_doctor_accepts_paused_runs_and_timers(type_: Type, database_url: str) -> None:
    paused, timed = submitted(type_, "hi"), submitted(type_, "hi")
    type_("runs", "pause", paused)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(WORKER.encode())
        connection.execute("UPDATE agno.step SET sent_at = now() - interval '1 day'")
        connection.execute(
            "UPDATE agno.step SET not_before = now() + interval '1 day' WHERE run_id = %s", (timed,)
        )
    assert runs_of(type_) == ["ok: none stuck"]


def test_doctor_finds_a_postgres_that_can_not_write(type_: Type, database_url: str) -> None:
    assert "ok   Postgres  the database takes " in type_("doctor").out
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""
            CREATE FUNCTION agno.fill() RETURNS event_trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
            CREATE EVENT TRIGGER full_disk ON ddl_command_start EXECUTE FUNCTION agno.fill()""")
    found = type_("doctor")
    assert found.status == 1
    assert "fail Postgres  it can't write: could not extend file" in found.out


def test_doctor_finds_many_recent_dead_letters(type_: Type, database_url: str) -> None:
    for _ in range(10):
        submitted(type_, "hi")
    assert runs_of(type_) == ["ok: none stuck"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE agno.step SET status = 'dead', ended_at = now()")
        connection.execute(
            """UPDATE agno.run SET status = 'failed', ended_as = 'failed', ended_at = now(), error = '{"type": "x", "message": "y"}'"""
        )
    assert runs_of(type_) == [
        "warn: 10 dead letters in the last hour: `agno-workers dead ls --since 1h` lists them."
    ]


# agents.


def test_agents_ls_shows_tools_limits_and_prices(type_: Type) -> None:
    listed = {agent["name"]: agent for agent in type_("agents", "ls", "--json").json}
    assert listed["manager"]["tools"] == ["clerk"]
    assert sorted(listed["clerk"]["tools"]) == [
        "add",
        "burst",
        "charge",
        "closed",
        "deliver",
        "refund",
        "transfer",
    ]
    assert listed["clerk"]["definition"]["limits"]["cost_usd"] == 1.0
    assert listed["clerk"]["definition"]["prices"] == {"input_usd": 3, "output_usd": 15, "cached_usd": 0.3}
    shown = type_("agents", "ls", COLUMNS="80").out
    assert "tools: clerk" in shown
    assert "limits: 5 turns, $1.00, 3600 s" in shown
    assert "prices: $3 in, $0.3 cached, $15 out, per million tokens" in shown
    assert "limits:" not in shown.partition("manager  ")[2].partition("moody  ")[0]  # defaults are left out


# A run that someone waits for.


def test_fork_at_a_step_that_is_not_there_lists_the_steps(type_: Type, worker: Worker) -> None:
    run_id = type_("run", "clerk", 'add {"a": 1, "b": 2}', "--json").json["run_id"]
    for at in ("nope", "turn:9", "dead", "0198c0de-0000-7000-8000-000000000000"):
        refused = type_("runs", "fork", run_id, "--at", at)
        assert refused.status == 2
        assert f"has no step '{at}': it has turn:1, tool:1:0, turn:2." in refused.err
    step_id = steps(type_, run_id)["turn:2"]["id"]
    for at in (step_id, step_id[-8:], "turn:2"):
        assert type_("runs", "fork", run_id, "--at", at).status == 0


def test_long_note_of_a_person_is_cut(type_: Type, worker: Worker) -> None:
    run_id, _ = asking(type_, 'transfer {"amount": 5}')
    type_("runs", "approve", run_id, "--note", "n" * 500)
    assert "n" * 200 + "… (300 more characters; --full shows all)" in type_("runs", "show", run_id).out
    assert "n" * 500 in type_("runs", "show", run_id, "--full").out


def test_large_result_is_shown_as_a_preview_and_printed_whole(type_: Type, worker: Worker) -> None:
    run_id, asked = asking(type_, 'deliver {"parcel": "x"}')
    whole = "\n".join(f"stop {number} of the parcel" for number in range(1_000))
    type_("runs", "complete", asked["deliver"], whole)
    (result_id,) = set(re.findall(r"\[Result (\w+): about", type_("runs", "show", run_id).out))
    full = type_("runs", "show", run_id, "--full").out
    assert "stop 500 of" not in full
    assert f"whole: `agno-workers runs show {run_id} --result {result_id}`" in full
    assert type_("runs", "show", run_id, "--result", result_id).out.strip() == whole
    refused = type_("runs", "show", run_id, "--result", "nope")
    assert refused.status == 2
    assert (
        f"run {run_id} has no stored result 'nope': use an id that a preview in its messages names."
        in refused.err
    )


ASKED = {
    "transfer": ("a person to approve or reject it", "runs approve {step}"),
    "refund": ("a person to fill in iban, urgent", "runs answer {step} iban=… urgent=…"),
    "deliver": ("someone outside to make the call", "runs complete {step} RESULT"),
}


@pytest.mark.parametrize(
    ("agent", "tool", "options"),
    [("clerk", "transfer", []), ("clerk", "refund", ["--stream"]), ("clerk", "deliver", ["--json"]), ("manager", "transfer", [])],
)  # fmt: skip
def test_run_without_a_terminal_ends_when_it_waits_for_a_person(
    type_: Type, worker: Worker, agent: str, tool: str, options: list[str]
) -> None:
    call = {"transfer": '{"amount": 5}', "refund": '{"amount": 5}', "deliver": '{"parcel": "x"}'}[tool]
    asked = type_("run", agent, f"{tool} {call}", *options)
    assert asked.status == 4
    ((_, requirement),) = waiting(type_).items()
    what, move = ASKED[tool]
    assert f"{tool} of run {requirement['run_id']} (clerk) waits for {what}:\n" in asked.err
    assert f"\n  agno-workers {move.format(step=requirement['step_id'])}\n" in asked.err
    assert (asked.json["status"] if "--json" in options else asked.out) in ("waiting", "")


def test_run_with_a_time_limit_waits_for_a_person(type_: Type, worker: Worker) -> None:
    asked = type_("run", "clerk", 'transfer {"amount": 5}', "--timeout", "1.5s")
    assert asked.status == 5
    assert "waits for a person to approve or reject it" in asked.err
    assert "has not ended within the time limit, and continues" in asked.err


def test_run_says_that_it_is_paused_or_that_no_worker_can_take_it(type_: Type, client: Client) -> None:
    key = ("--key", "k")
    nobody = type_("run", "clerk", "hi", *key, "--timeout", "7s")
    assert nobody.status == 5
    assert (
        "No worker has registered the agent 'clerk': start one whose AGNO_IMPORTS name its module."
        in nobody.err
    )
    assert "No worker consumes the queue 'agents'" in nobody.err
    type_("runs", "pause", client.runs.list()[0].id)
    paused = type_("run", "clerk", "hi", *key)
    assert paused.status == 4
    assert re.search(r"Run \S+ is paused: `agno-workers runs resume \S+` continues it\.", paused.err)


@pytest.mark.parametrize(
    ("typed", "outcome"),
    [
        (["transfer", "y\n"], "moved 5"),
        (["transfer", "n\n", "too much\n"], "transfer was not called: a person rejected it. too much"),
        (["refund", "DE12\n", "true\n"], "5 to DE12, urgent: True"),
        (["transfer --stream", "y\n"], "moved 5"),
    ],
)
def test_run_at_a_terminal_asks(
    worker: Worker, environment: dict[str, str], typed: list[str], outcome: str
) -> None:
    tool, *options = typed[0].split()
    answers = "".join(typed[1:]).encode()
    shown = at_a_terminal(environment, answers, "run", "clerk", f'{tool} {{"amount": 5}}', *options)
    assert shown.index('arguments: {"amount": 5}') < shown.index(outcome)


def test_run_ended_by_a_limit_has_a_status_of_its_own(type_: Type, worker: Worker) -> None:
    for agent, last_text in (("tireless", "So far."), ("mute", "")):
        ended = type_("run", agent, "again")
        assert (ended.status, ended.out.strip()) == (3, last_text)
        assert "The run was ended by a limit (limit:turns), without a whole answer" in ended.err


def test_workers_ls_shows_the_living_by_their_whole_names(
    type_: Type, worker: Worker, database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """INSERT INTO agno.worker (name, hostname, pid, version, pool, concurrency, queues, seen_at)
            VALUES ('gone@elsewhere', 'h', 1, '0.1.0', 'threads', 8, '["agents"]', now() - interval '1 hour')"""
        )
    (name,) = (each["name"] for each in type_("workers", "ls", "--json").json)
    assert re.search(rf"^{re.escape(name)} +alive ", type_("workers", "ls", COLUMNS="80").out, re.MULTILINE)
    assert "gone@elsewhere" in type_("workers", "ls", "--all").out


def test_output_that_is_no_terminal_has_whole_values_on_one_line(type_: Type, client: Client) -> None:
    text = " ".join(["words"] * 30)
    run = client.runs.submit("clerk", text, allow_unknown=True, user_id="ann")
    heading, line = type_("runs", "ls", "--user", "ann", "--open", "--since", "1h").out.splitlines()
    assert heading.split() == ["run", "agent", "status", "age", "input"]
    assert line.split()[:3] == [run.id, "clerk", "queued"]
    assert line.rstrip().endswith(text)
    assert type_("runs", "ls", "--stuck").out == "No such runs.\n"
    assert "╭" not in type_("runs", "ls", "--help").out
