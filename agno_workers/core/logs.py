"""Log lines of workers: with the ids that they are about, and safe from foreign text, which neither controls the terminal nor begins
a line.
"""

from __future__ import annotations

import copy
import logging

from agno_workers.core.words import printable

_TEXTS = ("msg", "exc_text", "stack_info")
_IDS = ("run_id", "agent", "step_id")
"""Fields of records that Celery's format leaves out."""


class SafeFormatter(logging.Formatter):
    """Formats as another formatter does, with the ids of the record; each further line begins with `  | `, and nothing controls a
    terminal.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        safe = copy.copy(record)
        text = record.getMessage()
        ids = [
            f"{name}={value}"
            for name in _IDS
            if (value := getattr(record, name, None)) and str(value) not in text
        ]
        safe.msg, safe.args = f"{text} [{' '.join(ids)}]" if ids else text, None
        if record.exc_info and not record.exc_text:
            safe.exc_text = self.formatException(record.exc_info)
        for name, value in vars(safe).items():
            if isinstance(value, str):
                text = printable(value, one_line=name not in _TEXTS)
                setattr(safe, name, text.rstrip("\n").replace("\n", "\n  | "))
        if safe.exc_text:
            safe.exc_text = f"  | {safe.exc_text}"
        return self._inner.format(safe)
