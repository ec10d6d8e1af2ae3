"""The error text for a model with invalid arguments: the parameter, the expected and the actual value, and the next move."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from agno_workers.core.words import shortened

_MAX_PROBLEMS = 8
_MAX_SHOWN_CHARS = 80


class InvalidArguments(ValueError):
    """The arguments do not fit the tool, which was not called. The message is for the model."""


def refusal(error: ValidationError, parameters: Sequence[str]) -> str:
    """Return a line for each of the first eight problems; `parameters` are the parameters of the tool."""
    problems = [_problem(item, parameters) for item in error.errors(include_url=False)]
    lines = "\n".join(f"- {problem}" for problem in problems[:_MAX_PROBLEMS])
    if len(problems) > _MAX_PROBLEMS:
        lines += f"\n- and {len(problems) - _MAX_PROBLEMS} more"
    return f"Invalid arguments, the tool was not called:\n{lines}\nCorrect them and call it again."


def _problem(item: Any, parameters: Sequence[str]) -> str:
    where, got, message = _path(item["loc"]), item["input"], item["msg"]
    match item["type"]:
        case "json_invalid":
            return f"not valid JSON ({item['ctx']['error']}); expected one JSON object"
        case "missing":
            return f"{where}: required, but missing"
        case "extra_forbidden" if len(item["loc"]) == 1:
            return f"{where}: unknown parameter{_suggestion(where, parameters)}"
        case _ if not where:
            return f"expected one JSON object, got {_shown(got)}"
        case _:
            return f"{where}: {message.replace('Input should be', 'expected')}, got {_shown(got)}"


def _path(location: tuple[int | str, ...]) -> str:
    """Return a path such as `days[2].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _suggestion(name: str, parameters: Sequence[str]) -> str:
    close = difflib.get_close_matches(name[:100], parameters, n=1)
    hint = f", did you mean {close[0]}?" if close else "."
    return f"{hint} The tool takes: {', '.join(parameters) or 'none'}"


def _shown(value: Any) -> str:
    """Return a shortened JSON text of a value; a validator may have made it any object."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        # For example a number of 5000 digits, which Python does not print.
        text = f"a value of type {type(value).__name__}"
    return shortened(text, _MAX_SHOWN_CHARS)
