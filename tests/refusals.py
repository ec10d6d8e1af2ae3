"""Real error replies of Redis, which last until they are ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from tests import invariants


class Refusal(NamedTuple):
    begin: Callable[[Any], object]
    end: Callable[[Any], object]
    told: str
    """What a worker reports."""


def _replica_of_nobody(session: Any) -> None:
    session.execute_command("REPLICAOF", "127.0.0.1", "1")


def _master(session: Any) -> None:
    session.execute_command("REPLICAOF", "NO", "ONE")
    session.config_set("replica-serve-stale-data", "yes")


def _without_data(session: Any) -> None:
    session.config_set("replica-serve-stale-data", "no")
    _replica_of_nobody(session)


def _snapshot(session: Any) -> Path:
    return Path(session.config_get("dir")["dir"]) / "dump.rdb"


def _full_disk(session: Any) -> None:
    (_snapshot(session) / "x").mkdir(parents=True)  # no file can take its place
    session.config_set("save", "1 1")
    _save(session, "err")


def _empty_disk(session: Any) -> None:
    shutil.rmtree(_snapshot(session))
    _save(session, "ok")
    session.config_set("save", "")
    _snapshot(session).unlink()


def _save(session: redis.Redis, outcome: str) -> None:
    """Save until it ended this way; an automatic save may be under way."""

    def has_ended() -> bool:
        try:
            session.bgsave()
        except redis.ResponseError:
            return False
        invariants.until(lambda: not session.info("persistence")["rdb_bgsave_in_progress"])
        return bool(session.info("persistence")["rdb_last_bgsave_status"] == outcome)

    invariants.until(has_ended)


def _acl(*rules: str) -> Callable[[Any], object]:
    return lambda session: session.execute_command("ACL", "SETUSER", "default", *rules)


def _wrong_type(session: Any) -> None:
    session.delete("agents")
    session.set("agents", "x")


def _password(session: Any) -> None:
    session.config_set("requirepass", "a new password")
    session.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


REFUSALS: Mapping[str, Refusal] = {
    "READONLY": Refusal(_replica_of_nobody, _master, "READONLY"),
    "MASTERDOWN": Refusal(_without_data, _master, "MASTERDOWN"),
    "MISCONF": Refusal(_full_disk, _empty_disk, "MISCONF"),
    "NOPERM of a command": Refusal(_acl("-brpop", "-blmpop"), _acl("+@all"), "refuses BRPOP agents: NOPERM"),
    "NOPERM of a key": Refusal(_acl("resetkeys", "~x*"), _acl("allkeys"), "NOPERM"),
    "NOPERM of a channel": Refusal(_acl("resetchannels"), _acl("allchannels"), "NOPERM"),
    "WRONGTYPE": Refusal(_wrong_type, lambda session: session.delete("agents"), "the queue 'agents'"),
    "NOAUTH": Refusal(_password, lambda session: session.config_set("requirepass", ""), "Redis refuses the user or the password"),
}  # fmt: skip
"""By the code of the reply."""


@contextmanager
def refusing(client: redis.Redis, name: str) -> Iterator[Refusal]:
    """Let Redis refuse commands during the block."""
    refusal = REFUSALS[name]
    with client.client() as session:  # type: ignore[no-untyped-call]  # redis-py has no type here
        try:
            refusal.begin(session)
            yield refusal
        finally:
            refusal.end(session)
