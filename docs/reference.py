"""Write the generated parts of the reference pages from docstrings, types and the argument parser: ./run python docs/reference.py

`<!-- api: Agent Limits -->` … `<!-- /api -->` in a page holds names of `agno_workers`, `agno_workers.types` and
`agno_workers.errors`, and values without a name of their own, as `client.runs=agno_workers.sdk.client:Runs`.
`<!-- names -->` … `<!-- /names -->` lists them all, `<!-- commands -->` … `<!-- /commands -->` the command line. A test fails when a page is behind the code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import typer

import agno_workers
from agno_workers import errors, types
from agno_workers.cli.main import COMMANDS
from agno_workers.core.runnable import Runnable
from agno_workers.errors import AgnoError
from agno_workers.teams.modes import Mode

DOCS = Path(__file__).parent
API = re.compile(r"(<!-- api: ([^>]*?) -->\n).*?(<!-- /api -->)", re.DOTALL)
COMMAND_LINE = re.compile(r"(<!-- commands -->\n).*?(<!-- /commands -->)", re.DOTALL)
NAMES = re.compile(r"(<!-- names -->\n).*?(<!-- /names -->)", re.DOTALL)
ERRORS = [
    name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, AgnoError)
]
PUBLIC = {
    name: home
    for home, names in ((errors, ERRORS), (types, types.__all__), (agno_workers, agno_workers.__all__))
    for name in names
}
"""Every promised name, and the module to import it from."""


def pages() -> dict[Path, list[str]]:
    """Return the pages with generated parts, and the names that each describes."""
    read = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
    return {
        page: [name for found in API.finditer(text) for name in found[2].split()]
        for page, text in read.items()
        if any(part.search(text) for part in (API, COMMAND_LINE, NAMES))
    }


def written(page: str) -> str:
    """Return the page with its current generated parts."""
    page = API.sub(
        lambda found: found[1] + "\n".join(_entry(*each.split("=")) for each in found[2].split()) + found[3],
        page,
    )
    page = NAMES.sub(lambda found: found[1] + _names() + found[2], page)
    return COMMAND_LINE.sub(lambda found: found[1] + _command_line() + found[2], page)


def without_meaning() -> list[str]:
    """Return the promised classes, fields and methods that no docstring describes."""
    missing = []
    for name in PUBLIC:
        value = _public(name)
        if isinstance(value, type):
            described = {name: value.__doc__, **{f"{name}.{each.name}": each.doc for each in _fields(value)}}
            described |= {f"{name}.{verb}": each.__doc__ for verb, each in _members(value).items()}
            missing += [each for each, text in described.items() if not text]
    return missing


# Python.


def _names() -> str:
    """Return a table of all promised names with their first sentences, by the module to import from."""
    rows = [
        (_link(name), f"`{home.__name__}`", _first_sentence(_public(name)))
        for home in (agno_workers, types, errors)
        for name in sorted(each for each in PUBLIC if PUBLIC[each] is home)
    ]
    return _table(("name", "from", "meaning"), rows) + "\n"


def _first_sentence(value: Any) -> str:
    if type(value).__module__ == "typing" and not isinstance(value, type):
        return _constant(value)
    text = " ".join(inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", text)[0]


def _public(name: str) -> Any:
    return getattr(PUBLIC[name], name)


def _entry(name: str, place: str = "") -> str:
    module, _, attribute = place.partition(":")
    value = getattr(importlib.import_module(module) if place else PUBLIC[name], attribute or name)
    parts = [f"## {name}"]
    if not place:
        parts.append(f"`from {PUBLIC[name].__name__} import {name}`")
    if inspect.isfunction(value):
        parts += [_call(name, value), _text(value)]
    elif isinstance(value, type) and not isinstance(value, Enum):
        parts += [_text(value), *_class(name, value)]
    else:
        home, kind = type(value).__module__, _constant(value)
        parts.append(kind if home == "typing" else f"{kind} {_text(type(value))}")
    return "\n\n".join(filter(None, parts)) + "\n\n"


def _constant(value: Any) -> str:
    return f"`{value}`." if isinstance(value, Enum) else f"`{str(value).removeprefix('typing.')}`."


def _class(name: str, owner: type) -> list[str]:
    parts = []
    fields = _fields(owner)
    if issubclass(owner, AgnoError):
        tree = [base.__name__ for base in owner.__mro__[1:] if base.__name__ in PUBLIC]
        parts.append(f"A kind of {', '.join(map(_link, tree))}." if tree else "")
        parts.append(_table(("attribute", "type", "meaning"), [(f"`{each.name}`", f"`{each.type}`", each.doc) for each in fields]))  # fmt: skip
    elif issubclass(owner, Enum):
        parts.append(_table(("value", "meaning"), [(f"`{each.default}`", each.doc) for each in fields]))
    elif fields:
        rows = [
            (f"`{each.name}`", _type(each.type), f"`{each.default}`" if each.default else "", each.doc)
            for each in fields
        ]
        with_defaults = any(each.default for each in fields)
        parts.append(
            _table(("field", "type", "default", "meaning"), rows)
            if with_defaults
            else _table(("field", "type", "meaning"), [(row[0], row[1], row[3]) for row in rows])
        )
    elif name in _BUILT_BY_USERS:
        parts += [_call(name, owner.__init__), _text(owner.__init__)]
    prefix = name if "." in name else _PREFIXES.get(name, name)
    for verb, value in _members(owner).items():
        parts.append(f"### {prefix}.{verb}")
        if isinstance(value, property):
            parts.append(f"→ {_type(str(inspect.signature(value.fget).return_annotation))}")  # type: ignore[arg-type]
        else:
            parts.append(_call(f"{prefix}.{verb}", getattr(value, "__func__", value)))
        parts.append(_text(value))
    return parts


_PREFIXES = {
    "Agent": "agent", "Batch": "batch", "Client": "client", "Ingestion": "ingestion", "Knowledge": "knowledge",
    "Requirement": "requirement", "RunHandle": "handle", "RunResult": "result", "State": "ctx.state", "ToolContext": "ctx",
}  # fmt: skip
"""The name of a value of the class in the pages."""
_BUILT_BY_USERS = {"AsyncClient", "Client", "Toolkit"}
"""Classes whose constructor is for users."""


def _members(owner: type) -> dict[str, Any]:
    """Return the public methods and properties, those of base classes first; without those that the engine calls."""
    found: dict[str, Any] = {}
    machinery = {name for each in (Runnable, Mode) if issubclass(owner, each) for name in vars(each)}
    for base in reversed(owner.__mro__):
        is_described = base is not owner and base in map(_public, PUBLIC)
        if base.__module__.startswith("agno_workers") and not is_described:
            found |= {
                name: value
                for name, value in ((name, inspect.unwrap(value)) for name, value in vars(base).items())
                if not name.startswith("_") and name not in machinery and (inspect.isfunction(value) or isinstance(value, property | staticmethod))
            }  # fmt: skip
    return found


class Field(NamedTuple):
    name: str
    type: str
    default: str
    doc: str


def _fields(owner: type) -> list[Field]:
    """Return the fields with the docstrings below them, those of base classes first."""
    node, names = _node(owner), vars(sys.modules[owner.__module__])
    found: dict[str, Field] = {}
    for base in node.bases:
        parent = eval(ast.unparse(base), dict(names))  # noqa: S307 - our own code
        if isinstance(parent, type) and parent.__module__.startswith("agno_workers"):
            found |= {each.name: each for each in _fields(parent)}
    name = ""
    for each in node.body:
        match each:
            case ast.AnnAssign(annotation=ast.Subscript(value=ast.Name(id="ClassVar"))):
                name = ""
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                kind = _kind(ast.unparse(annotation), names)
                found[name] = Field(name, kind, ast.unparse(value) if value else "", "")
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                found[name] = Field(name, "", str(value), "")
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Subscript(slice=of))):
                found[name] = Field(name, f"{ast.unparse(of)} | None", "", "")
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                before = found[name]
                found[name] = Field(name, before.type, before.default, " ".join(text.split()))
            case _:
                name = ""
    return [each for each in found.values() if not each.name.startswith("_")]


def _kind(annotation: str, names: dict[str, Any]) -> str:
    """Return the annotation with the bounds of numbers in the place of names for them: `Count` is `int ≥ 1`."""

    def bounded(word: re.Match[str]) -> str:
        of = names.get(word[0])
        for bound in getattr(of, "__metadata__", ()):
            for sign, value in (("≥", bound.ge), (">", bound.gt)) if isinstance(bound, msgspec.Meta) else ():
                if value is not None:
                    return f"{of.__origin__.__name__} {sign} {value}"  # type: ignore[union-attr]  # Annotated
        return word[0]

    plain = re.sub(r"Annotated\[(\w+), .*?\)\]", r"\1", annotation)
    return re.sub(r"\w+", bounded, plain)


@cache
def _node(owner: type) -> ast.ClassDef:
    (node,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(node, ast.ClassDef)
    return node


class _Written:
    """A piece of a signature as it is written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _call(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    shown = [
        each.replace(
            annotation=each.empty if each.annotation is each.empty else _Written(each.annotation),
            default=_Written(f"'{each.default}'") if isinstance(each.default, Enum) else each.default,
        )
        for each in parameters
    ]
    text = str(inspect.Signature(shown))
    if len(name + text) > 100:
        text = "(\n" + "".join(f"    {line},\n" for line in _lines(shown)) + ")"
    returned = signature.return_annotation
    arrow = f" -> {returned}" if isinstance(returned, str) and returned != "None" else ""
    options = [
        f"Options: {', '.join(f'`{each.name}`' for each in _fields(getattr(types, found[1])))}; see {_link(found[1])}."
        for each in parameters
        if (found := re.fullmatch(r"Unpack\[(\w+)\]", str(each.annotation))) and found[1] in PUBLIC
    ]
    return "\n\n".join([f"```text\n{name}{text}{arrow}\n```", *options])


def _lines(parameters: list[inspect.Parameter]) -> list[str]:
    """Return a line for each parameter, with the `*` before those by keyword."""
    lines, starred = [], False
    for each in parameters:
        starred = starred or each.kind is each.VAR_POSITIONAL
        if each.kind is each.KEYWORD_ONLY and not starred:
            lines.append("*")
            starred = True
        lines.append(str(each))
    return lines


def _text(value: Any) -> str:
    """Return a docstring as Markdown, with links at the errors that it names."""
    text = inspect.cleandoc(value.__doc__ or "")
    return re.sub(rf"(?<![\w`.])({'|'.join(ERRORS)})(?![\w`(])", lambda found: _link(found[1]), text)


def _type(text: str) -> str:
    """Return an annotation, with a link where it is one promised name."""
    found = re.fullmatch(r"(\w+)( \| None)?", text)
    return _link(found[1]) + (" or None" if found[2] else "") if found and found[1] in PUBLIC else f"`{text}`"


@cache
def _homes() -> dict[str, str]:
    return {name: page.name for page, names in pages().items() for name in names}


def _link(name: str) -> str:
    return f"[{name}]({_homes().get(name, '')}#{name.lower()})"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# Commands.


def _command_line() -> str:
    """Return the overview, then a section for each command."""
    commands = dict(_commands())
    width = max(map(len, commands)) + 2
    overview = "\n".join(f"{name:{width}}{_short(each)}" for name, each in commands.items())
    return f"```text\n{overview}\n```\n\n" + "\n\n".join(map(_command, commands, commands.values())) + "\n"


def _commands() -> Iterator[tuple[str, Any]]:
    for name in COMMANDS:
        command: Any = typer.main.get_command(importlib.import_module(f"agno_workers.cli.{name}").app)
        below = getattr(command, "commands", None)
        yield from {f"{name} {each}": below[each] for each in below}.items() if below else [(name, command)]


def _short(command: Any) -> str:
    return " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())


def _command(name: str, command: Any) -> str:
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [_argument(each) for each in shown if each.param_type_name == "argument"]
    rows = [(f"`{words}`", meaning) for each in shown for words, meaning in [_words(each)]]
    usage = " ".join(["agno-workers", name, *arguments, "[OPTIONS]"])
    return f"### {name}\n\n`{usage}`\n\n{inspect.cleandoc(command.help or '')}\n\n{_table(('argument', 'meaning'), rows)}".rstrip()


def _argument(parameter: Any) -> str:
    word = parameter.metavar or parameter.name.upper()
    word = f"{word}..." if parameter.nargs == -1 and not word.endswith("...") else word
    return word if parameter.required or word.startswith("[") else f"[{word}]"


def _words(parameter: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        return _argument(parameter), parameter.help or ""
    words = ", ".join((*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    has_default = parameter.show_default and parameter.default not in (None, False, True, [], (), "")
    return words + value, (parameter.help or "") + (f" Default: {parameter.default}." if has_default else "")


if __name__ == "__main__":
    for page in pages():
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
