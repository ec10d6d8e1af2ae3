"""Split front matter off a page: YAML between `---`, TOML between `+++`, or a JSON object. Values keep their types; times are ISO text."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from datetime import date, time
from typing import Any

import yaml

_MAX_CHARS = 50_000
_FENCED = re.compile(
    r"\s{0,99}(?:---|(?P<toml>\+\+\+))[ \t]*\r?\n(?P<fields>(?:[^\n]*\n){0,1000}?)"
    r"(?(toml)\+\+\+|(?:---|\.\.\.))[ \t]*(?:\r?\n|$)"
)
_FIELD = re.compile(r"([A-Za-z_][\w.-]{0,99})[ \t]*[:=][ \t]+(\S[^\n]*)")
_NO_FIELDS = re.compile(r"^[ \t]*(?:#|\{[{%])[^\n]*$", re.MULTILINE)  # comments, and tags of templates
_LANGUAGE = {"lang", "language", "locale"}


def split(text: str) -> tuple[str, str | None, dict[str, Any]]:
    """Return the text after the front matter, the title, and the other fields. Text between fences that has no fields is kept."""
    rest, fields = _json(text) if text.startswith("{") else _fenced(text)
    title: str | None = None
    metadata: dict[str, Any] = {}
    for name, value in fields.items():
        if name.lower() == "title" and isinstance(value, str | int | float):
            title = str(value)
        elif name.lower() in _LANGUAGE:
            metadata["language"] = "no" if value is False else value  # Norwegian is a boolean in YAML
        elif value is not None:
            metadata[name] = value
    return rest, title, metadata


def _json(text: str) -> tuple[str, dict[str, Any]]:
    try:
        fields, end = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return text, {}
    return (text[end:], _plain(fields)) if text[end : end + 2].strip(" \r").startswith("\n") else (text, {})


def _fenced(text: str) -> tuple[str, dict[str, Any]]:
    found = _FENCED.match(text, 0, _MAX_CHARS)
    if found is None:
        return text, {}
    content = found["fields"].replace("\r\n", "\n")
    load = tomllib.loads if found["toml"] else _yaml
    try:
        fields = load(content)
    except (ValueError, yaml.YAMLError, RecursionError):
        fields = _by_line(content, load)
    if not isinstance(fields, dict) or (not fields and _NO_FIELDS.sub("", content).strip()):
        return text, {}
    return text[found.end() :], _plain(fields)


def _by_line(content: str, load: Callable[[str], Any]) -> dict[str, Any]:
    """Return the fields of a broken block that stand on one line each, such as `title: Keys: a guide`."""
    fields: dict[str, Any] = {}
    for line in content.split("\n"):
        if field := _FIELD.fullmatch(line.rstrip()):
            try:
                fields |= load(line)
            except (ValueError, yaml.YAMLError, RecursionError):
                fields[field[1]] = field[2].strip("\"' ")
    return fields


def _plain(value: Any) -> Any:
    """Return a JSON value."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | set():
            return [_plain(item) for item in value]
        case date() | time():
            return value.isoformat()
        case str():
            return value.strip()  # block scalars end with a line end
        case bytes():
            return None
        case _:
            return value


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does: `10:30` and `0123` are text. So are `NO` and `ON`, which are a country and a province. Aliases are
    refused, because they can grow without end.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name is PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":bool"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not supported")
        return super().compose_node(parent, index)


_NUMBER_STARTS = list("-+.0123456789")
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300})$"), _NUMBER_STARTS
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?$"),
    _NUMBER_STARTS,
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE|[Yy]es|[Nn]o|[Oo]n|[Oo]ff)$"),
    list("tTfFyYnNoO"),
)


def _yaml(content: str) -> Any:
    return yaml.load(content, _Loader) or {}  # noqa: S506 - a SafeLoader
