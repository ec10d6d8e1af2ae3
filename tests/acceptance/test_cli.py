"""The commands of `agno-workers`, on real servers with real workers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from psycopg import sql

from agno_workers import Client
from agno_workers.core.run import RunStatus
from agno_workers.streams import Streamed
from tests.acceptance.terminal import StartProgram, Type, programs
from tests.conftest import Worker
from tests.invariants import until
from tests.servers import Servers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def servers(own_servers: Servers) -> Servers:
    """These tests configure Redis."""
    return own_servers


@pytest.fixture
def start_program(environment: dict[str, str], tmp_path: Path) -> Iterator[StartProgram]:
    """Starts `agno-workers` as a process of its own, on the state folder that `type_` uses, too."""
    yield from programs({**environment, "AGNO_STATE_DIR": str(tmp_path / "state")})


# run and runs.


def test_run_prints_the_answer_or_the_error(type_: Type, worker: Worker) -> None:
    assert type_("run", "echo", "hi").out == "<hi>\n"
    assert type_("run", "echo", "hi", "--stream").out == "<hi>\n"
    outcome = type_("run", "echo", "hi", "--json", "--session", "s1", "--user", "u1").json
    assert (outcome["status"], outcome["content"]) == ("done", "<hi>")
    listed = type_("runs", "ls", "--session", "s1", "--json").json
    assert [(item["run"]["id"], item["run"]["user_id"], item["asked"]) for item in listed] == [
        (outcome["run_id"], "u1", "hi")
    ]

    failed = type_("run", "failing", "hi")
    assert (failed.status, failed.out) == (2, "")
    assert "the key is wrong" in failed.err.splitlines()[-1]
    as_json = type_("run", "failing", "hi", "--json")
    assert (as_json.status, as_json.json["status"]) == (2, "failed")
    listed = type_("runs", "ls", "--agent", "failing", "--json").json
    assert f"`agno-workers runs show {listed[1]['run']['id']}` shows it" in failed.err


def test_runs_show_prints_steps_and_transcript(type_: Type, worker: Worker) -> None:
    run_id = type_("run", "caller", 'add {"a": 1, "b": 2}\nboom {"text": "no"}', "--json").json["run_id"]
    shown = type_("runs", "show", run_id).out
    assert re.search(r"tool:1:0 +add +done +\S+ m?s +\S+ m?s +1 ", shown)
    assert "boom failed with raised: no" in shown
    assert 'calls add {"a": 1, "b": 2}' in shown
    assert "add: 3" in shown
    everything = type_("runs", "show", run_id, "--json").json
    assert [step["key"] for step in everything["steps"]] == ["turn:1", "tool:1:0", "tool:1:1", "turn:2"]
    assert [message["role"] for message in everything["transcript"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


def test_runs_show_prints_the_history_that_a_run_was_given(type_: Type, worker: Worker) -> None:
    options = ("--session", "s", "--json")
    first, second = (type_("run", "remembering", text, *options).json["run_id"] for text in ("one", "two"))
    shown = type_("runs", "show", second, "--history").out
    assert re.search(
        r"user, from the history ─+\none\n\nassistant, from the history ─+\n<one>\n\nuser ─+\ntwo\n", shown
    )
    assert "<one>" not in type_("runs", "show", second).out
    assert "no history" in type_("runs", "show", first, "--history").out
    given = type_("runs", "show", second, "--history", "--json").json["history"]
    assert [message["from_history"] for message in given] == [True, True]


ODD_ROWS = (
    "UPDATE agno.message SET content = '7'",
    """UPDATE agno.message SET content = '{"role": "user", "parts": [{"type": "hologram", "text": [1]}]}'""",
    """UPDATE agno.message SET content = '{"role": 5, "parts": [{"type": "tool_call", "id": 7, "arguments": {}}]}'""",
    """UPDATE agno.step SET error = '[1]', answer = '{"values": 7, "note": {}}', call = '5', waits_for = 'confirmation', status = 'waiting'""",
    """UPDATE agno.run SET error = '"broken"', metadata = '[]', content = '[1e300]', canvas = '"x"'""",
)


def test_runs_show_prints_the_summary_that_the_model_sees(type_: Type, worker: Worker) -> None:
    run_id = type_("run", "longwinded", 'add {"a": 1, "b": 2}', "--json").json["run_id"]
    shown = type_("runs", "show", run_id, COLUMNS="80").out
    assert re.search(r"compact:\d:1 ", shown)
    assert "summary, for the model, of the messages 1 to " in shown
    assert "Much was written." in shown
    (made,) = type_("runs", "show", run_id, "--json").json["compactions"]
    assert f"{made['tokens_before']:,} tokens became {made['tokens_after']:,}" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_runs_show_prints_a_run_whatever_is_stored(type_: Type, database_url: str) -> None:
    run_id = type_("run", "echo", "hi", "--no-wait").out.strip()
    with psycopg.connect(database_url, autocommit=True) as connection:
        for odd in ODD_ROWS:
            connection.execute(sql.SQL(odd))
            for option in ([], ["--json"]):
                shown = type_("runs", "show", run_id, *option)
                assert (shown.status, shown.err) == (0, ""), odd
                assert run_id in shown.out


def test_run_without_a_worker_is_explained_and_can_be_cancelled(type_: Type) -> None:
    run_id = type_("run", "echo", "hi", "--no-wait").out.strip()
    assert (
        type_("run", "echo", "hi", "--no-wait", "--key", "k").out
        == type_("run", "echo", "hi", "--no-wait", "--key", "k").out
    )
    told = type_("run", "echo", "x", "--no-wait", "--key", "k").err
    assert "another input" in told
    shown = type_("runs", "show", run_id).out
    assert re.search(
        r"→ No worker consumes the queue 'agents', where turn 1 has waited .*: start one with `-Q agents`",
        shown,
    )
    shown = type_("runs", "show", run_id, AGNO_BROKER_URL="redis://127.0.0.1:1/0").out
    assert "→ No worker consumes the queue 'agents'" in shown  # it needs no Redis
    assert type_("runs", "cancel", run_id).out == f"Run {run_id} is cancelled.\n"
    assert type_("runs", "cancel", run_id).out == f"Run {run_id} has ended already: it is cancelled.\n"
    assert "→" not in type_("runs", "show", run_id).out
    listed = type_("runs", "ls", "--status", "cancelled", COLUMNS="80").out
    assert re.search(rf"^{run_id[-8:]}  echo +cancelled", listed, re.MULTILINE)
    assert run_id in type_("runs", "ls", "--wide", COLUMNS="80").out
    assert len(type_("runs", "ls", "--status", "queued", "--agent", "echo", "--json").json) == 1
    assert type_("runs", "ls", "--agent", "nobody").out == "No such runs.\n"


def test_run_reads_the_input_from_standard_input(
    type_: Type, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    read, write = os.pipe()
    os.write(write, b"from a pipe")
    os.close(write)
    with os.fdopen(read) as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        run_id = type_("run", "echo", "-", "--no-wait").out.strip()
    assert "from a pipe" in type_("runs", "show", run_id).out


def test_agents_ls_lists_agents_of_the_code_that_no_worker_has_registered(
    type_: Type, servers: Servers
) -> None:
    here = {"AGNO_DATABASE_URL": _new_database(servers, "fresh_for_agents")}
    type_("db", "upgrade", **here)
    listed = {agent["name"]: agent for agent in type_("agents", "ls", "--json", **here).json}
    assert (listed["echo"]["queue"], listed["echo"]["tools"], listed["echo"]["seen_at"]) == (
        "agents",
        [],
        None,
    )
    assert "add" in listed["caller"]["tools"]
    assert "shouter  queue agents, not registered\n" in type_("agents", "ls", **here).out
    assert type_("agents", "ls", AGNO_IMPORTS="", **here).out.startswith("No agents: ")
    nowhere = type_("agents", "ls", AGNO_DATABASE_URL="", AGNO_BROKER_URL="")
    assert "shouter  queue agents, not registered\n" in nowhere.out
    assert "AGNO_DATABASE_URL is not set" in nowhere.err


def test_agents_ls_lists_agents_that_workers_have_registered(type_: Type, worker: Worker) -> None:
    shown = type_("agents", "ls", AGNO_IMPORTS="").out
    assert re.search(r"^shouter  queue agents, registered \d+ \w+ ago$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    "command", ["runs ls", "runs waiting", "workers ls", "dead ls", "knowledge ls", "db upgrade", "agents ls", "run echo hi --no-wait"]
)  # fmt: skip
def test_command_that_needs_only_postgres_is_content_with_it(type_: Type, command: str) -> None:
    typed = type_(*command.split(), AGNO_BROKER_URL="")
    assert (typed.status, typed.err) == (0, "")


# db and doctor.


def test_prune_lists_old_runs_and_deletes_them_when_told(
    type_: Type, worker: Worker, client: Client, database_url: str
) -> None:
    old = client.runs.submit("echo", "hello", idempotency_key="k")
    old.wait(30)
    new = client.runs.submit("echo", "hello again")
    new.wait(30)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE agno.run SET ended_at = now() - interval '91 days' WHERE id = %s", [old.id]
        )
        until(
            lambda: connection.execute("SELECT FROM agno.outbox").fetchall() == []
        )  # deleted a moment after the send
    listed = type_("runs", "prune", "--older-than", "90d").out
    assert "1 run would be deleted" in listed
    assert "1 idempotency key would be forgotten" in listed
    assert old.status is RunStatus.DONE
    assert type_("runs", "prune", "--older-than", "90d", "--yes").out.startswith("Deleted 1 run ")
    assert [run.id for run in client.runs.list()] == [new.id]
    assert type_("runs", "prune", "--older-than", "90d").out == "No runs to delete.\n"


def test_live_text_of_a_turn_follows_its_start(worker: Worker, client: Client) -> None:
    run = client.runs.submit("echo", "hello")
    seen: list[str] = []
    for each in run.events(timeout=30):
        if isinstance(each, Streamed):
            assert each.attempt == 1
            assert f"ModelCallStarted {each.step_id}" in seen
            assert f"ModelCallCompleted {each.step_id}" not in seen
        seen.append(type(each).__name__ if isinstance(each, Streamed) else f"{each.event} {each.subject}")
    assert "Streamed" in seen


def test_db_upgrade_brings_a_new_database_to_the_newest_schema(type_: Type, servers: Servers) -> None:
    url = _new_database(servers, "fresh_for_upgrade")
    early = type_("runs", "ls", AGNO_DATABASE_URL=url)
    assert (early.status, early.err.count("\n")) == (2, 1)
    assert "run `agno-workers db upgrade`" in early.err
    broken = type_("doctor", AGNO_DATABASE_URL=url)
    assert broken.status == 1
    failures = [line for line in broken.out.splitlines() if line.startswith("fail")]
    assert [line.split()[1] for line in failures] == ["schema"], "what depends on the tables is left out"
    assert "this database lacks our tables: run `agno-workers db" in failures[0]
    assert re.fullmatch(
        r"The schema is at \w+ \(was: none\).\n", type_("db", "upgrade", AGNO_DATABASE_URL=url).out
    )
    assert re.fullmatch(r"The schema is at \w+ already.\n", type_("db", "upgrade", AGNO_DATABASE_URL=url).out)


def test_doctor_reports_ok_for_each_check(type_: Type, worker: Worker) -> None:
    report = type_("doctor", "--json")
    assert report.status == 0
    assert {finding["about"]: finding["level"] for finding in report.json} == dict.fromkeys(
        ["versions", "Postgres", "schema", "pgvector", "messages", "Redis", "queues", "runs", "clocks"], "ok"
    )


def test_doctor_finds_a_queue_without_a_worker(type_: Type) -> None:
    type_("run", "echo", "hi", "--no-wait")
    report = type_("doctor")
    assert report.status == 1
    assert re.search(
        r"fail +queues +No worker consumes the queue 'agents' \(1 step, waiting for up to .*\): start one",
        report.out,
    )


def test_doctor_finds_a_redis_that_evicts_keys(type_: Type, redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    try:
        report = type_("doctor")
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
        redis_client.config_set("appendonly", "yes")
    assert report.status == 1
    assert "fail Redis     Redis runs with maxmemory-policy 'allkeys-lru'" in report.out
    assert "warn Redis     Redis has no append-only file" in report.out


def test_doctor_continues_without_redis(type_: Type) -> None:
    report = type_("doctor", AGNO_BROKER_URL="redis://127.0.0.1:1/0")
    assert report.status == 1
    assert "ok   schema" in report.out
    assert "fail Redis     Redis can't be reached" in report.out
    assert "Traceback" not in report.out + report.err


# Mistakes.

WRONG: dict[str, tuple[list[str], dict[str, str], str]] = {
    "an unknown setting": (["runs", "ls"], {"AGNO_DATABSE_URL": "x"}, "did you mean 'AGNO_DATABASE_URL'?"),
    "a setting of the wrong kind": (["runs", "ls"], {"AGNO_RUNS__LEASE_S": "soon"}, "AGNO_RUNS__LEASE_S"),
    "one address of two": (["up"], {"AGNO_BROKER_URL": ""}, "AGNO_BROKER_URL is not"),
    "no Postgres for a command that needs it": (
        ["runs", "ls"],
        {"AGNO_DATABASE_URL": ""},
        "AGNO_DATABASE_URL is not set, and this command needs it",
    ),
    "no Redis for a command that needs it": (
        ["run", "echo", "hi", "--stream"],
        {"AGNO_BROKER_URL": ""},
        "AGNO_BROKER_URL is not set, and this command needs it",
    ),
    "no address at all": (
        ["runs", "ls"],
        {"AGNO_DATABASE_URL": "", "AGNO_BROKER_URL": ""},
        "start everything here with",
    ),
    "no address of Postgres": (["runs", "ls"], {"AGNO_DATABASE_URL": "nonsense"}, "write postgresql://"),
    "another database": (
        ["db", "upgrade"],
        {"AGNO_DATABASE_URL": "mysql://me:secret@host/db"},
        "write postgresql://",
    ),
    "a Postgres that does not answer": (
        ["runs", "ls"],
        {"AGNO_DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/db"},
        "Postgres can't be reached",
    ),
    "no address of Redis": (["up"], {"AGNO_BROKER_URL": "nonsense"}, "write redis://"),
    "a Redis that does not answer": (
        ["up"],
        {"AGNO_BROKER_URL": "redis://:secret@127.0.0.1:1/0"},
        "Redis can't be reached",
    ),
    "a read-only Postgres": (
        ["db", "adopt", "--keep-runs"],
        {"PGOPTIONS": "-c default_transaction_read_only=on"},
        "this database is read-only now",
    ),
    "a role that does not exist": (["db", "grants", "nobody"], {}, "role 'nobody' does not exist: create it"),
    "an age that is no length of time": (
        ["runs", "prune", "--older-than", "soon"],
        {},
        "--older-than 'soon' is not a length of time",
    ),
    "an unknown run": (["runs", "show", "0198c0de-0000-7000-8000-000000000000"], {}, "no run"),
    "text that is not an id": (["runs", "cancel", "nonsense"], {}, "is not a run id"),
    "an unknown status": (
        ["runs", "ls", "--status", "lost"],
        {},
        "--status 'lost' is not a status: use one of queued",
    ),
    "an unknown agent": (["run", "eco", "hi"], {}, "Did you mean 'echo'?"),
    "an empty input": (["run", "echo", "  "], {}, "is empty"),
    "an unknown if_busy": (
        ["run", "echo", "hi", "--session", "s", "--if-busy", "stear"],
        {},
        "Did you mean 'steer'?",
    ),
    "if_busy without a session": (["run", "echo", "hi", "--if-busy", "steer"], {}, "add --session ID"),
    "agents that can't be imported": (
        ["agents", "ls"],
        {"AGNO_IMPORTS": "nothing.here"},
        "cannot be imported",
    ),
    "a document that is not there": (["demo", "/nothing/here"], {}, "does not exist"),
    "a model that is none": (["demo", "--model", "gpt"], {}, "write provider:model"),
    "a model without its key": (
        ["demo", "--model", "openai:gpt-5"],
        {"OPENAI_API_KEY": ""},
        "OPENAI_API_KEY is not set",
    ),
    "a state folder that can't be written to": (
        ["up"],
        {"AGNO_DATABASE_URL": "", "AGNO_BROKER_URL": "", "AGNO_STATE_DIR": "/proc/state"},
        "set AGNO_STATE_DIR to a folder of your own",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_answered_in_one_sentence(type_: Type, mistake: str) -> None:
    arguments, changed, said = WRONG[mistake]
    answer = type_(*arguments, **changed)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("agno-workers: ")
    assert "secret" not in answer.err + answer.out


@pytest.mark.parametrize("command", ["agents ls", "run echo hi"])
def test_lines_of_a_module_that_can_not_be_imported_are_shown(
    type_: Type, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_agents.py").write_text("KEY = {}['none']\n")
    monkeypatch.syspath_prepend(tmp_path)
    answer = type_(*command.split(), AGNO_IMPORTS="half_agents")
    first, place, *_, error, sentence = answer.err.splitlines()
    assert (answer.status, first) == (2, "Traceback (most recent call last):")
    assert place == f'  File "{tmp_path}/half_agents.py", line 1, in <module>'
    assert error == "KeyError: 'none'"
    assert sentence.startswith(
        "agno-workers: AGNO_IMPORTS names 'half_agents', which cannot be imported: KeyError"
    )


def test_taken_port_is_named(type_: Type) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = type_("up", "--flower", "--flower-port", str(taken.getsockname()[1]))
    assert answer.status == 2
    assert "choose another with --flower-port" in answer.err


# up.


def test_up_serves_runs_and_flower_and_ends_in_order(start_program: StartProgram, type_: Type) -> None:
    imports = {"AGNO_IMPORTS": "tests.agents,examples.first"}
    port = _free_port()
    up = start_program(
        "up", "--agents", "2", "--tools", "2", "--flower", "--flower-port", str(port), **imports
    )
    password = up.wait_for("read-only; user agno, password ").split()[-1]
    assert type_("run", "shouter", "hi").out == "HI\n"

    answer = _stdout(sys.executable, "-m", "examples.first", **up.environment)
    assert "What is a barrier?" in answer

    shutdown = ["curl", "-s", "-X", "POST", f"http://127.0.0.1:{port}/api/worker/shutdown/x"]
    assert _stdout(*shutdown, "-o", "/dev/null", "-w", "%{http_code}") == "401"
    assert "Read only" in _stdout(*shutdown, "-u", f"agno:{password}")

    everything = up.family()
    assert not [pid for pid in everything.pids if password in Path(f"/proc/{pid}/cmdline").read_text()]
    up.signal(signal.SIGTERM)
    assert up.end() == 128 + signal.SIGTERM
    assert everything.are_gone()


def test_up_with_agents_that_can_not_be_imported_ends(start_program: StartProgram) -> None:
    up = start_program("up", AGNO_IMPORTS="nothing.here")
    assert up.end() == 2
    said = "agno-workers: the (agents|tools|background|knowledge) worker could not start: AGNO_IMPORTS names 'nothing.here'"
    assert re.match(said, up.lines[-1])
    assert "Traceback" not in "".join(up.lines)


def test_up_starts_servers_of_its_own_and_all_ends_when_it_is_killed(
    start_program: StartProgram, type_: Type, tmp_path: Path
) -> None:
    nowhere = {"AGNO_DATABASE_URL": "", "AGNO_BROKER_URL": ""}
    up = start_program("up", "--agents", "1", "--tools", "1", **nowhere)
    up.wait_for("Everything is up")
    assert type_("runs", "ls", **nowhere).out == "No runs.\n"  # a second shell needs no exports

    up.wait_for('eval "$(agno-workers env)"')
    worker = int(re.findall(r"agents: process (\d+)", "".join(up.lines))[0])
    os.kill(worker, signal.SIGKILL)
    up.wait_for(f"process {worker} ended (SIGKILL), starting it again now")
    up.wait_for(" ready.")

    everything = up.family()
    assert len(everything) > 8  # keepers, workers, Valkey, Postgres and its children
    up.signal(signal.SIGKILL)
    assert everything.are_gone()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _stdout(*command: str, **environment: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=os.environ | environment, cwd=ROOT
    ).stdout


def _new_database(servers: Servers, name: str) -> str:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
