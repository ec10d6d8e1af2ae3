"""Each format gives its blocks, and each way a file can be wrong is said in words."""

from __future__ import annotations

import io
import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from msgspec.structs import replace

from agno_workers.knowledge.readers import detect, read
from agno_workers.knowledge.readers.detect import DOCX, ODS, PPTX, XLS, XLSX
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable
from agno_workers.knowledge.types import Block, Parsed
from tests.fakes import documents as made

TABLE = Block("table", "place | metres\nFundy | 16")
SEA = Block("paragraph", "The moon pulls the sea.")


def as_read(content: bytes, name: str = "", said: str | None = None) -> Parsed:
    return read(content, detect(content, said, name), name)


@pytest.mark.parametrize(
    ("name", "content", "media_type", "title", "blocks"),
    [
        ("a.md", made.MARKDOWN, "text/markdown", "Tides", (
            Block("heading", "Tides", 1), SEA, Block("list", "- spring\n  - neap\n- ebb"), TABLE, Block("code", "print(16)"),
        )),
        ("a.html", made.HTML, "text/html", "Tides & moons", (
            Block("heading", "Tides", 1), SEA, Block("list", "- spring\n  1. first\n- neap"), Block("code", "high = 16\nlow = 1"),
            TABLE, Block("heading", "Currents", 2),
            Block("paragraph", "They turn, and the water of the whole bay turns with them twice a day, in and out again, as the "
                  "sailors who live there will tell you if you ask them how the boats come home."),
        )),
        ("a.txt", made.TEXT, "text/plain", None, (
            Block("heading", "1.  Introduction", 1), Block("paragraph", "The moon pulls\nthe sea."), Block("heading", "2.1 Currents", 2),
            Block("paragraph", "They turn."), Block("list", "* in\n* out"),
        )),
        ("a.csv", made.CSV, "text/csv", None, (Block("table", "place | metres\nFundy | 16\nSaint; Malo | 12"),)),
        ("a.tsv", made.TSV, "text/tab-separated-values", None, (TABLE,)),
        ("a.json", made.JSON, "application/json", None, (
            Block("paragraph", "place: Fundy\ntide.metres: 16\nkinds: spring, neap"), Block("paragraph", "place: Malo"),
        )),
        ("a.jsonl", made.JSONL, "application/jsonl", None, (Block("paragraph", "place: Fundy"), Block("paragraph", "place: Malo"))),
        ("a.docx", made.word(), DOCX, "Tides", (
            Block("heading", "Tides", 1), SEA, Block("list", "- spring\n- neap"), TABLE, Block("heading", "Currents", 2),
            Block("paragraph", "They turn."),
        )),
        ("a.pptx", made.slides(), PPTX, "Tides", (
            Block("heading", "Tides", 1), Block("list", "- spring\n- neap"), Block("paragraph", "Ask the sailors."),
            Block("heading", "Slide 2", 2), Block("table", TABLE.text),
        )),
        ("a.xlsx", made.xlsx(), XLSX, None, (Block("heading", "Tides", 1), Block("table", TABLE.text + "\nMalo | 12.5"))),
        ("a.ods", made.ods(), ODS, None, (Block("heading", "Tides", 1), TABLE)),
        ("a.xls", made.xls(), XLS, None, (Block("heading", "Tides", 1), TABLE)),
        ("a.pdf", made.pdf(), "application/pdf", "Tides", (
            Block("heading", "Tides", 1),
            Block("paragraph", "The moon pulls the sea, and it follows her around the world, as it always did."),
            Block("paragraph", "They turn twice a day."), Block("heading", "Currents", 2),
            Block("paragraph", "Ask the sailors about them, who know when the boats come home."),
        )),
        ("a.eml", made.mail(), "message/rfc822", "Tides tomorrow", (SEA, Block("paragraph", "They turn at six."))),
        ("bay.png", made.png(), "image/png", "The bay", (
            Block("paragraph", "Image bay.png (PNG, 32 x 16 pixels)\ntitle: The bay\ndescription: Boats at low tide"),
        )),
        ("bay.jpg", made.jpeg(), "image/jpeg", None, (
            Block("paragraph", "Image bay.jpg (JPEG, 32 x 16 pixels)\ndescription: Boats at low tide\nauthor: Ana"),
        )),
        ("a.xml", b"<?xml version='1.0'?><feed><item><name>Tides</name><text><![CDATA[They turn.]]></text></item></feed>",
         "application/xml", None, (Block("paragraph", "Tides"), Block("paragraph", "They turn."))),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><text>Tides</text><script>x</script></svg>", "image/svg+xml", None, (
            Block("paragraph", "Tides"),
        )),
        ("a.py", b"import this\n\nprint(1)\n", "text/x-code", "a.py", (Block("code", "import this\n\nprint(1)"),)),
    ],
)  # fmt: skip
def test_reader_returns_blocks(
    name: str, content: bytes, media_type: str, title: str | None, blocks: tuple[Block, ...]
) -> None:
    assert detect(content, None, name) == media_type
    parsed = as_read(content, name)
    assert tuple(replace(block, place=None, lines=()) for block in parsed.blocks) == blocks
    assert parsed.title == title


