"""HTTP for sources: net's guarded client, with statuses and failures as SourceRejected and SourceUnavailable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from agno_workers.core.policy import is_temporary, retry_after_s
from agno_workers.errors import InvalidInput, SourceError
from agno_workers.knowledge.sources.failures import rejected, unavailable
from agno_workers.net import urls
from agno_workers.net.addresses import openings
from agno_workers.net.client import GuardedClient, Response
from agno_workers.net.errors import NetError, Refused
from agno_workers.net.urls import Url

USER_AGENT = "agno-workers/0.1 (document ingestion)"

_MOVES = {
    "gone": "Remove it, or correct the address.",
    "denied": "Check what it asks for, or leave it out.",
    "too_large": "Raise document_max_bytes, or leave it out.",
    "off_limits": "If the workers may read it, the operator has to add its host to the setting knowledge.source_allow.",
}


def guarded(allow: Iterable[str]) -> GuardedClient:
    """Return a client for public addresses and those that the operator's list `allow` names. Raises InvalidInput."""
    return GuardedClient(openings(allow), user_agent=USER_AGENT)


def get(
    client: GuardedClient,
    url: Url,
    *,
    timeout_s: float,
    max_bytes: int,
    headers: Mapping[str, str] = {},
    conditional: Callable[[Url], Mapping[str, str]] = lambda _: {},
) -> Response:
    """Return the answer of `GuardedClient.get` if it is a 2xx, or a 304 to a conditional request.

    Raises SourceUnavailable (try later, see `retry_after_s`) or SourceRejected (final, see `code`).
    """
    with translated():
        response = client.get(
            url, timeout_s=timeout_s, max_bytes=max_bytes, headers=headers, conditional=conditional
        )
    if 200 <= response.status < 300 or (response.status == 304 and conditional(response.url)):
        return response
    raise of_status(response.url, response.status, response.headers)


def parse(url: str) -> Url:
    """Parse a URL of a description. Raises InvalidInput."""
    try:
        return urls.parse(url)
    except Refused as error:
        raise InvalidInput(f"{error} Correct it.") from error


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of net/ as errors of sources."""
    try:
        yield
    except Refused as error:
        raise rejected(error.url, f"{error.what}. {_move(error.code)}", error.code) from error
    except NetError as error:
        raise unavailable(error.url, error.what) from error


def of_status(url: Url, status: int, headers: Mapping[str, str], now: datetime | None = None) -> SourceError:
    """Return the error for a status that brings no document."""
    pause_s = retry_after_s(headers, now or datetime.now(UTC))
    if is_temporary(status) or (status == 403 and pause_s is not None):
        return unavailable(str(url), f"answered {status}", status, pause_s)
    code, what = "rejected", "answered"
    if status in (404, 410):
        code, what = "gone", "is gone:"
    elif status in (401, 402, 403, 407, 451):
        code, what = "denied", "denies access:"
    return rejected(str(url), f"{what} {status}. {_move(code)}", code, status)


def _move(code: str) -> str:
    return _MOVES.get(code, "Correct the address, or leave it out.")
