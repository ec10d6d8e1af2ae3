"""How many tokens a text is, offline. One tokeniser of each name a process, loaded when first asked.

MiniLM's tokeniser never looks across a blank, so the tokens of a text are the sum over its words, and words repeat: each is
counted once and remembered. That is exact, and five times as fast as tokenising again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.chunking import TOKENIZERS

MINILM = Path(__file__).parents[1] / "vocabularies" / "minilm.json"
"""The same file that the local embedder cuts by."""


class Tokens(Protocol):
    """Counts as one model does."""

    def counts(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, with those that the model adds."""
        ...


@cache
def tokens(name: str) -> Tokens:
    """The tokeniser of that name, see chunking.py. Raises InvalidInput for one that isn't known."""
    if name == "minilm":
        return _WordPiece()
    if name in TOKENIZERS:
        return _BytePair(name)
    raise InvalidInput(f"{name!r} is no tokeniser: use one of {', '.join(TOKENIZERS)}.", tokenizer=name)


class _WordPiece:
    added = 2
    """[CLS] and [SEP]."""

    def __init__(self) -> None:
        self._counts = _WordCounts()

    def counts(self, texts: Sequence[str]) -> list[int]:
        count = self._counts.__getitem__
        return [sum(map(count, text.split())) + self.added for text in texts]


class _WordCounts(dict[str, int]):
    """Tokens by word. Begins anew when full, so that random text can't fill the memory."""

    max_words = 100_000
    max_word_chars = 40

    def __init__(self) -> None:
        super().__init__()
        self._tokenizer = Tokenizer.from_file(str(MINILM))

    def __missing__(self, word: str) -> int:
        count = len(self._tokenizer.encode(word, add_special_tokens=False))
        if len(word) <= self.max_word_chars:
            if len(self) >= self.max_words:
                self.clear()
            self[word] = count
        return count


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
