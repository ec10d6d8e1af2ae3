"""The file that the local embedder is made of, run as it is: floats, batches of 8 texts of about the same length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from tokenizers import Tokenizer

from agno_workers.knowledge.embedders.fused import packaged
from agno_workers.knowledge.embedders.local import Local
from agno_workers.knowledge.tokens import MINILM

BATCH = 8


class Packaged:
    """On one core, as ours."""

    def __init__(self) -> None:
        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = InferenceSession(str(packaged()), options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(MINILM))
        self._tokenizer.enable_truncation(Local.max_tokens)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        all_ids = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(all_ids[index]))
        vectors = np.empty((len(texts), Local.dimensions), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            vectors[batch] = self._means([all_ids[index] for index in batch])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _means(self, all_ids: list[list[int]]) -> NDArray[np.float32]:
        ids = np.zeros((len(all_ids), max(map(len, all_ids))), np.int64)
        mask = np.zeros_like(ids)
        for row, its in enumerate(all_ids):
            ids[row, : len(its)], mask[row, : len(its)] = its, 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(None, given)
        summed: NDArray[np.float32] = (states * mask[..., None]).sum(axis=1)
        return summed
