"""For AGNO_IMPORTS: a worker that dies when it reads a document with `poison` in its name."""

from __future__ import annotations

import os
import signal
from typing import Any

from agno_workers.knowledge import steps as ingest

_fetch_one = ingest.fetch_one


def fetch_one(context: Any, see: Any, item: Any) -> Any:
    if "poison" in item.source.uri:
        os.kill(os.getpid(), signal.SIGKILL)
    return _fetch_one(context, see, item)


ingest.fetch_one = fetch_one
