"""The bands of a text, in processes that hash differently."""

from __future__ import annotations

import subprocess
import sys

from agno_workers.knowledge.minhash import bands
from tests.unit.knowledge.test_minhash import TEXT


def test_bands_are_the_same_in_every_process_and_for_ever() -> None:
    """They are stored: a change here makes all that were stored before worthless."""
    program = f"from agno_workers.knowledge.minhash import bands; print(bands({TEXT!r}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{bands(TEXT)}\n"}
    assert bands(TEXT)[:2] == (805720887265239905, 2249145743068433087)
