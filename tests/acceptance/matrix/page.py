"""Write docs/crash_matrix.md from the cells: `python -m tests.acceptance.matrix.page`. A test fails when the page is behind them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from agno_workers.signals import SIGNALS
from tests.acceptance.matrix.cases import ALL
from tests.acceptance.matrix.cells import CELLS, Cell

PAGE = Path(__file__).parents[3] / "docs" / "crash_matrix.md"
MATRIX = "acceptance/test_crash_matrix.py"
CRASHES = "acceptance/test_crashes.py"
LIFE = "acceptance/test_worker_life.py"
BAD = "acceptance/test_bad_messages.py"

PROMISES = {
    "C1": ("a client dies before its submit commits", "nothing is stored; a repeated submit is safe", "-"),
    "C2": ("a submit has committed, and the client dies before it knows", "a repeated submit with the key returns the same run", "at once"),
    "C3": ("a submit has committed, and its message is never sent", "the keeper sends it", "1 s"),
    "C4": ("a message is sent, and its outbox row remains", "it is sent twice; the second claim gets no row", "at once"),
    "C5": ("Redis loses its data", "everything ready is sent again", "2 s"),
    "C6": ("a worker dies with a message that it has received", "its queue is empty and nobody has claimed the step: it is sent again", "4 s"),
    "C7": ("a process dies between receiving a message and claiming the step", "as C6", "4 s"),
    "C8": ("a process dies while it executes a step", "the lease expires; by its effect the step runs again or becomes `unknown`",
           "16 s; for a prefork child 1 s"),
    "C9": ("a process dies after the effect, before the result is committed", "as C8, with the same idempotency key", "16 s"),
    "C10": ("a commit succeeds, and its answer is lost", "the committed result counts", "16 s"),
    "C11": ("a process dies after a commit, before it sends the next messages", "the keeper sends them", "1 s"),
    "C12": ("the next messages are sent, and the previous message is delivered again", "its claim gets no row", "at once"),
    "C13": ("a process dies while it sends a group of messages", "the keeper sends the others; the barrier closes", "1 s"),
    "C14": ("the last tools of a turn commit at the same time", "the next turn runs once", "at once"),
    "C15": ("a lease expires, and its worker lives", "the first commit wins; the other changes nothing", "at once"),
    "C16": ("a run is cancelled while it works or waits", "late results are refused; delegated runs end as well", "5 s"),
    "C17": ("Redis is down", "submits are accepted, running steps commit; the rest continues afterwards", "2 s"),
    "C18": ("Postgres restarts", "finished results are held and committed; steps may run again, by their effect", "the lease"),
    "C19": ("the keeper dies", "another worker's keeper takes over", "5 s"),
    "C20": ("a step kills its worker each time, or no worker has the task", "the attempts are limited; then the step is `dead`, and can be retried", "-"),
    "C21": ("a worker is asked to stop", "it takes no more messages, finishes within its grace time, and hands over the rest", "1 s"),
    "C22": ("Postgres is restored from a backup that is older than Redis", "messages with unknown ids are dropped; a new epoch sends everything again",
            "2 s"),
    "C23": ("Redis refuses commands: `READONLY` in a failover, `MISCONF` with a full disk, `NOPERM`, `WRONGTYPE`, `NOAUTH`, `OOM`",
            "as C17: workers wait, with one line in the log", "3 s"),
    "C24": ("a message reaches a session whose live run, client or worker dies", "`if_busy` decides as always: runs keep their order, and no message is lost or repeated",
            "as C8 and C11"),
    "-": ("long and large runs", "leases are renewed, and storage grows linearly", "-"),
}  # fmt: skip
"""A fault, its effect, and the time limit with the default settings."""


class Row(NamedTuple):
    number: str
    done: str
    holds: str
    test: str
    """`file::function`, or `file[id]` for a cell."""


ELSEWHERE = (
    Row("C3", "a process commits a run and never sends its message", "the run is done", f"{CRASHES}::test_c3_what_was_committed_but_never_published_is_published_by_the_keeper"),
    Row("C3", "a transaction with a submit in SQL commits, or is rolled back", "the run exists, or does not exist", f"{CRASHES}::test_a_run_submitted_in_sql_lives_and_dies_with_the_callers_transaction"),
    Row("C4", "the message of a turn is in Redis three times", "the turn is executed once", f"{CRASHES}::test_c4_a_message_that_is_sent_twice_is_carried_once"),
    Row("C5", "Redis is flushed, restarts empty, or fails over to an older state, with turns, a tool and a delegated run in it", "everything is sent again within 12 rounds of the keeper", f"{CRASHES}::test_c5_after_redis_lost_its_memory_all_that_is_ready_is_sent_again"),
    Row("C6", "a message is taken from Redis, and lost", "it is sent again", f"{CRASHES}::test_c6_a_message_that_a_dying_worker_took_along_is_sent_again"),
    Row("C10", "a submit commits, and its answer is dropped", "the client is told that the outcome is unknown; with the key it gets that run", f"{CRASHES}::test_c10_a_submit_whose_answer_is_lost_is_safe_to_repeat"),
    Row("C10", "the result of a turn or a tool commits, and its answer is dropped", "the committed result counts; nothing is executed again", f"{CRASHES}::test_c10_a_result_whose_commit_was_not_answered_is_found_recorded"),
    Row("C10", "the claim of a tool commits, and its answer is dropped", "the lease expires, and another worker executes the tool; a `once` tool becomes `unknown`", f"{CRASHES}::test_c10_a_claim_whose_commit_was_not_answered_expires_by_its_effect"),
    Row("C14", "the two last parts commit on two connections, in each order", "one of them starts the turn", "integration/runs/test_interleavings.py::test_concurrent_transactions_are_serializable"),
    Row("C16", "a run is cancelled while a tool of its delegated run works, on threads and on prefork, without remote control", "`ctx.cancelled()` is true at the next renewal", f"{CRASHES}::test_c16_a_cancel_reaches_a_tool_of_a_delegated_run_within_a_heartbeat_without_remote_control"),
    Row("C17", "Redis is killed, then a run is submitted, or a tool ends", "both are committed, and the run is done when Redis is back", f"{CRASHES}::test_c17_while_redis_is_down_work_is_accepted_and_recorded_and_goes_on_when_it_is_back"),
    Row("C18", "Postgres is killed while a model, a tool or a transactional tool works", "the result is held and committed; the transaction runs again, and writes one row", f"{CRASHES}::test_c18_while_postgres_is_down_results_are_held_and_a_transaction_is_begun_anew"),
    Row("C20", "a message names a task that no worker has", "it is quarantined, and a waiting caller is told", f"{BAD}::test_an_unknown_task_is_kept_and_whoever_waits_is_told"),
    Row("C21", "SIGTERM, and a tool takes longer than the grace time", "it is handed over, and not counted as a failure", f"{LIFE}::test_what_is_not_done_within_the_grace_time_is_carried_by_another"),
    Row("C21", "SIGTERM, with messages that were received and not started", "they return to their queue at once", f"{LIFE}::test_what_was_taken_and_not_begun_goes_to_another_while_the_first_still_works"),
    Row("C21", "SIGTERM while a `once` tool works", "the worker waits for it; it is executed once", f"{LIFE}::test_a_once_tool_is_waited_for_and_runs_once"),
    Row("C21", "SIGTERM while a tool works for a long time", "its lease is renewed until it ends", f"{CRASHES}::test_c21_a_step_keeps_its_lease_until_a_worker_that_was_asked_to_end_is_done"),
    Row("C22", "a backup from the middle of runs is restored, and Redis is newer", "runs of the backup continue; other messages are dropped; the epoch is new", f"{CRASHES}::test_c22_a_restored_backup_goes_on_from_where_it_was"),
    Row("C23", "Redis refuses commands, on threads and on prefork; then a run is submitted, or a tool ends", "both are committed, and the run is done when Redis accepts commands again; one line is logged", f"{CRASHES}::test_c23_while_redis_refuses_commands_work_is_accepted_and_goes_on_afterwards"),
    Row("C23", "the memory of Redis is full", "queued steps are executed; what is submitted is sent when there is room again", f"{CRASHES}::test_c23_while_redis_is_full_queues_are_emptied_and_the_keeper_sends_the_rest_afterwards"),
    Row("C23", "the wait for messages is ended with `UNBLOCKED`", "the worker waits again", f"{CRASHES}::test_c23_a_worker_whose_wait_for_messages_is_ended_waits_again"),
    Row("C24", "twenty runs of a session; two workers are killed, and Redis is flushed twice", "all end, once, in the order of their submits", f"{CRASHES}::test_c24_runs_of_a_session_keep_their_order_through_kills_and_a_wipe_of_redis"),
    Row("-", "leases are never renewed, and a turn takes longer than three of them", "its first result is committed, the others are refused", f"{CRASHES}::test_work_that_outlives_every_lease_ends_with_its_first_result"),
)  # fmt: skip


def rows() -> list[Row]:
    cells = [Row(each.number, each.done, each.holds, f"{MATRIX}[{each.id}]") for each in ALL]
    return [*cells, *ELSEWHERE]


def text() -> str:
    parts = [_HEAD.format(cells=len(rows()))]
    for number, (happens, follows, within) in PROMISES.items():
        title = f"## {number}: {happens}" if number != "-" else f"## {_begun(happens)}"
        parts += [
            f"\n{title}\n\n{_begun(follows)}." + (f" Recovery time: {within}." if within != "-" else "")
        ]
        parts += _products([cell for cell in CELLS if cell.number == number])
        parts += _single([row for row in rows() if row.number == number and row.test not in _PRODUCT])
    return "\n".join(parts) + "\n"


def _products(cells: list[Cell]) -> list[str]:
    """Return a table with a row for each place and way to die, and its kinds of steps by what must hold."""
    if not cells:
        return []
    table = ["", "| process dies | by | in a step | what must hold |", "| --- | --- | --- | --- |"]
    for (place, how, holds), same in groupby(
        sorted(cells, key=_in_table), key=lambda cell: (cell.place, cell.how, cell.holds)
    ):
        kinds = ", ".join(cell.kind.name for cell in same)
        table.append(f"| `{place}`: {SIGNALS[place]} | {how} | {kinds} | {_begun(holds)} |")
    return table


def _single(found: list[Row]) -> list[str]:
    if not found:
        return []
    table = ["", "| fault | what must hold | test |", "| --- | --- | --- |"]
    return table + [f"| {_begun(row.done)} | {_begun(row.holds)} | `{row.test}` |" for row in found]


def _in_table(cell: Cell) -> tuple[int, str, str, int]:
    return list(SIGNALS).index(cell.place), cell.how, cell.holds, CELLS.index(cell)


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


_PRODUCT = {f"{MATRIX}[{cell.id}]" for cell in CELLS}
_HEAD = """\
# The crash matrix

Each of the {cells} cells is a test, all but one (C14, two connections) with real workers, Postgres and Redis. After each test with
workers the invariants of `tests/invariants.py` must hold; in the two files below the sums of usage and cost, too. Repeated
executions must not exceed the crashes. Times are those of the default settings; tests count rounds of the
keeper, with shorter leases.

```sh
./run test tests/acceptance/test_crash_matrix.py tests/acceptance/test_crashes.py
```

A process dies at a named place by `AGNO_CRASH_AT` (`agno_workers/failpoints.py`). Tables with a place are part of `tests/acceptance/test_crash_matrix.py`, with a
test for each place, way to die and step. `python -m tests.acceptance.matrix.page` writes this page."""


if __name__ == "__main__":
    PAGE.write_text(text())
