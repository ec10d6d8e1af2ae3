"""Images of a knowledge base with a vision model: the real client over real HTTP, real files, a real reading child."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agno_workers.engine.active_steps import Stopped
from agno_workers.knowledge.context import seen, viewer
from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.sources.resolve import Allowed, fetch, find
from agno_workers.knowledge.store.ingest import IngestLimits
from agno_workers.knowledge.types import Raw
from agno_workers.models import Scripted, Turn, resolve
from tests.database import RunDatabase
from tests.fakes import documents as made
from tests.fakes.documents import picture
from tests.fakes.provider import USAGE, Provider, running
from tests.ingesting import Shelf

MODEL = "openai:gpt-5"
LIGHTHOUSE = "say A lighthouse stands on a cliff."


@pytest.fixture(scope="module")
def fake() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    found = Reading(1)
    yield found
    found.close()


@pytest.fixture
def provider(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    fake.forget()
    return fake


FILES = Allowed(roots=("/",))


@pytest.fixture
def shelf(db: RunDatabase, reading: Reading, provider: Provider) -> Shelf:
    """With files, children and models as workers have them."""
    shelf = Shelf(db, IngestLimits(publish_after_s=0.0))
    for name, real in {
        "find": partial(find, allowed=FILES), "fetch": partial(fetch, allowed=FILES), "prepare": reading.prepare, "viewer": partial(viewer, resolve),
    }.items():  # fmt: skip
        object.__setattr__(shelf.context, name, real)
    return shelf


def ingested(shelf: Shelf, folder: Path, vision: str | None = MODEL) -> dict[str, Any]:
    shelf.knowledges.ensure("docs", {"vision": vision})
    return shelf.run(str(folder))


def text_of(shelf: Shelf, name: str) -> str:
    (found,) = (chunks for uri, chunks in shelf.chunks().items() if uri.endswith(f"/{name}"))
    return "\n".join(found)


def test_image_is_found_by_its_description_and_described_once(
    shelf: Shelf, tmp_path: Path, provider: Provider, db: RunDatabase
) -> None:
    content = picture(LIGHTHOUSE)
    (tmp_path / "coast.png").write_bytes(content)
    (tmp_path / "notes.md").write_text("Nothing to be seen here.")
    first = ingested(shelf, tmp_path)
    assert (first["documents"], first["failed"]) == (2, 0)
    assert first["tokens"] >= USAGE["input"] + USAGE["output"]
    (asked,) = provider.requests()
    assert asked["body"]["model"] == "gpt-5"
    assert all(word in text_of(shelf, "coast.png") for word in ("lighthouse", "coast.png", "The coast"))
    (row,) = db.sql(
        "SELECT sha256 = sha256(%(content)s) AS is_same, metadata, bytes FROM agno.document WHERE media_type = 'image/png'",
        content=content,
    )
    assert (row["is_same"], row["bytes"]) == (True, len(content))
    assert row["metadata"]["width"] == 32
    assert row["metadata"]["described_by"]
    assert db.sql("SELECT FROM agno.chunk WHERE tsv @@ to_tsquery('english', 'lighthouse')")

    (tmp_path / "coast.png").touch()  # it is fetched, and its bytes are as they were
    assert ingested(shelf, tmp_path)["unchanged"] == 2
    assert len(provider.requests()) == 1


def test_enabling_a_vision_model_describes_stored_images(
    shelf: Shelf, tmp_path: Path, provider: Provider
) -> None:
    (tmp_path / "coast.png").write_bytes(picture(LIGHTHOUSE))
    ingested(shelf, tmp_path, vision=None)
    assert not provider.requests()
    assert "lighthouse" not in text_of(shelf, "coast.png")
    assert ingested(shelf, tmp_path)["documents"] == 1
    assert "lighthouse" in text_of(shelf, "coast.png")
    assert ingested(shelf, tmp_path)["unchanged"] == 1
    assert ingested(shelf, tmp_path, vision="none")["documents"] == 1
    assert ingested(shelf, tmp_path, vision=None)["unchanged"] == 1
    assert "lighthouse" not in text_of(shelf, "coast.png")
    assert len(provider.requests()) == 1


def test_busy_provider_is_retried_while_other_documents_are_stored(
    shelf: Shelf, tmp_path: Path, provider: Provider, db: RunDatabase
) -> None:
    (tmp_path / "busy.png").write_bytes(picture(f"fault:429 retry-after=77 times=1\n{LIGHTHOUSE}"))
    (tmp_path / "coast.png").write_bytes(picture("say A rocky coast."))
    shelf.knowledges.ensure("docs", {"vision": MODEL})
    send = shelf.submit(str(tmp_path))
    shelf.carry(send)
    assert "rocky" in text_of(shelf, "coast.png")
    wait_s = db.value(
        "SELECT extract(epoch FROM not_before - clock_timestamp()) FROM agno.step WHERE not_before IS NOT NULL AND ended_at IS NULL"
    )
    assert 60 < wait_s < 120
    shelf.finish(send.run_id)
    assert "lighthouse" in text_of(shelf, "busy.png")
    assert set(shelf.statuses(send.run_id).values()) == {"done"}
    assert len(provider.requests()) == 3


def test_rejected_image_fails_alone_with_its_reason(shelf: Shelf, tmp_path: Path, db: RunDatabase) -> None:
    (tmp_path / "bad.png").write_bytes(picture("fault:400"))
    (tmp_path / "coast.png").write_bytes(picture(LIGHTHOUSE))
    shelf.knowledges.ensure("docs", {"vision": MODEL})
    send = shelf.submit(str(tmp_path))
    shelf.carry(send)
    (failure,) = shelf.knowledges.failures(send.run_id)
    assert failure.uri.endswith("/bad.png")
    assert (failure.type, "rejected the request (400)" in failure.message) == ("ModelRejected", True)
    assert "lighthouse" in text_of(shelf, "coast.png")


@pytest.mark.parametrize(
    "content", [made.every_format()["a.tiff"], picture("fault:refusal")], ids=("tiff", "refused")
)
def test_image_without_a_description_is_found_by_its_metadata(
    shelf: Shelf, tmp_path: Path, db: RunDatabase, content: bytes
) -> None:
    (tmp_path / "odd.image").write_bytes(content)
    assert ingested(shelf, tmp_path)["documents"] == 1
    assert "odd.image" in text_of(shelf, "odd.image")
    assert db.value("SELECT metadata->>'not_described' FROM agno.document")


def test_unknown_vision_model_ends_the_ingestion_before_reading(
    shelf: Shelf, tmp_path: Path, db: RunDatabase
) -> None:
    (tmp_path / "notes.md").write_text("Nothing to be seen here.")
    shelf.knowledges.ensure("docs", {"vision": "opnai:gpt-5"})
    send = shelf.submit(str(tmp_path))
    shelf.carry(send)
    run = db.queries.run(send.run_id)
    assert run.error is not None
    assert "openai" in run.error["message"]


def test_lost_step_makes_no_further_calls(provider: Provider) -> None:
    raw = Raw(picture(LIGHTHOUSE))
    with pytest.raises(Stopped):
        seen(resolve(MODEL), raw, lambda: True)
    assert not provider.requests()
    answers = iter([False, True])
    with pytest.raises(Stopped):  # while it writes
        seen(resolve(MODEL), raw, lambda: next(answers))


def test_other_files_are_not_described() -> None:
    def never(_: Any) -> Turn:
        raise AssertionError("it was asked")

    raw = Raw(b"# Text", "image/png")
    assert seen(Scripted("never", never), raw, lambda: True) is raw
