"""A line to a provider: an SDK client around an HTTP client of its own, used by one call at a time.

Imported by `wire.py` when a model is first asked, because the HTTP client takes a while to import.
"""

from __future__ import annotations

from functools import cache
from ssl import SSLContext

import httpx2

from agno_workers.models.transport import IDLE_S, Connect
from agno_workers.net.deadline import Deadline

CONNECT_S = (
    10.0  # limit for connecting, and again for the TLS handshake, both within the deadline of the call
)


class PooledClient:
    """Makes itself in 0.2 ms; a new connection is made by the first call, or after `IDLE_S` without one."""

    def __init__(self, connect: Connect) -> None:
        self.idle_since = 0.0
        self.deadline = Deadline()
        self._http = httpx2.Client(
            verify=_tls(),
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            limits=httpx2.Limits(keepalive_expiry=IDLE_S),
            follow_redirects=True,
            event_hooks={"request": [_discreet]},
        )
        self.deadline.guard(self._http)
        self.post = connect(self._http)

    def close(self) -> None:
        self._http.close()


@cache
def _tls() -> SSLContext:
    """Loading the certificates takes 20 ms: once a process."""
    return httpx2.create_ssl_context()


def _discreet(request: httpx2.Request) -> None:
    """Take off the headers by which the SDKs tell about this machine and how they are used."""
    for header in [name for name in request.headers if name.startswith("x-stainless-")]:
        del request.headers[header]
