"""A map over a folder: each file is read by a step and summed up by an agent, at most five at a time, and a report is made of all.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.batch_map agno-workers up
    eval "$(agno-workers env)" && python -m examples.batch_map FOLDER

A file that can't be read fails alone. Only the model is a script; with a key, use "openai:…" in its place.
"""

import sys
from pathlib import Path
from typing import Any

from agno_workers import Agent, Flow, StepFailed, workflow
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn


def list_files(folder: str) -> list[str]:
    """Return the text files of a folder."""
    return sorted(str(path) for path in Path(folder).glob("*.txt"))


def read_file(path: str) -> str:
    """Return the text of a file."""
    return Path(path).read_text(encoding="utf-8")


def summarize(request: ModelRequest) -> Turn:
    """Sum a text up by its first words, as a model that is in a hurry would."""
    return Turn(text=" ".join(request.messages[-1].text.split()[:3]))


summarizer = Agent(name="summarizer", model=Scripted("summarizer", summarize), instructions="Sum it up.")


@workflow
def digest(flow: Flow, path: str) -> str:
    """Read one file, and sum it up."""
    return str(flow.step("summary", summarizer, flow.step("text", read_file, path)))


def make_report(summaries: list[Any]) -> str:
    """Make one text of all summaries, with the number of the files that had none."""
    good = [each for each in summaries if not isinstance(each, StepFailed)]
    return "\n".join(
        [*(f"* {each}" for each in good), f"{len(summaries) - len(good)} file(s) could not be read."]
    )


@workflow
def digest_folder(flow: Flow, folder: str) -> str:
    """Do the same for each file of a folder; a workflow is an item's work as an agent or a function is."""
    paths = flow.step("files", list_files, folder)
    return make_report(list(flow.map("digests", paths, digest, window=5)))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("Name a folder with text files: python -m examples.batch_map FOLDER")
    print(digest_folder.delay(str(Path(sys.argv[1]).resolve())).get(timeout=60))
