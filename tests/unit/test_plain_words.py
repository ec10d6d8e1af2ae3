"""Keep phrases that a native reader stumbles over out of the product, its docs and its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEPT = ("agno_workers", "tasks", "config", "docs", "benchmarks", "README.md", "CHANGELOG.md")
SUFFIXES = (".py", ".sql", ".md", ".toml", ".yaml", ".yml", ".conf", ".acl", ".example")

PLAIN = {
    r"(?<![Tt]here )\bis no (?!longer|more)[a-z]+": "is not a ...",
    r"\banew\b": "again",
    r"\bat the (most|least)\b": "at most, at least",
    r"\bthat (is|are) none\b|(?<![Tt]here )\bis none\b": "is not a ...",
    r"\b[Ww]ho(m?)ever\b": "any, each, the first ...",
    r"\b(is|are|was|were) owed\b|\bowes?\b": "is pending",
    r"\bcarr(y|ies|ied|ying) (out )?(a|the|its|all|these|his|this|some) (run|step|turn|call)s?\b": "execute",
    r"\b[Gg]ives? back\b|; gives\b": "return, release",
    r"\bcame to (nothing|its end)\b": "failed, ended",
    r"\bstruck out\b|\bdeaf\b": "deleted, not receiving",
    r"\bha(s|ve) not (a|an|the)\b": "does not have",
    r"\bnobody's\b": "without an owner",
    r"\b[Hh]and(ed|s)? (in|it) (a|an|the)\b": "pass",
    r"\bcut short\b": "interrupted",
    r"\bsays? so\b": "reports it, is marked",
    r"\bwhat (it|they|he|she) (is|are|was|were) told\b": "its options, its answer",
}
DOCSTRING = re.compile(r'\s*(?:"""|-- )(Of|What|Who|Whose|Whether|As|Says?|Gives?|Those) (?!is |are )')


def test_text_uses_plain_words() -> None:
    found = [line for path in _paths() for line in _phrases(path)]
    assert not found, "Use plain words (file:line: phrase -> plain words):\n" + "\n".join(found)


def _paths() -> Iterator[Path]:
    for place in SWEPT:
        yield from _files(ROOT / place)


def _files(place: Path) -> list[Path]:
    found = (path for path in (place, *place.rglob("*")) if path.suffix in SUFFIXES and path.is_file())
    return sorted(path for path in found if ".venv" not in path.parts)


def _phrases(path: Path) -> list[str]:
    """Return the phrases of a file as `path:line: phrase -> plain word`."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        place = f"{path.relative_to(ROOT).as_posix()}:{number}"
        found += [
            f"{place}: {match[0]!r} -> {plain}"
            for phrase, plain in PLAIN.items()
            for match in re.finditer(phrase, line)
        ]
        if path.suffix in (".py", ".sql") and (match := DOCSTRING.match(line)):
            found.append(f"{place}: begins with {match[1]!r} -> a verb, or the noun that it describes")
    return found
