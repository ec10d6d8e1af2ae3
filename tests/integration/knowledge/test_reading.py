"""A document may do to its child what it likes: it is refused with the reason, its neighbours are read, the worker lives."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agno_workers.errors import InvalidInput, SettingsError, Unavailable
from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.types import Chunking, Prepared, Raw, Refusal, Rows, Source
from tests.fakes import documents as made
from tests.invariants import until

ROOT = Path(__file__).parents[3]
PREPARE = "tests.fakes.preparing:prepare"
MEMORY = 512 << 20


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    """One child, with a second of CPU and two by the clock for a document."""
    found = Reading(1, time_limit_s=1, memory_limit_bytes=MEMORY, prepare=PREPARE)
    yield found
    found.close()


@pytest.fixture(scope="module")
def patient() -> Iterator[Reading]:
    """For what must not fail because the machine is busy."""
    found = Reading(1, time_limit_s=20, memory_limit_bytes=MEMORY, prepare=PREPARE)
    yield found
    found.close()


def item(content: bytes | str, name: str = "a.txt") -> tuple[Source, Raw]:
    return Source(f"file:///{name}"), Raw(content.encode() if isinstance(content, str) else content)


def outcomes(reading: Reading, *items: tuple[Source, Raw]) -> list[Prepared | Refusal]:
    return reading.prepare(items, Chunking())


def read(reading: Reading, *texts: str) -> list[Prepared]:
    return [found for found in outcomes(reading, *map(item, texts)) if isinstance(found, Prepared)]


def test_rows_of_a_file_come_back_as_sources_and_a_wrong_column_as_an_error(patient: Reading) -> None:
    raw = Raw(b"sku,name\nA,bike\n")
    found = patient.rows(Source("file:///a.csv", rows=Rows("sku")), raw)
    assert not isinstance(found, Refusal)
    assert [(each.uri, each.text) for each in found] == [("file:///a.csv#A", "bike")]
    with pytest.raises(InvalidInput, match="did you mean 'sku'"):
        patient.rows(Source("file:///a.csv", rows=Rows("sky")), raw)
    refused = patient.rows(Source("file:///a.xlsx", rows=Rows("sku")), Raw(b"PK\x03\x04broken"))
    assert isinstance(refused, Refusal)


def between(reading: Reading, bad: tuple[Source, Raw]) -> Refusal:
    """The refusal of a document that stands between good ones, which are read."""
    first, second, refused, third, fourth = outcomes(
        reading, item("first"), item("second"), bad, item("third"), item("fourth")
    )
    titles = [found.title for found in (first, second, third, fourth) if isinstance(found, Prepared)]
    assert titles == ["first", "second", "third", "fourth"]
    assert isinstance(refused, Refusal)
    return refused


@pytest.mark.parametrize(
    ("deed", "type", "words"),
    [
        ("loop", "time_limit", "took"),  # by the clock or by the CPU: who is first depends on the machine
        ("sleep 60", "time_limit", "longer than the limit of 2 s"),
        ("eat 700", "memory_limit", "more than the limit of 536 MB"),
        ("crash", "crashed", "SIGSEGV"),
        ("kill SIGABRT", "crashed", "SIGABRT"),
        ("kill SIGKILL", "crashed", "killed twice"),
        ("exit 3", "crashed", "status 3"),
        ("babble", "crashed", "invalid answer"),
        ("raise a bug", "crashed", "RuntimeError: a bug"),
        ("write /tmp/agno-no-such-file", "crashed", "File too large"),
    ],
)
def test_document_that_kills_its_child_is_refused_alone(
    reading: Reading, deed: str, type: str, words: str
) -> None:
    refused = between(reading, item(deed))
    assert (refused.type, words in refused.message) == (type, True), refused


def far_out() -> bytes:
    """A sheet of two cells: the first and the last."""
    files = made.unzipped(made.xlsx())
    files["xl/worksheets/sheet1.xml"] = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1"><c r="A1"><v>1</v></c>'
        b'</row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData></worksheet>'
    )
    return made.zipped(files)


def lying_bomb() -> bytes:
    """A sheet's texts: a thousand MB, given as 100,000 bytes in both places where a zip says it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("xl/sharedStrings.xml", "w") as part:
            part.write(b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>')
            for _ in range(1000):
                part.write(b"x" * 1_000_000)
        for name, content in made.unzipped(made.xlsx()).items():
            if name != "xl/sharedStrings.xml":
                archive.writestr(name, content)
    size = struct.pack("<I", archive.getinfo("xl/sharedStrings.xml").file_size)
    assert target.getvalue().count(size) == 2
    return target.getvalue().replace(size, struct.pack("<I", 100_000))


def nested_zip() -> bytes:
    inner = made.zipped({"x": bytes(30_000_000)})
    for _ in range(5):
        inner = made.zipped({f"{number}.zip": inner for number in range(10)})
    return made.zipped(made.unzipped(made.word()) | {"word/embeddings/1.zip": inner})


def looping_pages(levels: int) -> bytes:
    """A page tree whose nodes have their own ancestors as children."""
    nodes = [
        b"<< /Type /Pages /Count 1000000 /Kids [%d 0 R 2 0 R %d 0 R] >>" % (number + 1, max(2, number - 1))
        for number in range(2, levels)
    ]
    return made.pdf_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            *nodes,
            b"<< /Type /Pages /Count 1000000 /Kids [2 0 R] >>",
            b"<< >>",
        ]
    )


