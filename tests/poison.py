"""For AGNO_IMPORTS: a worker that dies whenever it looks at a document whose name has `poison` in it."""

from __future__ import annotations

import os
import signal
from typing import Any

from agno_workers.knowledge import steps as ingest

_look = ingest.look


def look(intake: Any, see: Any, item: Any) -> Any:
    if "poison" in item.source.uri:
        os.kill(os.getpid(), signal.SIGKILL)
    return _look(intake, see, item)


ingest.look = look
