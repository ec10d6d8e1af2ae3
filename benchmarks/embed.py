"""The local embedder on one core, beside the packaged file that it is made of; over our own pages, so that it runs anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter, process_time

from agno_workers.knowledge.embedders.local import Local
from benchmarks.peers.packaged_minilm import Packaged
from benchmarks.report import Report, Row
from benchmarks.stage import ROOT, Options
from benchmarks.timing import alternate

CHUNK_CHARS = 450
FLOOR = "the packaged int8 file, batches of 8"


def run(options: Options) -> Report:
    rounds = options.pick(5, 1)
    texts = list(chunks())[: options.pick(200, 24)]
    questions = [text[:50] for text in texts[:40]]
    ours, peer = Local(), Packaged()
    vectors, tokens = ours.embed_counted(texts)
    cosines = (vectors * peer.embed(texts)).sum(axis=1)
    rates = alternate(
        rounds, lambda: rate(ours.embed, texts, tokens), lambda: rate(peer.embed, texts, tokens)
    )
    waits = alternate(rounds, lambda: wait_s(ours.embed, questions), lambda: wait_s(peer.embed, questions))
    starts = alternate(rounds, lambda: start("Local"), lambda: start("Packaged"))
    return Report(
        name="embed",
        title="all-MiniLM-L6-v2 on one core, without a network",
        setting=f"{len(texts)} chunks of {CHUNK_CHARS} characters, {tokens / len(texts):.0f} tokens each; one thread",
        rows=(
            Row(
                measure="tokens a second of CPU", unit="/s", ours=rates[0], peer=rates[1], against=FLOOR, aim=">= 2x",
            ),
            Row(measure="one question", unit="s", ours=waits[0], peer=waits[1], against=FLOOR),
            Row(
                measure="from the start of Python to the first vector", unit="s", ours=tuple(s for s, _ in starts[0]),
                peer=tuple(s for s, _ in starts[1]), against=FLOOR,
            ),
            Row(
                measure="peak memory (RSS) of a process that embeds", unit="B", ours=tuple(b for _, b in starts[0]),
                peer=tuple(b for _, b in starts[1]), against=FLOOR, aim="<= 150 MiB",
            ),
        ),
        notes=(f"cosine of ours to the peer's vectors: {cosines.mean():.4f} on average, {cosines.min():.4f} at least",),
    )  # fmt: skip


def chunks() -> Iterator[str]:
    """The project's pages, cut between words."""
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]):
        piece = ""
        for word in page.read_text(encoding="utf-8").split():
            if len(piece) + len(word) >= CHUNK_CHARS:
                yield piece
                piece = ""
            piece = f"{piece} {word}".lstrip()


def rate(embed: Callable[[Sequence[str]], object], texts: Sequence[str], tokens: int) -> float:
    began = process_time()
    embed(texts)
    return tokens / (process_time() - began)


def wait_s(embed: Callable[[Sequence[str]], object], questions: Sequence[str]) -> float:
    """On average, of questions that come one at a time."""
    began = perf_counter()
    for question in questions:
        embed([question])
    return (perf_counter() - began) / len(questions)


_MODULES = {"Local": "agno_workers.knowledge.embedders.local", "Packaged": "benchmarks.peers.packaged_minilm"}
_PROGRAM = """
import os
from {module} import {name}
{name}().embed(["Where is the keeper?"])
from benchmarks.processes import peak_rss_bytes
print(peak_rss_bytes(os.getpid()))
"""


def start(name: str) -> tuple[float, float]:
    """Seconds and bytes of a new process."""
    began = perf_counter()
    program = _PROGRAM.format(module=_MODULES[name], name=name)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return perf_counter() - began, float(done.stdout)