@pytest.mark.parametrize(
    ("content", "name", "known"),
    [
        (made.HTML, "a.html", {"language": "en", "description": "Why the sea moves"}),
        (made.MARKDOWN, "a.md", {"language": "en"}),
        (made.pdf(), "a.pdf", {"pages": 2, "author": "Ana"}),
        (made.mail(), "a.eml", {
            "from": "Ana <ana@example.org>", "to": "bo@example.org", "date": "2026-07-01T10:00:00Z",
            "attachments": [{"name": "table.pdf", "media_type": "application/pdf", "bytes": 8, "not_read": "It is a broken PDF: Failed to load document (PDFium: Data format error)."}],
        }),
        (made.jpeg(), "a.jpg", {"author": "Ana", "description": "Boats at low tide", "format": "jpeg", "width": 32, "height": 16}),
    ],
)  # fmt: skip
def test_reader_returns_metadata_of_the_format(content: bytes, name: str, known: dict[str, object]) -> None:
    assert as_read(content, name).metadata == known


def renumbered(content: bytes) -> bytes:
    """As some programs name the main part."""
    return made.zipped(
        {name.replace("document.", "document2."): file for name, file in made.unzipped(content).items()}
    )


@pytest.mark.parametrize(
    ("content", "name", "said", "found"),
    [
        (made.pdf(), "notes.txt", "text/plain", "application/pdf"),
        (made.word(), "notes.pdf", "application/pdf", DOCX),
        (renumbered(made.word()), "a", None, DOCX),
        (made.HTML, "paper.pdf", "application/pdf", "text/html"),
        (made.HTML, "https://example.org/page?x=a.md", None, "text/html"),
        (b"hello", "https://example.org/a.md?x=1", "text/plain; charset=latin-1", "text/markdown; charset=latin-1"),
        (b"hello", "a", "text/html", "text/html"),
        (b'{"a": 1}', "a", "application/problem+json", "application/json"),
        (b"<div>centred</div>\n# Hi", "README.md", None, "text/markdown"),
        (b"From: a\nTo: b\nSubject: c\n\nhello", "a", None, "message/rfc822"),
        ("Grüße".encode("utf-16"), "a.txt", None, "text/plain"),
        ("Tides and moons".encode("utf-16-le"), "a.txt", None, "text/plain"),
    ],
)  # fmt: skip
def test_format_is_detected_by_bytes_then_server_then_name(
    content: bytes, name: str, said: str | None, found: str
) -> None:
    assert detect(content, said, name) == found


def without(content: bytes, part: str) -> bytes:
    return made.zipped({name: file for name, file in made.unzipped(content).items() if name != part})


def with_part(content: bytes, part: str, file: bytes) -> bytes:
    return made.zipped(made.unzipped(content) | {part: file})


def open_document(content: bytes, more: dict[str, bytes] | None = None) -> bytes:
    return made.zipped(
        {"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": content, **(more or {})}
    )


def epub(pages: dict[str, bytes], *, contents: bytes = b"", head: bytes = b"", encrypted: str = "") -> bytes:
    """A book as of EPUB 2, with a DTD in its pages and its table of contents."""
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in pages)
    spine = "".join(f'<itemref idref="{name}"/>' for name in pages)
    files = {
        "META-INF/container.xml": b'<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        "OPS/book.opf": head
        + f'<package><metadata/><manifest>{items}<item id="n" href="toc.ncx" '
        f'media-type="application/x-dtbncx+xml"/></manifest><spine>{spine}</spine></package>'.encode(),
        "OPS/toc.ncx": b'<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "x"><ncx><navMap>'
        + contents
        + b"</navMap></ncx>",
        **{f"OPS/{name}": b"<!DOCTYPE html>" + page for name, page in pages.items()},
    }
    if encrypted:
        files["META-INF/encryption.xml"] = f'<e><CipherReference URI="{encrypted}"/></e>'.encode()
    return made.zipped({"mimetype": b"application/epub+zip", **files})


