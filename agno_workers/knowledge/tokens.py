"""How many tokens a text is, offline. One tokenizer of each name a process, loaded when first asked.

MiniLM's tokenizer never looks across a blank, so the tokens of a text are the sum over its words, and words repeat: each is
counted once and remembered. That is exact, and five times as fast as tokenising again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec, module_from_spec
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.chunking import TOKENIZERS

MINILM = Path(__file__).parent / "vocabularies" / "minilm.json"
"""The same file that the local embedder cuts by."""


class Tokens(Protocol):
    """Counts as one model does."""

    def counts(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, with those that the model adds."""
        ...


@cache
def tokens(name: str) -> Tokens:
    """The tokenizer of that name, see chunking.py. Raises InvalidInput for one that isn't known."""
    if name == "minilm":
        return _WordPiece()
    if name in TOKENIZERS:
        return _BytePair(name)
    raise InvalidInput(f"unknown tokenizer {name!r}: use one of {', '.join(TOKENIZERS)}.", tokenizer=name)


class _WordPiece:
    """Counts by word, and a new word by its runs of letters and digits, since BERT takes each mark by itself. The tokenizer sees
    a run once, all new ones of a document in one call.
    """

    added = 2
    """[CLS] and [SEP]."""
    max_held = 16_000_000
    """Bytes of words, about, after which it begins anew: random text must not fill the memory."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(MINILM))
        self._counts: dict[str, int] = {}
        self._held = 0

    def counts(self, texts: Sequence[str]) -> list[int]:
        if self._held > self.max_held:
            self._counts, self._held = {}, 0
        words = [text.split() for text in texts]
        if new := set(chain.from_iterable(words)).difference(self._counts):
            self._learn(new)
        count = self._counts.__getitem__
        return [sum(map(count, each)) + self.added for each in words]

    def _learn(self, words: set[str]) -> None:
        runs = {word: _RUN.findall(word) for word in words if word.isascii()}
        self._tokenise(list(set(chain(*runs.values(), words - runs.keys())).difference(self._counts)))
        count = self._counts.__getitem__
        for word, parts in runs.items():
            marks = len(word) - sum(map(len, parts))
            self._counts[word] = sum(map(count, parts)) + marks
        self._held += sum(map(len, words)) + 100 * len(words)

    def _tokenise(self, words: list[str]) -> None:
        self._counts |= dict.fromkeys(words, 0)
        if words:
            encoding = self._tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False)
            for index, count in Counter(encoding.word_ids).items():
                assert index is not None, "only a token that the model adds is of no word"
                self._counts[words[index]] = count


_RUN = re.compile("[A-Za-z0-9]+")


class _BytePair:
    """OpenAI's encodings. The model adds nothing."""

    def __init__(self, name: str) -> None:
        self._count = _bindings().tokenizer_for_encoding(name).count

    def counts(self, texts: Sequence[str]) -> list[int]:
        return list(map(self._count, texts))


def _bindings() -> Any:
    """The compiled half of bpe_openai. Its Python half reads four vocabularies into dicts on import: 60 MB and a second."""
    finder = FileFinder(str(_folder("bpe_openai")), (ExtensionFileLoader, EXTENSION_SUFFIXES))
    spec = finder.find_spec("_bindings")
    assert spec is not None, "bpe-openai without its compiled half"
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _folder(package: str) -> Path:
    """Where a package lies, without running it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput(f"{package} is not installed: install agno-workers[knowledge].", package=package)
    return Path(spec.submodule_search_locations[0])
