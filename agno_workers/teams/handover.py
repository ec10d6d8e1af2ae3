"""The message that a member of a team gets: the request and what it needs to know, never the transcript of another agent. Pure.

    The request, as it was made.

    ## Work so far
    The results that it continues from, and who said what.

    ## Requirements
    The conditions that its answer must meet.

    ## Expected answer
    The form of the answer, and who reads it.

A part without text is left out: a member that needs nothing but the request gets the request alone. A heading in what somebody said moves
below its title, so that it can't pose as another part or as somebody else's words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agno_workers.tools.result import bounded

MOST_BYTES = 400_000
"""The work in one message: about 100,000 tokens."""


def handover(request: str, *, work: str = "", requirements: str = "", expectations: str = "") -> str:
    """Return the message for a member."""
    parts = (("Work so far", work), ("Requirements", requirements), ("Expected answer", expectations))
    sections = [f"## {heading}\n{text.strip()}" for heading, text in parts if text.strip()]
    return "\n\n".join([request.strip(), *sections])


def who_said_what(said: Sequence[tuple[str, str]]) -> str:
    """Return texts under their titles, as the work of a message. Long ones are cut where all of them together are too long, and marked."""
    share = MOST_BYTES // max(len(said), 1)
    return "\n\n".join(
        f"### {title}\n{_HEADING.sub('###', bounded(text, share).rstrip())}" for title, text in said
    )


_HEADING = re.compile(r"(?:^|(?<=\r))[ \t]*(?=#{2,3}(?!#))", re.MULTILINE)
"""The beginning of a line that may be read as a heading of the message."""
