"""`./run chaos`: short runs that must hold, its instruments one by one, and that its verdict goes red when it should."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from msgspec.structs import replace

from agno_workers.local import LocalServers
from benchmarks.corpus import Corpus
from tests import invariants
from tests.chaos import ingest
from tests.chaos.history import (
    Execution,
    FinalState,
    History,
    MessageRow,
    RunRow,
    StepRow,
    Submission,
    recovery,
    verdict,
)
from tests.chaos.plan import KINDS, plan
from tests.chaos.proxy import Mode, Network, Proxy

ROOT = Path(__file__).parents[2]
PATIENCE_S = 10.0

# Whole runs.


@pytest.mark.parametrize("seed", [10, 23])
def test_nothing_accepted_is_lost_and_nothing_is_doubled_under_random_faults(
    seed: int, tmp_path: Path
) -> None:
    report = tmp_path / "chaos.json"
    ran = subprocess.run(
        chaos("--seconds", "6", "--seed", str(seed), "--settle", "60", "--no-fsync", "--json", str(report)),
        cwd=ROOT, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(report.read_bytes())
    (found,) = said["verdicts"].values()
    counters = found["counters"]
    assert (counters["lost"], counters["duplicated"], found["broken"]) == (0, 0, [])
    assert counters["acknowledged"] > 10
    assert counters["faults"] == len(said["plan"]) > 3
    assert counters["tool executions in the ledger"] > 10


def test_documents_are_the_same_whether_workers_die_meanwhile_or_not(tmp_path: Path) -> None:
    Corpus(150, chars=3000).write(tmp_path / "documents")
    report = tmp_path / "chaos.json"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.ingest", str(tmp_path / "documents"), "--kill-every", "1.5", "--json", str(report)],
        cwd=ROOT, capture_output=True, text=True, timeout=115,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counters = json.loads(report.read_bytes())["counters"]
    assert (counters["documents"], counters["missing or different"], counters["vectors twice or missing"]) == (150, 0, 0)  # fmt: skip
    assert counters["FLUSHALL"] == 2
    assert counters["chunks"] > 500


def test_the_comparison_is_red_when_a_document_differs() -> None:
    same = [("a.md", "1f")], [("1f", 0, "aa", True, 1, "v")]
    for storm in (
        ([], same[1]),
        (same[0], []),
        (same[0], same[1] * 2),
        (same[0], [("1f", 0, "aa", True, 2, "v")]),
        (same[0], [("1f", 0, "aa", True, 1, "w")]),
    ):
        assert ingest.different(same, storm), storm
    assert not ingest.different(same, same)


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    command = chaos("--seconds", "60", "--seed", "1", "--no-fsync", "--keep", str(tmp_path / "kept"))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ours:
        ledger = tmp_path / "kept" / "ledger"
        invariants.until(lambda: ledger.exists() or ours.poll() is not None, timeout_s=60)
        ours.send_signal(signal.SIGINT)
        said, _ = ours.communicate(timeout=60)
    assert ours.returncode == 130, said.decode()
    assert b"Traceback" not in said
    assert processes_that_know(str(tmp_path / "kept")) == []


# The plan.


def test_the_same_seed_gives_the_same_faults() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_every_kind_of_fault_comes_and_a_lane_has_one_at_a_time() -> None:
    faults = plan(7, 120)
    assert {fault.kind for fault in faults} == {kind for kinds in KINDS.values() for kind in kinds}
    for lane in KINDS:
        mine = [fault for fault in faults if fault.lane == lane]
        for fault, later in pairwise(mine):
            assert fault.at_s + fault.seconds < later.at_s


# The line.


class Server(socketserver.ThreadingTCPServer):
    """Answers each line with its capitals, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Capitals)


class Capitals(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Server)
        try:
            for line in self.rfile:
                self.server.heard.append(line)
                self.wfile.write(line.upper())
        except OSError:
            pass  # the line was cut


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def line(network: Network, server: Server) -> Proxy:
    return network.proxy(("127.0.0.1", server.server_address[1]))


@pytest.fixture
def connect(line: Proxy) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", line.port), timeout=PATIENCE_S))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


Connect = Callable[[], socket.socket]


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(100)


def test_a_line_that_is_well_passes_everything_on(connect: Connect) -> None:
    client = connect()
    assert ask(client, b"a\n") == b"A\n"
    assert ask(client, b"b\n") == b"B\n"


def test_a_slow_line_takes_its_time_in_both_directions(line: Proxy, connect: Connect) -> None:
    client = connect()
    assert ask(client, b"a\n") == b"A\n"
    line.set(Mode.SLOW, delay_s=0.1)
    began = time.monotonic()
    assert ask(client, b"b\n") == b"B\n"
    assert time.monotonic() - began >= 0.2


