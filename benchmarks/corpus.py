"""Documents of a made-up language: the same for every contestant and each time, and as uneven as real ones."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

_WORDS = 8000
_SYLLABLES = [first + second for first in "bcdfghjklmnprstvwz" for second in "aeiou"]


class Corpus:
    """`count` documents of about `chars` characters each, in paragraphs under some headings."""

    def __init__(self, count: int, chars: int = 6000, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._words = ["".join(self._random.choices(_SYLLABLES, k=1 + place % 4)) for place in range(_WORDS)]
        # Zipf: the word of rank n stands there 1/n as often as the first.
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(_WORDS)))
        self.texts = [self._document(number, chars) for number in range(count)]

    def write(self, folder: Path) -> None:
        """A Markdown file each."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(self.texts):
            path(folder, number).write_text(text, encoding="utf-8")

    def edit(self, folder: Path, share: float = 0.1) -> int:
        """Put a new paragraph near the beginning of some documents; how many."""
        edited = range(0, len(self.texts), round(1 / share))
        for number in edited:
            head, _, rest = self.texts[number].partition("\n\n")
            path(folder, number).write_text(f"{head}\n\n{self._paragraph(300)}\n\n{rest}", encoding="utf-8")
        return len(edited)

    def _document(self, number: int, chars: int) -> str:
        parts, length = [f"# {self._sentence(5)} {number}"], 0
        while length < chars:
            if len(parts) % 6 == 0:
                parts.append(f"## {self._sentence(4)}")
            parts.append(self._paragraph(self._random.randint(200, 900)))
            length += len(parts[-1])
        return "\n\n".join(parts)

    def _paragraph(self, chars: int) -> str:
        sentences: list[str] = []
        while sum(map(len, sentences)) < chars:
            sentences.append(self._sentence(self._random.randint(6, 18)) + ".")
        return " ".join(sentences)

    def _sentence(self, words: int) -> str:
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=words)).capitalize()


def path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.md"
