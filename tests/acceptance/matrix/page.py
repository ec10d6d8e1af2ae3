"""docs/crash_matrix.md, from the cells themselves: `python -m tests.acceptance.matrix.page` writes it, a test holds it in step."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.acceptance.matrix.stories import ALL

PAGE = Path(__file__).parents[3] / "docs" / "crash_matrix.md"
MATRIX = "acceptance/test_crash_matrix.py"
CRASHES = "acceptance/test_crashes.py"
LIFE = "acceptance/test_worker_life.py"
BAD = "acceptance/test_bad_messages.py"

PROMISES = {
    "C1": ("the client dies before its submit commits", "nothing is stored; a retry with the key is safe", "-"),
    "C2": ("the submit has committed, the client does not hear of it", "a retry with the key gives the same run", "0"),
    "C3": ("committed, and never published", "the keeper publishes", "1 s"),
    "C4": ("published, and still in the outbox", "sent twice; the second claim gets no row", "0"),
    "C5": ("Redis loses its memory", "all that is ready is sent again", "2 s"),
    "C6": ("a worker dies with a message that it has popped", "sent again, since its queue is empty and nobody claimed it", "4 s"),
    "C7": ("a process dies between message and claim", "as C6", "4 s"),
    "C8": ("a process dies while it carries a step", "the lease expires; by its effect the step is run again or `unknown`",
           "16 s; a prefork child: 1 s"),
    "C9": ("the effect has happened, its result is not recorded", "as C8, with the same idempotency key", "16 s"),
    "C10": ("a commit arrives, its answer is lost", "what is done is found done", "16 s"),
    "C11": ("recorded, and what follows is not published", "the keeper publishes", "1 s"),
    "C12": ("what follows is published, and the message before it comes again", "it claims nothing", "0"),
    "C13": ("a process dies while it publishes a group", "the keeper sends the rest; the barrier closes all the same", "1 s"),
    "C14": ("the last tools commit together", "the turn after the barrier runs once", "0"),
    "C15": ("the lease is over, and the worker lives", "the first result wins, the other changes nothing", "0"),
    "C16": ("cancelled while something is under way", "late results are refused, delegated runs end, too", "5 s"),
    "C17": ("Redis is down", "submits are accepted, steps end and commit; all goes on when it is back", "2 s"),
    "C18": ("Postgres restarts", "finished results are held and recorded; claims may be repeated, by their effect", "the lease"),
    "C19": ("the keeper dies", "another worker's goes on", "5 s"),
    "C20": ("poison: a step that kills its worker, a task that nobody has", "attempts are bounded; then `dead`, to be sent again", "-"),
    "C21": ("a worker is asked to end", "it takes nothing more, finishes in its grace time, hands the rest over", "1 s"),
    "C22": ("Postgres is restored from a backup that is older than Redis", "unknown ids are dropped; a new epoch, and all is sent again",
            "2 s"),
    "-": ("patience and size", "whatever lasts long or grows", "-"),
}  # fmt: skip
"""What happens, what must follow, and within what time with the settings' defaults."""


class Row(NamedTuple):
    number: str
    done: str
    holds: str
    test: str
    """`file::function`, or `file[id]` of the parametrised matrix."""