@pytest.mark.parametrize(
    ("name", "content", "types"),
    [
        ("deep.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {"unreadable"}),
        ("line.txt", b"x" * 60_000_000, {"too_large"}),
        ("large.txt", b"x" * 70_000_000, {"too_large"}),
        ("far.xlsx", far_out(), {"memory_limit", "too_large", "crashed"}),  # native code may abort without a message
        ("lying.xlsx", lying_bomb(), {"memory_limit", "unreadable", "time_limit"}),
        ("pages.pdf", looping_pages(2000), {"unreadable", "too_large", "empty"}),
        ("cut.pdf", made.pdf()[:300], {"unreadable"}),
        ("noise.pdf", b"%PDF-1.7\n" + bytes(range(256)) * 2000, {"unreadable"}),
        ("mail.eml", b"Subject: x\nFrom: a\nTo: b\n" + b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(3000)),
         {"unreadable", "empty", "time_limit", "Prepared"}),
    ],
)  # fmt: skip
def test_malicious_files_are_refused(patient: Reading, name: str, content: bytes, types: set[str]) -> None:
    outcome = outcomes(patient, item("before"), item(content, name), item("behind"))
    kinds = [found.type if isinstance(found, Refusal) else "Prepared" for found in outcome]
    assert kinds[0] == kinds[2] == "Prepared"
    assert kinds[1] in types, outcome[1]


def test_endless_page_is_refused_in_time(reading: Reading) -> None:
    """Its parser looks through all open lists at each new one."""
    assert between(reading, item(b"<ul><li>" * 100_000 + b"x", "deep.html")).type == "time_limit"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nested.docx", nested_zip()),  # what lies within is never opened
        ("blanks.txt", b"x" + b" " * 1_000_000 + b"\n" + b"\t" * 1_000_000 + b"y"),
        ("dashes.md", b"-" * 500_000 + b"\n" + b"=" * 500_000 + b"x"),
        ("front.md", b"---\n" + b"a: b\n" * 50_000),
        ("quotes.csv", b'"' * 999_999 + b",x"),
        ("blanks.html", b"<p>" + b"<br> " * 100_000 + b"x</p>" + b"<!doctype " * 10_000),
        ("numbers.txt", b"1." * 500_000 + b" A"),
        ("nul.txt", b"x" * 1000 + b"\0" * 10 + b"y"),
        ("surrogate.json", b'{"a": "\\ud800"}'),
    ],
)
def test_adversarial_input_is_read_in_time(patient: Reading, name: str, content: bytes) -> None:
    (outcome,) = outcomes(patient, item(content, name))
    assert isinstance(outcome, Prepared), outcome


def test_malicious_metadata_is_refused(reading: Reading) -> None:
    named = Source("file:///\ud800.txt"), Raw(b"x")
    told = Source("file:///a.txt", metadata={"x": object()}), Raw(b"x")
    made_of = between(reading, item("surrogate"))
    assert (between(reading, named).type, between(reading, told).type) == ("unreadable", "unreadable")
    assert (made_of.type, "can't be encoded" in made_of.message) == ("crashed", True)


def test_passed_text_is_read_as_text_whatever_its_name(reading: Reading) -> None:
    source = Source("text:minutes.pdf", text="Minutes of the meeting")
    (found,) = outcomes(reading, (source, Raw(b"Minutes of the meeting")))
    assert isinstance(found, Prepared)
    assert (found.title, found.media_type) == ("Minutes of the meeting", "text/plain")
    assert not found.metadata["has_text"], "it went to the child twice"


def test_child_is_reused_and_replaced_after_its_death(reading: Reading) -> None:
    one, two = read(reading, "one") + read(reading, "two")
    (three,) = read(reading, "crash", "three")
    assert one.metadata["pid"] == two.metadata["pid"] != three.metadata["pid"]


def test_child_with_much_memory_is_replaced() -> None:
    reading = Reading(1, memory_limit_bytes=MEMORY, prepare=PREPARE)
    try:
        found = read(reading, "eat 250", *(f"document {number}" for number in range(60)))
    finally:
        reading.close()
    assert len(found) == 61
    assert len({one.metadata["pid"] for one in found}) == 2


