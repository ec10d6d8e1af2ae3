"""The errors of net/. Its callers translate them into their own:

NetError
├── Refused        final
└── Unreachable    worth another try
"""

from __future__ import annotations


class NetError(Exception):
    """`{url} {what}.`: no answer, or one that must not be read. `url` holds no password."""

    def __init__(self, url: object, what: str, code: str = "") -> None:
        super().__init__(f"{url} {what}.")
        self.url = str(url)
        self.what = what
        self.code = code
        """Why, in a word: `off_limits`, `too_large`, `redirect`, `invalid`, `rejected`; empty when a retry may help."""


class Refused(NetError):
    """Final: the same request would end the same."""


class Unreachable(NetError):
    """Worth another try: the network or the server failed, or was too slow."""


def root_cause(error: BaseException) -> BaseException:
    """Return the first cause of an error that has words, which say more than an HTTP client's own."""
    cause, found = error, error
    while earlier := cause.__cause__ or cause.__context__:
        cause = earlier
        found = cause if str(cause) else found
    return found
