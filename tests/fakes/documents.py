"""Small real documents of every format that readers know, made with the formats' own libraries or byte by byte."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from pathlib import Path

import docx
import pptx
import xlsxwriter  # type: ignore[import-untyped] # ships no types
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pptx.util import Inches

FILES = Path(__file__).parents[1] / "contract" / "documents" / "files"
MARKDOWN = b"""---
title: "Tides"
lang: en
---
# Tides

The *moon* pulls the [sea](https://example.org/sea).

- spring
  - neap
- ebb

| place | metres |
|---|---|
| Fundy | 16 |

```py
print(16)
```
"""

HTML = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tides &amp; moons</title>
<meta name="description" content="Why the sea moves"><style>p { color: red }</style></head>
<body><nav><a href="/">Home</a></nav><header>Site</header>
<main><h1>Tides<a class="headerlink" href="#t">¶</a></h1><p>The <b>moon</b> pulls
the <a href="/sea">sea</a>.</p><p hidden>secret</p><script>alert(1)</script>
<ul><li>spring<ol><li>first</li></ol></li><li>neap</li></ul>
<pre>high = 16
low = 1</pre><table><tr><th>place</th><th>metres</th></tr><tr><td>Fundy</td><td>16</td></tr></table>
<h2>Currents</h2><p>They turn, and the water of the whole bay turns with them twice a day, in and out again, as the
sailors who live there will tell you if you ask them how the boats come home.</p></main>
<footer>© nobody</footer></body></html>""".encode()

TEXT = b"""1.  Introduction

   The moon pulls
   the sea.

2.1 Currents

They turn.

* in
* out
"""

CSV = b'place;metres\nFundy;16\n"Saint; Malo";12\n'
TSV = b"place\tmetres\nFundy\t16\n"
JSON = b'[{"place": "Fundy", "tide": {"metres": 16}, "kinds": ["spring", "neap"]}, {"place": "Malo", "tide": null}]'
JSONL = b'{"place": "Fundy"}\n{"place": "Malo"}\n'


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Tides"
    document.core_properties.author = "Ana"
    document.add_heading("Tides", 1)
    document.add_paragraph("The moon pulls the sea.")
    document.add_paragraph("spring", style="List Bullet")
    document.add_paragraph("neap", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ("place", "metres", "Fundy", "16"), strict=True):
        cell.text = text
    document.add_heading("Currents", 2)
    document.add_paragraph("They turn.")
    return _saved(document.save)


def slides() -> bytes:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Tides"
    slide.placeholders[1].text = "spring\nneap"
    slide.notes_slide.notes_text_frame.text = "Ask the sailors."
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for cell, text in zip(table.iter_cells(), ("place", "metres", "Fundy", "16"), strict=True):
        cell.text = text
    return _saved(presentation.save)


def xlsx() -> bytes:
    target = io.BytesIO()
    with xlsxwriter.Workbook(target, {"in_memory": True}) as workbook:
        sheet = workbook.add_worksheet("Tides")
        for row, cells in enumerate((("place", "metres"), ("Fundy", 16), ("Malo", 12.5))):
            sheet.write_row(row, 0, cells)
        workbook.add_worksheet("Empty")
        hidden = workbook.add_worksheet("Hidden")
        hidden.write(0, 0, "secret")
        hidden.hide()
    return target.getvalue()


def ods() -> bytes:
    names = 'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'

    def cell(text: str) -> str:
        return f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>'

    rows = "".join(
        f"<table:table-row>{cell(a)}{cell(b)}</table:table-row>"
        for a, b in (("place", "metres"), ("Fundy", "16"))
    )
    content = (
        f'<?xml version="1.0"?><office:document-content {names}><office:body><office:spreadsheet>'
        f'<table:table table:name="Tides">{rows}</table:table></office:spreadsheet></office:body></office:document-content>'
    )
    return zipped({
        "mimetype": b"application/vnd.oasis.opendocument.spreadsheet",
        "content.xml": content.encode(),
        "META-INF/manifest.xml": b'<?xml version="1.0"?><manifest xmlns="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>',
    })  # fmt: skip


def xls() -> bytes:
    """Excel 97: records in a stream of a compound file of one FAT sector, one of folders, and eight of the stream."""

    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("<HH", kind, len(content)) + content

    def label(row: int, column: int, text: str) -> bytes:
        return record(0x0204, struct.pack("<HHHHB", row, column, 0, len(text), 0) + text.encode("latin-1"))

    begin = struct.pack("<HHHHII", 0x0600, 0x0005, 0, 0, 0, 0)
    sheet = record(0x0809, begin[:2] + struct.pack("<H", 0x0010) + begin[4:])
    sheet += record(0x0200, struct.pack("<IIHHH", 0, 2, 0, 2, 0))
    sheet += label(0, 0, "place") + label(0, 1, "metres") + label(1, 0, "Fundy")
    sheet += record(0x0203, struct.pack("<HHHd", 1, 1, 0, 16.0)) + record(0x000A, b"")
    head = record(0x0809, begin)
    bound = 4 + 8 + len("Tides")
    at = len(head) + bound + 4
    head += record(0x0085, struct.pack("<IBBBB", at, 0, 0, len("Tides"), 0) + b"Tides") + record(0x000A, b"")
    stream = (head + sheet).ljust(4096, b"\0")

    def folder(name: str, kind: int, child: int, start: int, size: int) -> bytes:
        words = name.encode("utf-16-le")
        return (
            words.ljust(64, b"\0")
            + struct.pack("<HBBIII", len(words) + 2 if name else 0, kind, 1, 2**32 - 1, 2**32 - 1, child)
            + bytes(36)
            + struct.pack("<IQ", start, size)
        )

    nothing = 2**32 - 1
    folders = folder("Root Entry", 5, 1, 2**32 - 2, 0) + folder("Workbook", 2, nothing, 2, 4096)
    folders += 2 * folder("", 0, nothing, 0, 0)
    fat = struct.pack("<128I", 2**32 - 3, 2**32 - 2, *range(3, 10), 2**32 - 2, *[nothing] * 118)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack(
        "<HHHHH6sIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, bytes(6), 0, 1, 1, 0, 4096, 2**32 - 2, 0, 2**32 - 2, 0
    )
    header += struct.pack("<109I", 0, *[nothing] * 108)
    return header + fat + folders + stream


def pdf(
    pages: Sequence[Sequence[tuple[float, float, str]]] = (), info: str = "/Title (Tides) /Author (Ana)"
) -> bytes:
    """Pages of lines: size of the type in points, distance from the foot, text."""
    pages = pages or (
        (
            (20, 700, "Tides"), (10, 670, "The moon pulls the sea, and it fol-"), (10, 658, "lows her around the world, as it"),
            (10, 646, "always did."), (10, 610, "They turn twice a day."),
        ),
        ((16, 700, "Currents"), (10, 670, "Ask the sailors about them, who know when the boats come home.")),
    )  # fmt: skip
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        drawn = "".join(
            f"BT /F1 {size} Tf 72 {foot} Td ({_escaped(text)}) Tj ET\n" for size, foot, text in lines
        ).encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
            % len(objects)
        )
        kids.append(len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(kids), b" ".join(b"%d 0 R" % kid for kid in kids),
    )  # fmt: skip
    objects.append(b"<< %s >>" % info.encode())
    return pdf_of(objects)