def test_killed_child_gets_a_second_attempt(reading: Reading, tmp_path: Path) -> None:
    """Such as by the kernel, when other processes have taken all memory."""
    found = read(reading, "before", f"kill-once {tmp_path / 'killed'}", "behind")
    assert (tmp_path / "killed").exists()
    assert [one.title for one in found] == ["before", f"kill-once {tmp_path / 'killed'}", "behind"]


def test_output_of_libraries_does_not_reach_the_answers(reading: Reading) -> None:
    assert [one.title for one in read(reading, "talk", "behind")] == ["talk", "behind"]


def test_child_has_no_secrets_and_few_rights(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    read(reading, "crash")  # the next child starts with the key in our environment
    (found,) = read(reading, "hello")
    assert set(found.metadata["environment"]) <= {
        "PATH", "LD_LIBRARY_PATH", "TZ", "PYTHONPATH", "LC_ALL", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    }  # fmt: skip
    assert found.metadata["limits"] == {"AS": MEMORY, "FSIZE": 0, "CORE": 0, "NOFILE": 64}


@pytest.mark.parametrize(("deed", "error"), [("wrong-strategy", InvalidInput), ("missing", SettingsError)])
def test_internal_error_refuses_no_document(reading: Reading, deed: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        outcomes(reading, item("before"), item(deed), item("behind"))
    assert [one.title for one in read(reading, "retry_of")] == ["retry_of"]


def test_child_that_can_not_start_reports_why() -> None:
    reading = Reading(1, prepare="tests.fakes.no_such:prepare")
    with pytest.raises(Unavailable, match="no_such"):
        outcomes(reading, item("hello"))
    reading.close()


def test_threads_share_the_children() -> None:
    reading = Reading(2, time_limit_s=20, memory_limit_bytes=MEMORY, prepare=PREPARE)
    found: dict[int, Sequence[str | None]] = {}

    def work(number: int) -> None:
        texts = [f"{number}.{at}" if at != 5 else "crash" for at in range(12)]
        found[number] = [one.title for one in read(reading, *texts)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    reading.close()
    assert found == {number: [f"{number}.{at}" for at in range(12) if at != 5] for number in range(6)}


def test_closing_waits_for_the_current_batch() -> None:
    reading = Reading(1, memory_limit_bytes=MEMORY, prepare=PREPARE)
    read(reading, "started")
    found: list[Prepared] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        found.extend(read(reading, "sleep 0.5", "behind"))

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    until(lambda: reading._idle == [])
    reading.close()
    thread.join(60)
    assert [one.title for one in found] == ["sleep 0.5", "behind"]
    with pytest.raises(RuntimeError, match="closed"):
        read(reading, "more")


def test_forked_process_has_its_own_children(reading: Reading) -> None:
    (ours,) = read(reading, "hello")
    told, tells = os.pipe()
    forked = os.fork()
    if not forked:
        try:
            os.write(tells, str(read(reading, "hello")[0].metadata["pid"]).encode())
        finally:
            os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    theirs = int(os.read(told, 100))
    os.close(told)
    os.close(tells)
    assert read(reading, "hello")[0].metadata["pid"] == ours.metadata["pid"] != theirs


def test_child_dies_with_its_worker_during_a_document(tmp_path: Path) -> None:
    """As kill -9 ends one: nobody closes anything, and the document goes on for ever."""
    told = tmp_path / "pid"
    program = f"""
from agno_workers.knowledge.types import Chunking, Raw, Source
from agno_workers.knowledge.reading import Reading
Reading(1, prepare={PREPARE!r}).prepare([(Source("file:///a.txt"), Raw(b"tell-and-loop {told}"))], Chunking())
"""
    worker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        until(told.is_symlink)
        child = int(str(told.readlink()))
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()
    until(lambda: not _runs(child))


def test_every_format_gives_chunks() -> None:
    names = ("a.md", "a.html", "a.txt", "a.docx", "a.pptx", "a.pdf", "a.eml")
    files = made.every_format()
    reading = Reading(1)
    found = reading.prepare([item(files[name], name) for name in names], Chunking())
    reading.close()
    refused = [(name, one) for name, one in zip(names, found, strict=True) if isinstance(one, Refusal)]
    assert all(one.type in ("low_quality", "empty") for _, one in refused), refused
    html = found[1]
    assert isinstance(html, Prepared)
    assert html.language == "en"
    assert any(chunk.heading and "Currents" in chunk.heading for chunk in html.chunks)


def _runs(pid: int) -> bool:
    """A zombie does not: nobody may have asked for its status yet."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