def test_chapter_without_headings_gets_its_name_in_the_contents_and_nothing_outside_is_read() -> None:
    point = b'<navPoint><navLabel><text>%s</text></navLabel><content src="%s"/></navPoint>'
    pages = {
        "a.xhtml": b"<p>Tides</p><p>They turn.</p>",
        "b c.xhtml": b"<p>Ask.</p>",
        "../../etc/passwd.html": b"<p>x</p>",
    }
    contents = point % (b"Tides", b"a.xhtml") + point % (b"Sailors", b"b%20c.xhtml#top")
    assert [(block.kind, block.text) for block in as_read(epub(pages, contents=contents), "a.epub").blocks] == [
        ("heading", "Tides"), ("paragraph", "They turn."), ("heading", "Sailors"), ("paragraph", "Ask."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "invented"),
    [
        *((title, True) for title in (
            "untitled", "Untitled-1", "Untitled (2)", "Unbenannt 1", "Microsoft Word - x.docx", "Microsoft PowerPoint - Q3 plan", "Document1",
            "Word Document", "PowerPoint Presentation", "PowerPoint-Präsentation", "Présentation PowerPoint", "Slide 1", "Book1", "New Page 1",
            "report final.docx", "C:\\x\\y.doc", "paper.dvi", "index.html", "(anonymous)", " - ", "Title",
        )),
        *((title, False) for title in (
            "Document management", "Book of tides", "Slide rules", "Working with Node.js", "ASP.NET", "Introduction to README.md", "1984",
            "Excel for beginners", "Title IX", "C++", "日本語",
        )),
    ],
)  # fmt: skip
def test_invented_title_is_left_out(title: str, invented: bool) -> None:
    assert as_read(json.dumps({"title": title}).encode(), "a.json").title == (None if invented else title)


@pytest.mark.parametrize(
    ("date", "found"),
    [
        ("Tue, 1 Jul 2003 10:52:37 +0200", "2003-07-01T08:52:37Z"),
        ("2024:05:01 10:00:00", "2024-05-01T10:00:00"),
        ("2024-05-01 10:00", "2024-05-01T10:00"),
        ("May 1, 2024", "2024-05-01"),
        ("1 May 2024", "2024-05-01"),
        ("20240501", "2024-05-01"),
        ("2024", "2024"),
        ("5/1/2024", "5/1/2024"),
        ("last week", "last week"),
    ],
)
def test_date_in_metadata_is_iso(date: str, found: str) -> None:
    page = f'<meta name="date" content="{date}"><p>Tides</p>'
    assert as_read(page.encode(), "a.html").metadata["date"] == found


def test_attachment_costs_at_most_itself() -> None:
    mail = EmailMessage()
    mail.set_content("They turn.")
    mail.add_attachment(b"innermost", maintype="text", subtype="plain", filename="a.txt")
    for depth in range(5):
        outer = EmailMessage()
        outer.set_content(f"Around {depth}.")
        outer.add_attachment(mail, filename=f"{depth}.eml")
        mail = outer
    for number in range(120):
        mail.add_attachment(
            f"Attached {number}.".encode(), maintype="text", subtype="plain", filename="b.txt"
        )
    parsed = as_read(mail.as_bytes(), "a.eml")
    text = "\n".join(block.text for block in parsed.blocks)
    assert "Around 4." in text
    assert "Around 1." in text
    assert "innermost" not in text
    assert "Attached 90." in text
    assert "Attached 119." not in text
    assert "more than 100 attachments" in parsed.metadata["attachments"][-1]["not_read"]


def with_footnotes(notes: bytes) -> bytes:
    files = made.unzipped(made.word())
    files["word/footnotes.xml"] = notes
    relation = (
        b'<Relationship Id="rId99" Target="footnotes.xml" '
        b'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"/>'
    )
    relations = files["word/_rels/document.xml.rels"]
    files["word/_rels/document.xml.rels"] = relations.replace(
        b"</Relationships>", relation + b"</Relationships>"
    )
    return made.zipped(files)


