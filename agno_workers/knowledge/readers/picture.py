"""Images: size, EXIF and PNG text. Vision models describe the image itself; see describe.py."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
_MAX_CHARS = 2000
# Without locations and serial numbers.
_EXIF = {
    "ImageDescription": "description", "XPTitle": "title", "XPComment": "comment", "XPSubject": "subject",
    "XPKeywords": "keywords", "Artist": "author", "Copyright": "copyright", "DateTime": "date", "Make": "camera_make",
    "Model": "camera_model", "Software": "software",
}  # fmt: skip
_TEXT = {
    "title": "title", "description": "description", "comment": "comment", "author": "author", "copyright": "copyright",
    "keywords": "keywords", "software": "software", "creation time": "date",
}  # fmt: skip
_IN_WORDS = ("title", "description", "subject", "comment", "keywords", "author", "copyright", "date")

Image.MAX_IMAGE_PIXELS = None  # only headers are read, so a decompression bomb is harmless


def read(content: bytes, _media_type: str, name: str) -> Parsed:
    """Return one searchable paragraph with its name, format and embedded texts."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            written = dict(_written(image))
            kind, (width, height) = image.format or "?", image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Unreadable("unreadable", "It is a broken image: its header can't be read.") from error
    title = written.pop("title", None)
    words = [f"Image {PurePosixPath(name).name[:200]} ({kind}, {width} x {height} pixels)".replace("  ", " ")]
    words += [
        f"{key}: {value}" for key in _IN_WORDS if (value := title if key == "title" else written.get(key))
    ]
    return Parsed(
        (Block("paragraph", "\n".join(words)),),
        title,
        {**written, "format": kind.lower(), "width": width, "height": height},
    )


def _written(image: Image.Image) -> Iterator[tuple[str, Any]]:
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str) and (kept := _TEXT.get(key.lower())):
            yield kept, value[:_MAX_CHARS].strip("\0 ")
    for tag, value in image.getexif().items():
        kept = _EXIF.get(ExifTags.TAGS.get(tag, ""))
        if kept and (text := _text(value)):
            yield kept, text


def _text(value: object) -> str:
    """Decode a field; Windows writes UTF-16."""
    if isinstance(value, bytes):
        value = value[: _MAX_CHARS * 2].decode("utf-16-le", "ignore")
    return value[:_MAX_CHARS].strip("\0 ") if isinstance(value, str) else ""