def test_a_line_that_resets_cuts_those_who_are_connected_and_those_who_come(
    line: Proxy, connect: Connect
) -> None:
    client = connect()
    assert ask(client, b"a\n") == b"A\n"
    line.set(Mode.RESET)
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    with pytest.raises(ConnectionResetError):
        connect().recv(100)
    line.set(Mode.PASS)
    assert ask(connect(), b"b\n") == b"B\n"


def test_a_silent_line_forwards_nothing_until_it_is_well(
    line: Proxy, connect: Connect, server: Server
) -> None:
    known = connect()
    assert ask(known, b"a\n") == b"A\n"
    line.set(Mode.SILENT)
    new = connect()
    for client in (known, new):
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(client, b"b\n")
    assert server.heard == [b"a\n"]
    line.set(Mode.PASS)
    for client in (known, new):
        client.settimeout(PATIENCE_S)
        assert client.recv(100) == b"B\n"
    assert server.heard == [b"a\n", b"b\n", b"b\n"]


def test_what_a_silent_line_holds_arrives_even_if_its_sender_has_left(
    line: Proxy, connect: Connect, server: Server
) -> None:
    client = connect()
    assert ask(client, b"a\n") == b"A\n"
    line.set(Mode.SILENT)
    client.sendall(b"b\n")
    client.close()
    line.set(Mode.PASS)
    invariants.until(lambda: server.heard == [b"a\n", b"b\n"], PATIENCE_S)


def test_a_line_that_loses_answers_delivers_the_request_and_resets(
    line: Proxy, connect: Connect, server: Server
) -> None:
    line.set(Mode.LOSE_ANSWERS)
    with pytest.raises(ConnectionResetError):
        ask(connect(), b"a\n")
    assert (server.heard, line.swallowed) == ([b"a\n"], 1)


