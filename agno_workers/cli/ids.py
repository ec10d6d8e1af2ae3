"""Short ids. Lists show the last 8 characters of an id; commands accept these, the beginning of an id, or the whole of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agno_workers.cli import connection
from agno_workers.core.run import Run, Step
from agno_workers.core.words import as_uuid
from agno_workers.errors import InvalidInput
from agno_workers.repositories import Database
from agno_workers.runs.queries import IdKind
from agno_workers.sdk.handles import RunHandle

_SHORT = 8
_SHORTEST = 4
_LISTED_BY = {
    "run": "`agno-workers runs ls` lists runs",
    "step": "`agno-workers runs waiting` and `dead ls` list steps",
    "batch": "`agno-workers runs ls --json` names the batch of each run",
}


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return the end of each id: 8 characters, or as many as tell these ids apart."""
    distinct, length = set(ids), _SHORT
    while len({each[-length:] for each in distinct}) < len(distinct):
        length += 1
    return {each: each[-length:] for each in distinct}


def whole_id(database: Database, text: str, *kinds: IdKind) -> str:
    """Return the id that begins or ends with this text.

    Raises InvalidInput for text that is not part of an id, and where no id, or more than one, fits. A whole id is returned
    without a look at the database.
    """
    if known := as_uuid(text):
        return known
    digits = text.replace("-", "").lower()
    name, lists = " or ".join(kinds), "; ".join(_LISTED_BY[kind] for kind in kinds)
    if not re.fullmatch(r"[0-9a-f]+", digits) or not _SHORTEST <= len(digits) <= 32:
        raise InvalidInput(
            f"{text!r} is not a {name} id: use the whole id, or at least {_SHORTEST} characters of its beginning or its end. {lists}."
        )
    match database.queries.find_ids(digits, kinds):
        case [id]:
            return id
        case []:
            ended = ", or its step does not wait any more" if "step" in kinds else ""
            raise InvalidInput(f"no {name} has an id that begins or ends with {text!r}{ended}: {lists}.")
        case found:
            raise InvalidInput(
                f"{text!r} fits several ids: use more characters of one of them, such as {', '.join(found)}."
            )


def step_id(steps: Iterable[Step], at: str) -> str:
    """Return the id of the step with this short id; any other text as it is: a key, or a mistake, for which `fork` lists the keys."""
    digits = at.replace("-", "").lower()
    ids = {step.id.replace("-", ""): step.id for step in steps}
    found = [each for whole, each in ids.items() if whole.startswith(digits) or whole.endswith(digits)]
    return found[0] if len(found) == 1 and len(digits) >= _SHORTEST else at


@contextmanager
def existing_run(text: str) -> Iterator[tuple[RunHandle, Run]]:
    """Open the run with this id, or short id, and yield it with its row. Raises RunNotFound, and as `whole_id` does."""
    with connection.database() as database:
        handle = RunHandle(whole_id(database, text, "run"), database)
        yield handle, handle.run
