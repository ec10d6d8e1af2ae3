"""The errors of sources. Their messages begin with the URI and end with the next move."""

from __future__ import annotations

from agno_workers.errors import SourceRejected, SourceUnavailable


def rejected(uri: str, what: str, code: str = "rejected", status: int | None = None) -> SourceRejected:
    """Return the final error `{uri} {what}`; `what` ends with the next move. SourceRejected lists the codes."""
    return SourceRejected(f"{uri} {what}", uri=uri, code=code, status=status)


def unavailable(
    uri: str, what: str, status: int | None = None, pause_s: float | None = None
) -> SourceUnavailable:
    """Return the error `{uri} {what}. Try again later.`; `pause_s` is what the server asked for."""
    return SourceUnavailable(f"{uri} {what}. Try again later.", uri=uri, status=status, retry_after_s=pause_s)


def too_large(uri: str, max_bytes: int) -> SourceRejected:
    return rejected(
        uri, f"has more than {max_bytes:,} bytes: split it, or raise document_max_bytes.", "too_large"
    )
