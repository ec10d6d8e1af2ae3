"""`local:all-minilm-l6-v2`: MiniLM in this process, on one core a call. No key, no network, no torch; English.

Threads may share it: each call computes on its own thread, and lets others run meanwhile. More threads or processes use
more cores. A process that embeds takes 140 MB, 40 of them shared, and is ready 0.5 s after its first text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from agno_workers.knowledge.embedders.texts import sound
from agno_workers.knowledge.tokens import MINILM
from agno_workers.models.access import unusable

NAME = "all-minilm-l6-v2"
MAX_CHARS = 100_000
"""Text beyond is ignored: this is far more than `max_tokens` can hold."""


class Local:
    """A text has the same vector in every batch, since each is computed alone."""

    name = f"local:{NAME}"
    dimensions = 384
    max_tokens = 256
    batch_texts = 256
    batch_tokens = 32_768

    def __init__(self) -> None:
        self._ready = _Ready()

    def embed(
        self,
        texts: Sequence[str],
        kind: Literal["document", "query"] = "document",  # noqa: ARG002 - MiniLM knows no difference
    ) -> NDArray[np.float32]:
        return self.embed_counted(texts)[0]

    def embed_counted(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return the vectors of `embed`, and the number of tokens."""
        if self._ready.pid != os.getpid():
            self._ready = _Ready()  # forked, perhaps while another thread held the lock
        tokenizer, session = self._ready.get()
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        tokens = 0
        for row, text in enumerate(texts):
            # One by one: the tokeniser's batches use threads of their own, which do not survive a fork.
            ids = tokenizer.encode(sound(text[:MAX_CHARS])).ids
            (vectors[row : row + 1],) = session.run(None, {"ids": np.array([ids], np.int32)})
            tokens += len(ids)
        return vectors, tokens


class _Ready:
    """The tokeniser and the session of this process, built on first use."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = Lock()
        self._made: tuple[Tokenizer, InferenceSession] | None = None

    def get(self) -> tuple[Tokenizer, InferenceSession]:
        with self._lock:
            if self._made is None:
                self._made = _tokenizer(), _session()
            return self._made


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(MINILM))
    tokenizer.enable_truncation(Local.max_tokens)
    return tokenizer


def _session() -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    descriptor = os.memfd_create(NAME)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(_model())
        # A path, since bytes would be kept in memory twice.
        return InferenceSession(f"/proc/self/fd/{descriptor}", options, providers=["CPUExecutionProvider"])
    finally:
        os.close(descriptor)


def _model() -> bytes:
    from agno_workers.knowledge.embedders.fused import fused, packaged  # noqa: PLC0415 - onnx is needed once

    try:
        return fused(packaged())
    except LookupError as error:
        raise unusable(Local.name, error.args[0]) from error
