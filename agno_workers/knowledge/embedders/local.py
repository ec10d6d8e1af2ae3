"""`local:all-minilm-l6-v2`: MiniLM in this process, on one core a call. No key, no network, no torch; English.

Threads may share it: each call computes on its own thread, and lets others run meanwhile. More cores are used by more
threads or processes. A process that embeds holds 140 MB, 40 of them shared, and is ready 0.5 s after the first question.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from agno_workers.errors import ModelRejected
from agno_workers.knowledge.embedders.texts import sound

NAME = "all-minilm-l6-v2"
VOCABULARY = Path(__file__).parents[1] / "vocabularies" / "minilm.json"
MAX_CHARS = 100_000
"""What stands behind is not even looked at: far more than `max_tokens` can hold."""


class Local:
    """Vectors of one text are the same whatever it is embedded with: each is computed alone."""

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
        """As `embed`, and the tokens that it took."""
        if self._ready.pid != os.getpid():
            self._ready = _Ready()  # forked, perhaps while a thread that is not here held the lock
        tokenizer, session = self._ready.get()
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        tokens = 0
        for row, text in enumerate(texts):
            # One by one: the tokeniser's batches use threads of their own, which do not live through a fork.
            ids = tokenizer.encode(sound(text[:MAX_CHARS])).ids
            (vectors[row : row + 1],) = session.run(None, {"ids": np.array([ids], np.int32)})
            tokens += len(ids)
        return vectors, tokens


class _Ready:
    """A tokeniser and a session of this process, made when first asked for."""

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
    tokenizer = Tokenizer.from_file(str(VOCABULARY))
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
        # By a path, as from a file: handed over as bytes it would be held twice.
        return InferenceSession(f"/proc/self/fd/{descriptor}", options, providers=["CPUExecutionProvider"])
    finally:
        os.close(descriptor)


def _model() -> bytes:
    from agno_workers.knowledge.embedders.fused import fused, packaged  # noqa: PLC0415 - onnx is needed once

    try:
        return fused(packaged())
    except LookupError as error:
        raise ModelRejected(
            f"{Local.name} can't be asked: {error.args[0]}",
            provider="local", model=NAME, status=None, code="not_configured",
        ) from error  # fmt: skip