def test_a_commit_arrives_and_its_answer_does_not(
    network: Network, servers: LocalServers, database_url: str
) -> None:
    parts = urlsplit(database_url)
    line = network.proxy(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432")
    with psycopg.connect(
        f"postgresql://agno@127.0.0.1:{line.port}{parts.path}", autocommit=True
    ) as connection:
        line.set(Mode.LOSE_ANSWERS)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("CREATE TABLE kept ()")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


def test_a_line_to_a_server_that_is_down_is_cut(network: Network) -> None:
    line = network.proxy("/nobody/is/here")
    with pytest.raises(ConnectionResetError):  # by the connect or by the read, whichever is first to notice
        socket.create_connection(("127.0.0.1", line.port), timeout=PATIENCE_S).recv(100)


# The verdict.

DONE = RunRow("r1", "k1", "", "done")
TURN = StepRow("r1", 0, "turn:1", "done", 1)
PAID = StepRow("r1", 0, "tool:1:0", "done", 1, "once", "c1")
BOOKED = StepRow("r1", 0, "tool:1:1", "done", 1, "transactional", "c2")
PAYS = Execution("once", "r1", "c1", "s1", 1)
BOOKS = Execution("transactional", "r1", "c2", "s2", 1)
GOOD = FinalState([DONE], [TURN, PAID, BOOKED], {}, [PAYS, BOOKS], [("r1", "c2")], {"k1"})
TOLD = Submission("k1", "sql", 1, ["r1"], 1)

TALKED = FinalState([DONE], talk=[MessageRow("k1", "s", "r1", 1)])
SAID = Submission("k1", "session, queued", 1, ["r1"], 1)

RED = {
    "an acknowledged run is not in Postgres": (replace(GOOD, runs=[], steps=[], ledger=[], bookings=[], ordered=set()),
        TOLD, "lost: sql k1 was told r1, which is not in Postgres"),
    "an acknowledged run never ends": (replace(GOOD, runs=[replace(DONE, status="waiting")]),
        TOLD, "run r1 is still waiting"),
    "a part of a canvas became nothing": (GOOD, replace(TOLD, run_ids=["r1", "r2"], acknowledged=1),
        "was told r2, which is not in Postgres"),
    "one key has two runs": (replace(GOOD, runs=[DONE, replace(DONE, id="r2")]),
        TOLD, "duplicated: k1 has 2 runs: r1, r2"),
    "one key was told two runs": (replace(GOOD, results={"r2": "FAILURE"}),
        replace(TOLD, run_ids=["r1", "r2"], acknowledged=2), "was told different runs: ['r1', 'r2']"),
    "a once tool is executed twice": (replace(GOOD, ledger=[PAYS, replace(PAYS, attempt=2), BOOKS]),
        TOLD, "duplicated: once, 2 times: run r1, c1"),
    "a transaction is committed twice": (replace(GOOD, bookings=[("r1", "c2")] * 2),
        TOLD, "duplicated: transactional, 2 rows: run r1, c2"),
    "a step is executed again after it was done": (replace(GOOD, ledger=[PAYS, PAYS, BOOKS]),
        TOLD, "duplicated: 2 executions in 1 attempts: run r1, c1"),
    "a repeated call gets another key": (replace(GOOD, ledger=[PAYS, BOOKS, replace(BOOKS, key="s3")]),
        TOLD, "one call with 2 idempotency keys: run r1, c2"),
    "a step has two recorded results": (replace(GOOD, steps=[replace(TURN, winners=2), PAID, BOOKED]),
        TOLD, "2 recorded results: run r1, turn:1"),
    "a step is done without a result": (replace(GOOD, steps=[replace(TURN, winners=0), PAID, BOOKED]),
        TOLD, "0 recorded results: run r1, turn:1"),
    "one step is there twice": (replace(GOOD, steps=[TURN, TURN, PAID, BOOKED]),
        TOLD, "two steps with one key"),
    "a tool is done that was never executed": (replace(GOOD, ledger=[BOOKS]),
        TOLD, "once is done and was never executed"),
    "a transaction is done without its row": (replace(GOOD, bookings=[]),
        TOLD, "transactional is done with no row"),
    "a transaction left a row and is not done": (replace(GOOD, steps=[TURN, PAID, replace(BOOKED, status="dead")]),
        TOLD, "transactional is dead with a row"),
    "a failed transaction left a row": (replace(GOOD, steps=[TURN, PAID, replace(BOOKED, is_error=True)]),
        TOLD, "transactional is done with a row"),
    "a submit in SQL is torn from its transaction": (replace(GOOD, ordered=set()),
        TOLD, "torn: k1"),
    "a message of a session is in no transcript": (replace(TALKED, talk=[]),
        SAID, "lost: session, queued k1 is in no transcript"),
    "a message of a session is read twice": (replace(TALKED, talk=[MessageRow("k1", "s", "r1", 1)] * 2),
        SAID, "duplicated: k1 is 2 times in its session"),
    "a message to a live run is forgotten": (TALKED,
        Submission("k1", "session, steered", 1, ["t1"], 1), "was told t1, which is not in Postgres"),
}  # fmt: skip
"""What is wrong, and what the verdict must say."""


def judged(state: FinalState, *submissions: Submission) -> tuple[dict[str, object], list[str]]:
    history = History()
    history.submissions += submissions
    found = verdict(history, state)
    return found.counters, found.broken


@pytest.mark.parametrize("wrong", RED)
def test_the_verdict_is_red_when(wrong: str) -> None:
    state, told, says = RED[wrong]
    counters, broken = judged(state, told)
    assert [line for line in broken if says in line], broken
    assert counters["lost"] == sum(line.startswith("lost") for line in broken)
    assert counters["duplicated"] == sum(line.startswith("duplicated") for line in broken)


def test_the_verdict_is_red_when_a_callers_messages_change_their_order() -> None:
    runs = [DONE, replace(DONE, id="r2", submission="k2")]
    said = [Submission(f"0-{n}", "session, queued", 1, [f"r{n}"], 1) for n in (1, 2)]
    talk = [MessageRow("0-1", "s", "r1", 2), MessageRow("0-2", "s", "r2", 1)]
    assert judged(FinalState(runs, talk=talk), *said)[1] == [
        "out of order: 0-2 at place 1 of session s, after 0-1 at place 2"
    ]
    assert judged(FinalState(runs, talk=[replace(talk[0], session="t"), talk[1]]), *said)[1] == []


def test_the_verdict_is_green_when_every_promise_was_kept() -> None:
    nobody_heard = Submission("k2", "client", 2, [], 0)
    stored = replace(DONE, id="r2", submission="k2")
    counters, broken = judged(replace(GOOD, runs=[DONE, stored]), TOLD, nobody_heard)
    assert broken == []
    assert (counters["lost"], counters["duplicated"], counters["unacknowledged but stored"]) == (0, 0, 1)


def test_a_once_tool_that_is_unknown_may_have_happened_once() -> None:
    unknown = replace(PAID, status="unknown")
    for ledger in ([PAYS, BOOKS], [BOOKS]):
        counters, broken = judged(replace(GOOD, steps=[TURN, unknown, BOOKED], ledger=ledger), TOLD)
        assert (broken, counters["unknown"]) == ([], 1)


def test_a_door_that_raises_what_it_does_not_promise_is_told() -> None:
    history = History()
    history.surprise(history.begin("k1", "delay"), KeyError("x"))
    assert verdict(history, FinalState()).broken == [
        "a door raised what it does not promise: delay of k1: KeyError: 'x'"
    ]


def test_recovery_is_the_time_from_a_fault_to_the_next_step() -> None:
    assert recovery([10.0, 20.0], [9.0, 11.0, 22.0]) == {"p50": 1.5, "p95": 1.95, "max": 2.0}
    assert recovery([10.0], [9.0]) == {}


def chaos(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.chaos", *arguments]


def processes_that_know(text: str) -> list[str]:
    """The command lines of processes with this text in their environment or on their command line."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes()
                if text.encode() in command + (process / "environ").read_bytes():
                    found.append(command.decode(errors="replace"))
            except OSError:
                pass  # it has ended meanwhile
    return found
