"""The consent of one user: categories of context, and memories."""

from __future__ import annotations

from agno_workers.core.request import check_name
from agno_workers.repositories import Database
from agno_workers.sessions.consent import ContextAccess
from agno_workers.sessions.memory_store import check_kind


class Consent:
    """`client.consent(user_id)`: the categories that the user allows or denies. Its verbs raise InvalidInput and Unavailable.

    A category is a word that `Context` gives its values, such as `location`; `memory` stands for all memories of the user, and `memory:`
    with a kind for those of the kind. What was never decided is allowed.
    """

    def __init__(self, user_id: str, database: Database) -> None:
        """Raises InvalidInput for what is not the id of a user."""
        check_name(user_id, "user_id", "text that is not blank")
        self.user_id = user_id
        self._consents = database.consents

    def deny(self, category: str) -> None:
        """Deny a category: runs that begin from now on neither ask for its values nor show them."""
        self._decide(category, False)

    def allow(self, category: str) -> None:
        """Allow a category that was denied."""
        self._decide(category, True)

    def categories(self) -> dict[str, bool]:
        """Return the categories that the user has decided on, with True for an allowed one."""
        return self._consents.of(self.user_id)

    def accesses(self, limit: int = 100, *, before: int | None = None) -> list[ContextAccess]:
        """Return at most `limit` uses of context by runs of the user, the newest first; `before` the id of the last is the next page."""
        return self._consents.accesses(user_id=self.user_id, before=before, limit=limit)

    def _decide(self, category: str, allowed: bool) -> None:
        check_name(category, "category", "text that is not blank, such as 'location'")
        if category.startswith("memory:"):
            check_kind(category.removeprefix("memory:"))  # a mistyped one would deny nothing
        self._consents.allow(self.user_id, category, allowed)
