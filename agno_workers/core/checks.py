"""Check values that users write in code, so that a mistake is refused where it stands and not in a worker. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from agno_workers.core.words import did_you_mean, shortened
from agno_workers.errors import InvalidInput

Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
PositiveOrZero = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

MODEL_PROVIDERS = ("openai", "openai-chat", "anthropic", "local", "scripted")
"""The providers of `models/resolve.py`, which loads their code."""
KNOWN_PROVIDERS = ", ".join(f"{each}:" for each in MODEL_PROVIDERS)
_BRIEF_CHARS = 200
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "True or False", "object": "a dict",
    "array": "a list", "null": "None",
}  # fmt: skip


def misfit(kind: type[msgspec.Struct], value: msgspec.Struct) -> tuple[str, str] | None:
    """Return the first field of a struct that does not fit its type, and a sentence about it; None if all fit."""
    for name, expected in _fields(kind):
        if reason := _reason(getattr(value, name), expected):
            return name, reason
    return None


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(kind))


def _reason(value: Any, expected: Any) -> str | None:
    if expected is Any:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, got {value!r}"
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):  # `convert` takes no subclass
        return (
            None if isinstance(value, expected) else f"must be {expected.__name__}(...), got {brief(value)}"
        )
    try:
        msgspec.convert(value, expected, strict=True)
    except msgspec.ValidationError as error:
        choices = [
            each
            for part in (expected, *get_args(expected))
            if get_origin(part) is Literal
            for each in get_args(part)
        ]
        wanted = f"one of {', '.join(map(repr, choices))}" if choices else _in_words(str(error))
        return f"must be {wanted}, got {brief(value)}"
    return None


def _in_words(error: str) -> str:
    """Return what msgspec expected, in plain words: `Expected `int | null`, got `str`` becomes `a whole number or None`."""
    text = error.removeprefix("Expected ").partition(", got")[0].partition(" - at")[0]
    return re.sub(
        r"`([a-z| ]+)`",
        lambda found: " or ".join(_WORDS.get(each, each) for each in found[1].split(" | ")),
        text,
    )


def brief(value: object) -> str:
    """Return the value as it is written in an error, cut when it is long."""
    return shortened(repr(value), _BRIEF_CHARS)


def model_fault(model: Any) -> str | None:
    """Return a sentence about what can't be a model, or None. Whether the provider can be used is known in a worker only."""
    if isinstance(model, str):
        return _model_name_fault(model)
    if isinstance(model, type) or not callable(getattr(model, "ask", None)):
        return f"model={brief(model)} is not a model: write a name such as 'openai:gpt-5', or pass an object with `name` and `ask`"
    if not isinstance(getattr(model, "name", None), str):
        return f"model={brief(model)} has no `name` of text: add one, such as 'own:small'"
    return None


@lru_cache(256)
def _model_name_fault(model: str) -> str | None:
    provider, colon, name = model.partition(":")
    if not colon or not model.strip():
        meant = model.strip() or "gpt-5"
        vendor = "anthropic" if meant.startswith("claude") else "openai"
        return f"model={brief(model)} names no provider: write provider:model, such as '{vendor}:{meant}' (providers: {KNOWN_PROVIDERS})"
    if provider not in MODEL_PROVIDERS:
        near = meant_model(model)
        hint = f"did you mean '{near}'" if near else "write one of them, and the model after it"
        return f"model={brief(model)} has an unknown provider ({KNOWN_PROVIDERS} are known): {hint}"
    if not name.strip() or name != name.strip():
        return f"model={brief(model)} names no model: write its name after {provider}:, without blanks"
    return None


def meant_model(name: str) -> str | None:
    """Return the name with the known provider that is nearest to its unknown one; None if none is near."""
    provider, colon, model = name.partition(":")
    if not colon or provider in MODEL_PROVIDERS:
        return None
    near = get_close_matches(provider, MODEL_PROVIDERS, n=1)
    return f"{near[0]}:{model}" if near else None


def unknown_option(name: object, known: Iterable[str], *, what: str = "option") -> str:
    """Return the sentence about an option that does not exist, with the nearest name."""
    hint = did_you_mean(str(name), known) or f" Known options: {', '.join(sorted(known))}."
    return f"unknown {what} {name!r}.{hint}"


def check_timeout(timeout: object) -> None:
    """Raise InvalidInput for what is neither seconds nor None."""
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout)
    ):
        raise InvalidInput(f"timeout must be seconds, or None to wait without a limit, got {brief(timeout)}.")


Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, after the name of its argument; None if it fits."""


def text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"must be text, got {brief(value)}"


def queue(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() == value != "" and value.isprintable()):
        return None
    return f"must be the name of a queue, got {brief(value)}: name one, or leave it out"


def instructions(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if not isinstance(value, list | tuple):
        return f"must be text or a list of texts, got {brief(value)}"
    for place, line in enumerate(value):
        if not isinstance(line, str):
            return f"must be text or a list of texts, but item {place} is {brief(line)}"
    return None


def items(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return None
    return f"must be a list of functions, tools, toolkits and agents, got {brief(value)}: put it into a list"


def json_object(value: Any) -> str | None:
    """Return what is wrong with a dict that is stored as JSON."""
    if value == {}:
        return None
    if not isinstance(value, dict):
        return f"must be a dict of JSON values, got {brief(value)}"
    if odd := [key for key in value if not isinstance(key, str)]:
        return f"must have keys of text, got the key {brief(odd[0])}"
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        return f"must be a dict of JSON values, and can't be sent as JSON: {error}"
    return None