def pdf_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects: the first is the catalog, the last the info."""
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return content + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R /Info %d 0 R %s>>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, table, len(objects) + 1, len(objects), trailer, len(content),
    )  # fmt: skip


def mail() -> bytes:
    message = EmailMessage()
    message["From"] = "Ana <ana@example.org>"
    message["To"] = "bo@example.org"
    message["Subject"] = "Tides tomorrow"
    message["Date"] = "Wed, 01 Jul 2026 10:00:00 +0000"
    message.set_content("The moon pulls the sea.\n\nThey turn at six.\n")
    message.add_alternative("<p>The moon pulls the sea.</p>", subtype="html")
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="table.pdf")
    return bytes(message)


def png() -> bytes:
    text = PngInfo()
    text.add_text("Title", "The bay")
    text.add_text("Description", "Boats at low tide")
    return _image("PNG", pnginfo=text)


def picture(shows: str) -> bytes:
    """A PNG in which stands what the fake provider is to see in it, where no reader looks."""
    text = PngInfo()
    text.add_text("Shows", shows)
    text.add_text("Title", "The coast")
    return _image("PNG", pnginfo=text)


def jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "Boats at low tide"
    exif[0x013B] = "Ana"
    return _image("JPEG", exif=exif)


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def every_format() -> dict[str, bytes]:
    """One document a format, by a file name of it."""
    return {
        "a.md": MARKDOWN, "a.html": HTML, "a.txt": TEXT, "a.csv": CSV, "a.tsv": TSV, "a.json": JSON, "a.jsonl": JSONL,
        "a.docx": word(), "a.pptx": slides(), "a.xlsx": xlsx(), "a.ods": ods(), "a.xls": xls(), "a.pdf": pdf(), "a.eml": mail(),
        "a.mbox": (FILES / "two.mbox").read_bytes(), "a.png": png(), "a.jpg": jpeg(), "a.gif": _image("GIF"), "a.webp": _image("WEBP"), "a.tiff": _image("TIFF"),
        "a.bmp": _image("BMP"),
        **{f"a{path.suffix}": path.read_bytes() for path in sorted(FILES.glob("tides.*")) + sorted(FILES.glob("*.odp"))},
    }  # fmt: skip


def _image(kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (32, 16), "blue").save(target, kind, **options)
    return target.getvalue()


def _saved(save: Callable[[io.BytesIO], None]) -> bytes:
    target = io.BytesIO()
    save(target)
    return target.getvalue()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