def bomb(megabytes: int) -> bytes:
    target = io.BytesIO()
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("word/document.xml", "w") as part,
    ):
        part.write(b"<w:document>")
        for _ in range(megabytes):
            part.write(bytes([32]) * 1_000_000)
    return target.getvalue()


LAUGHS = b'<!DOCTYPE lolz [<!ENTITY lol "lol">%s]><lolz>&lol9;</lolz>' % b"".join(
    b'<!ENTITY lol%d "%s">' % (level, b"&lol%s;" % (b"" if level == 1 else b"%d" % (level - 1)) * 10)
    for level in range(1, 10)
)
XXE = b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>'


@pytest.mark.parametrize(
    ("content", "name", "type", "words"),
    [
        (b"", "a.txt", "empty", "no content"),
        (b" \n\t ", "a.txt", "empty", "no content"),
        (b"\x1f\x8b\x08\0", "a.gz", "unsupported", "gzip"),
        (b"{\\rtf1" + b"{" * 20_000, "a.rtf", "unreadable", "nested too deeply"),
        (b"\x7fELF\x02\x01", "a", "unsupported", "a program"),
        (bytes(range(256)) * 20, "a", "unsupported", "neither text"),
        (bytes(range(256)) * 20, "a.pdf", "unreadable", "says a PDF"),
        (b"just text", "a.docx", "unreadable", "says a DOCX"),
        (made.zipped({"x.txt": b"x"}), "a.zip", "unsupported", "unpack it first"),
        (made.zipped({"mimetype": b"application/epub+zip"}), "a.epub", "unreadable", "no META-INF/container.xml"),
        (epub({"a.xhtml": b"<p>x"}, encrypted="OPS/a.xhtml"), "a.epub", "encrypted", "copy protection"),
        (epub({"a.xhtml": b"<p>x"}, head=XXE), "a.epub", "unreadable", "declares a DTD"),
        (open_document(b"x"), "a.odt", "unreadable", "not XML"),
        (open_document(XXE), "a.odt", "unreadable", "declares a DTD"),
        (open_document(b"<a>" * 300), "a.odt", "unreadable", "broken XML"),
        (open_document(b"<a/>"), "a.odt", "unreadable", "no body"),
        (open_document(b"\1", {"META-INF/manifest.xml": b"<m:manifest><m:encryption-data/></m:manifest>"}), "a.odt", "encrypted", "password"),
        (made.word()[:2000], "a.docx", "unreadable", "truncated"),
        (without(made.word(), "[Content_Types].xml"), "a.docx", "unreadable", "broken DOCX"),
        (with_part(made.word(), "word/document.xml", b"<w:docu"), "a.docx", "unreadable", "broken DOCX"),
        (with_footnotes(b"<w:footnotes"), "a.docx", "unreadable", "footnotes.xml in it is broken XML"),
        (with_part(made.slides(), "ppt/presentation.xml", b"<"), "a.pptx", "unreadable", "broken PPTX"),
        (with_part(made.xlsx(), "xl/workbook.xml", b"<"), "a.xlsx", "unreadable", "broken workbook"),
        (with_part(made.word(), "word/document.xml", LAUGHS), "a.docx", "unreadable", "DTD"),
        (with_part(made.slides(), "ppt/presentation.xml", LAUGHS), "a.pptx", "unreadable", "DTD"),
        (with_part(made.xlsx(), "xl/sharedStrings.xml", LAUGHS), "a.xlsx", "unreadable", "DTD"),
        (with_part(made.word(), "word/document.xml", XXE), "a.docx", "unreadable", "DTD"),
        (with_part(made.word(), "word/document.xml", XXE.decode().encode("utf-16")), "a.docx", "unreadable", "DTD"),
        (with_part(made.word(), "word/document.xml", XXE.decode().encode("utf-32")), "a.docx", "unreadable", "not XML in"),
        (with_part(made.word(), "word/document.xml", XXE.decode().encode("cp037")), "a.docx", "unreadable", "not XML in"),
        (with_part(made.word(), "word/document.xml", b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE r>'), "a.docx",
         "unreadable", "XML in UTF-7"),
        (with_part(made.slides(), "docProps/core.xml", XXE), "a.pptx", "unreadable", "DTD"),
        (with_part(made.xlsx(), "xl/worksheets/sheet1.xml", XXE), "a.xlsx", "unreadable", "DTD"),
        (with_part(made.word(), "word/hidden.bin", XXE), "a.docx", "unreadable", "DTD"),
        (with_part(made.word(), "word/styles.xml", b"<!--" + b"-" * 5000 + b"-->" + XXE), "a.docx", "unreadable", "is not XML"),
        (bomb(60), "a.docx", "too_large", "zip bomb"),
        (made.zipped({"word/document.xml": b"", **{f"{number}": b"" for number in range(10_001)}}), "a.docx", "too_large", "files"),
        (b"%PDF-1.4\n" + bytes(1000), "a.pdf", "unreadable", "broken PDF"),
        (made.pdf_of([b"<< /Type /Catalog /Pages 2 0 R /NeedsRendering true /AcroForm << /Fields [] /XFA (x) >> >>",
                      b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>", b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>", b"<< >>"]),
         "a.pdf", "unsupported", "XFA form"),
        (made.pdf([[]]), "a.pdf", "empty", "OCR"),
        (made.pdf_of([b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 2147483647 /Kids [2 0 R 2 0 R] >>"]), "a.pdf",
         "unreadable", "PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "a.docx", "encrypted", "password"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), "a.doc", "unsupported", "before 2007"),
        (made.xls()[:2000], "a.xls", "unreadable", "broken workbook"),
        (b'{"a": ', "a.json", "unreadable", "broken JSON"),
        (b'{"a": 1}\n{"a": ', "a.jsonl", "unreadable", "line 2"),
        (b"[" * 100_000, "a.json", "unreadable", "deeply"),
        (made.png()[:20], "a.png", "unreadable", "broken image"),
        (b"x" * (MAX_CHARS + 1), "a.txt", "too_large", "characters"),
        (b"<table><tr>" + b"<td rowspan=0 colspan=20>abc</td>" * 9 + b"<tr><td>x" * 60_000, "a.html", "too_large", "characters"),
    ],
)  # fmt: skip
def test_unreadable_file_is_refused_with_its_reason(content: bytes, name: str, type: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as refused:
        as_read(content, name)
    assert refused.value.type == type


def test_password_protected_pdf_is_refused() -> None:
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >> /ID [<00><00>] " % (
        b"41" * 32,
        b"42" * 32,
    )
    locked = made.pdf_of(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 0 /Kids [] >>", b"<< >>"], lock
    )
    with pytest.raises(Unreadable, match="password") as refused:
        as_read(locked, "a.pdf")
    assert refused.value.type == "encrypted"


@pytest.mark.parametrize(
    ("content", "said", "text"),
    [
        ("Grüße".encode(), None, "Grüße"),
        ("\ufeffGrüße".encode(), None, "Grüße"),
        ("Grüße".encode("utf-16"), None, "Grüße"),
        ("Grüße an alle".encode("utf-16-be"), None, "Grüße an alle"),
        ("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1", "Grüße"),
        ("“Grüße”".encode("cp1252"), "text/plain; charset=ascii", "“Grüße”"),
        ("Grüße".encode(), "text/plain; charset=iso-8859-1", "Grüße"),  # a wrong word, and a frequent one
        ("こんにちは".encode("iso2022_jp"), "text/plain; charset=iso-2022-jp", "こんにちは"),
        ("Привет, как дела? Всё хорошо, спасибо.".encode("cp1251"), None, "Привет, как дела? Всё хорошо, спасибо."),
        ("Grüße".encode()[:-2] + b"\xc3", None, "Grü\ufffd\ufffd"),
        (b"+ADw-script", "text/plain; charset=utf-7", "+ADw-script"),
        (b"hello", "text/plain; charset=rot13", "hello"),
        (b"hello", "text/plain; charset=no-such", "hello"),
        (b"a\0b", None, "a\ufffdb"),
    ],
)  # fmt: skip
def test_encoding_is_detected(content: bytes, said: str | None, text: str) -> None:
    assert as_read(content, "a.txt", said).blocks[0].text == text


def test_charset_of_a_page_is_used() -> None:
    page = '<html><head><meta charset="windows-1251"></head><body><p>Привет</p></body></html>'.encode(
        "cp1251"
    )
    assert as_read(page, "a.html").blocks == (Block("paragraph", "Привет"),)


@pytest.mark.parametrize("content", [XXE, LAUGHS, b"<svg>" + XXE + b"</svg>"])
def test_entities_of_a_dtd_are_never_expanded(content: bytes) -> None:
    """lexbor knows no DTD; a page with one is read as if it had none."""
    text = " ".join(block.text for block in as_read(content, "a.svg").blocks)
    assert "root:" not in text
    assert len(text) < 200


def test_text_invalid_for_msgpack_or_postgres_is_repaired() -> None:
    parsed = as_read(json.dumps({"title": "a\0b", "text": "\ud800 and 😀"}).encode(), "a.json")
    assert parsed.title == "a\ufffdb"
    assert parsed.blocks == (Block("paragraph", "title: a\ufffdb\ntext: \ufffd and 😀"),)


def test_repeated_page_headers_and_footers_are_removed() -> None:
    pages = [
        [(10, 780, "The Book of Tides"), (10, 700, f"Page of the {word} kind."), (10, 40, f"{number}")]
        for number, word in enumerate(("first", "second", "third", "fourth"), 1)
    ]
    assert [block.text for block in as_read(made.pdf(pages)).blocks] == [
        f"Page of the {word} kind." for word in ("first", "second", "third", "fourth")
    ]


def test_only_point_of_a_slide_is_not_a_footer() -> None:
    slides = [[(30, 700, f"Tide {number}"), (20, 500, f"Fact {number}: it turns.")] for number in range(1, 5)]
    footed = [[*lines, (20, 40, f"Page {number} of 4")] for number, lines in enumerate(slides, 1)]
    for pages in (slides, footed):
        text = " ".join(block.text for block in as_read(made.pdf(pages)).blocks)
        assert [f"Fact {number}: it turns." in text for number in range(1, 5)] == [True] * 4
        assert "Page" not in text


@pytest.mark.parametrize("variant", ["-template", "-web", "-master", "-master-template"])
def test_variants_of_open_documents_are_read(variant: str) -> None:
    kind = "application/vnd.oasis.opendocument.text"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("mimetype", kind + variant)
    assert detect(packed.getvalue(), None, "a.odt") == kind


def test_forwarded_mail_without_a_name_is_named_by_its_subject() -> None:
    outer, inner = EmailMessage(), EmailMessage()
    outer["Subject"], inner["Subject"] = "Fwd", "Re: offer.pdf"
    outer.set_content("See below.")
    inner.set_content("It costs nine.")
    outer.add_attachment(inner)
    parsed = as_read(b"From: a\nTo: b\n" + bytes(outer), "a.eml")
    assert "Attachment: Re: offer.pdf" in [block.text for block in parsed.blocks]
    assert [each["name"] for each in parsed.metadata["attachments"]] == ["Re: offer.pdf"]


def test_pages_of_an_rfc_are_joined() -> None:
    text = b"The moon pulls\n\n\nPostel                     [Page 1]\n\x0c\nRFC 1234         Tides      May 2026\n\nthe sea.\n"
    assert [block.text for block in as_read(text, "rfc.txt").blocks] == ["The moon pulls", "the sea."]


def test_page_that_is_one_form_keeps_its_content() -> None:
    page = b"<html><body><form><h1>Tides</h1><p>They turn.</p><input value=x></form><form>Search</form></body></html>"
    assert [block.text for block in as_read(page).blocks] == ["Tides", "They turn."]


def test_tracked_deletions_are_removed_and_content_controls_are_read() -> None:
    files = made.unzipped(made.word())
    body = files["word/document.xml"].replace(
        b"<w:body>",
        b"<w:body><w:sdt><w:sdtContent><w:p><w:r><w:t>kept</w:t></w:r><w:ins><w:r><w:t> in</w:t></w:r></w:ins>"
        b"<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p></w:sdtContent></w:sdt>",
    )
    assert as_read(with_part(made.word(), "word/document.xml", body)).blocks[0].text == "kept in"


def test_heading_level_comes_from_the_paragraph_or_the_nearest_style_that_has_one() -> None:
    content = (Path(__file__).parents[2] / "contract/documents/files/heading_styles.docx").read_bytes()
    levels = {block.text: block.level for block in as_read(content).blocks if block.kind == "heading"}
    assert levels == {"Handbook": 1, "First part": 1, "Safety": 2, "Clause text": 3, "Direct": 4}