ELSEWHERE = (
    Row("C3", "a run is committed by a process that never publishes", "it is done", f"{CRASHES}::test_c3_what_was_committed_but_never_published_is_published_by_the_keeper"),
    Row("C3", "a transaction with a submit in SQL commits, or is rolled back", "the run lives, or dies, with it", f"{CRASHES}::test_a_run_submitted_in_sql_lives_and_dies_with_the_callers_transaction"),
    Row("C4", "the message of a turn lies in Redis three times", "it is carried once", f"{CRASHES}::test_c4_a_message_that_is_sent_twice_is_carried_once"),
    Row("C5", "Redis is flushed, restarted empty, or fails over to an older state, with turns, a tool and a delegated run in it", "all is sent again within 12 rounds of the keeper", f"{CRASHES}::test_c5_after_redis_lost_its_memory_all_that_is_ready_is_sent_again"),
    Row("C6", "a message is popped, and forgotten", "it is sent again", f"{CRASHES}::test_c6_a_message_that_a_dying_worker_took_along_is_sent_again"),
    Row("C10", "a submit arrives, its answer is swallowed", "the client is told that it is not known; with the key it gets that run", f"{CRASHES}::test_c10_a_submit_whose_answer_is_lost_is_safe_to_repeat"),
    Row("C10", "the result of a turn, or of a tool, arrives, its answer is swallowed", "found recorded; nothing is executed again", f"{CRASHES}::test_c10_a_result_whose_commit_was_not_answered_is_found_recorded"),
    Row("C10", "the claim of a tool arrives, its answer is swallowed", "the lease expires: executed by another; `once`: not at all, `unknown`", f"{CRASHES}::test_c10_a_claim_whose_commit_was_not_answered_expires_by_its_effect"),
    Row("C14", "two last parts commit on two connections, in each order", "one of them wakes the turn", "integration/storage/test_interleavings.py::test_two_transactions_at_once_end_as_if_one_came_after_the_other"),
    Row("C16", "a run is cancelled while a tool of the run that it delegated to is at work, on threads and on prefork, with remote control off", "the tool is told (`ctx.cancelled()`) at the next renewal", f"{CRASHES}::test_c16_a_cancel_reaches_a_tool_of_a_delegated_run_within_a_heartbeat_without_remote_control"),
    Row("C17", "Redis is killed, then a run is submitted, or a tool ends", "accepted, recorded; done when Redis is back", f"{CRASHES}::test_c17_while_redis_is_down_work_is_accepted_and_recorded_and_goes_on_when_it_is_back"),
    Row("C18", "Postgres is killed while a model, a tool or a transactional tool is at work", "the result is held and recorded; the transaction is begun anew, one row", f"{CRASHES}::test_c18_while_postgres_is_down_results_are_held_and_a_transaction_is_begun_anew"),
    Row("C20", "a message names a task that nobody has", "quarantined, and whoever waits is told", f"{BAD}::test_an_unknown_task_is_kept_and_whoever_waits_is_told"),
    Row("C21", "SIGTERM, a tool outlives the grace time", "handed over, not as a failure", f"{LIFE}::test_what_is_not_done_within_the_grace_time_is_carried_by_another"),
    Row("C21", "SIGTERM, with messages that were taken and not begun", "they go back to their queue at once", f"{LIFE}::test_what_was_taken_and_not_begun_goes_to_another_while_the_first_still_works"),
    Row("C21", "SIGTERM, a `once` tool is at work", "it is waited for, executed once", f"{LIFE}::test_a_once_tool_is_waited_for_and_runs_once"),
    Row("C21", "SIGTERM, a tool is at work for long", "its lease is renewed to the end", f"{CRASHES}::test_c21_a_step_keeps_its_lease_until_a_worker_that_was_asked_to_end_is_done"),
    Row("C22", "a backup taken in the middle of runs is restored, while Redis remembers more", "what the backup knows goes on; other messages are dropped; the epoch is new", f"{CRASHES}::test_c22_a_restored_backup_goes_on_from_where_it_was"),
    Row("-", "no lease is ever renewed, and a turn takes longer than three of them", "its first result is recorded, the others are refused", f"{CRASHES}::test_work_that_outlives_every_lease_ends_with_its_first_result"),
)  # fmt: skip


def rows() -> list[Row]:
    told = [Row(each.number, each.done, each.holds, f"{MATRIX}[{each.id}]") for each in ALL]
    return [*told, *ELSEWHERE]


def text() -> str:
    parts = [_HEAD.format(cells=len(rows()))]
    for number, (happens, follows, within) in PROMISES.items():
        title = f"## {number}: {happens}" if number != "-" else f"## {_begun(happens)}"
        parts += [f"\n{title}\n\n{_begun(follows)}." + (f" Within: {within}." if within != "-" else ""), ""]
        parts += ["| what is done | what must hold | test |", "| --- | --- | --- |"]
        parts += [
            f"| {_begun(row.done)} | {_begun(row.holds)} | `{row.test}` |"
            for row in rows()
            if row.number == number
        ]
    return "\n".join(parts) + "\n"


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


_HEAD = """\
# The crash matrix

Each of the {cells} rows is a test with real workers, Postgres and Redis. After each of them hold the invariants of
`tests/invariants.py`, and the sums of usage and cost; executions beyond the steps are no more than the deaths.
Times are those of the settings' defaults; tests count rounds of the keeper (`meta.beat`) with shorter leases.

    ./run test tests/acceptance/test_crash_matrix.py tests/acceptance/test_crashes.py

This page is written by `python -m tests.acceptance.matrix.page`. A process dies at a named place by `AGNO_CRASH_AT`
(`agno_workers/failpoints.py`)."""


if __name__ == "__main__":
    PAGE.write_text(text())
