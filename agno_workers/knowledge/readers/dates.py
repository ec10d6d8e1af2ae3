"""Dates in metadata as ISO 8601, so that filters compare them: those of mails, of pictures and of English text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_ISO = re.compile(r"(\d{4}(?:-\d\d){0,2})(?:[T ](\d\d:\d\d(?::\d\d)?(?:[.,]\d+)? ?(?:Z|[+-]\d\d:?\d\d)?))?")
_EXIF = re.compile(r"(\d{4}):(\d\d):(\d\d)(?: (\d\d:\d\d:\d\d))?")
_FORMATS = (
    "%B %d, %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%d %b %Y",
    "%A, %B %d, %Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
)


def iso(text: str) -> str:
    """Return `2031-05-01` or `2031-05-01T10:30:00`, that of a mail in UTC with `Z`. An ambiguous date (`5/1/2031`) stays as it is."""
    text = " ".join(text.split())
    if found := _ISO.fullmatch(text):
        return f"{found[1]}T{found[2]}" if found[2] else text
    if found := _EXIF.fullmatch(text):
        return f"{found[1]}-{found[2]}-{found[3]}{f'T{found[4]}' if found[4] else ''}"
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).date().isoformat()  # noqa: DTZ007 - a day
        except ValueError:
            pass
    try:
        moment = parsedate_to_datetime(text)
        return (
            moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment.tzinfo else moment.isoformat()
        )
    except (ValueError, TypeError, OverflowError):
        return text
