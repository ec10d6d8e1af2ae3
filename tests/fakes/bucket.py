"""S3 on localhost, for reading: ListObjectsV2 with its pages, HEAD and GET of an object, in S3's own XML. Google's XML API is
the same; of Azure's, only a list of one page is served.

with bucket({"docs/a.md": b"hello"}) as here:
    here.environment     the variables that direct S3's clients here
    here.requests        the method and path of each request
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from xml.sax.saxutils import escape

from aiohttp import web

NAME = "library"
KEY_ID = "AKIAFAKEFAKEFAKEFAKE"
SECRET = "fake+secret/fake+secret/fake+secret/fake"


@dataclass
class Bucket:
    objects: dict[str, bytes]
    page_size: int = 2
    """The keys on one page of a list."""
    types: dict[str, str] = field(default_factory=dict)
    signed: bool = True
    """Refuse requests without S3's key."""
    fault: int | None = None
    """Answer everything with this status."""
    drip: threading.Event | None = None
    """Send the first byte of an object, and the rest when this is set."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-west-1",
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        if self.signed and f"Credential={KEY_ID}/" not in request.headers.get("Authorization", ""):
            return _error(403, "AccessDenied")
        if self.fault is not None:
            return _error(self.fault, "Fault")
        bucket, _, key = request.path.lstrip("/").partition("/")
        if bucket != NAME:
            return _error(404, "NoSuchBucket")
        if not key:
            return self._azure_list(request) if request.query.get("comp") == "list" else self._list(request)
        return await self._object(request, key)

    def _list(self, request: web.Request) -> web.Response:
        prefix, after = request.query.get("prefix", ""), request.query.get("continuation-token", "")
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page, rest = keys[: self.page_size], keys[self.page_size :]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>{escape(etag(self.objects[key]))}</ETag><Size>{len(self.objects[key])}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in page
        )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        return web.Response(
            content_type="application/xml",
            text='<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{NAME}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
            f"<MaxKeys>{self.page_size}</MaxKeys><IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{more}{contents}"
            "</ListBucketResult>",
        )

    def _azure_list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{formatdate(1767323045, usegmt=True)}</Last-Modified>"
            f"<Etag>{escape(etag(content))}</Etag><Content-Length>{len(content)}</Content-Length>"
            "<Content-Type>text/plain</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return web.Response(
            content_type="application/xml",
            text=f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{NAME}">'
            f"<Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>",
        )

    async def _object(self, request: web.Request, key: str) -> web.StreamResponse:
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        content = self.objects[key]
        headers = {
            "ETag": etag(content),
            "Last-Modified": formatdate(1767323045, usegmt=True),
            "Content-Type": self.types.get(key, "binary/octet-stream"),
        }
        if self.drip is None or request.method == "HEAD":
            return web.Response(body=content, headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:1])
        await asyncio.to_thread(self.drip.wait, 30)
        return response


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{code}</Message><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>"
    text += "<StringToSign>Signature</StringToSign></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


@contextmanager
def bucket(objects: Mapping[str, bytes]) -> Iterator[Bucket]:
    """Serve a bucket named `library` until the block ends."""
    here = Bucket(dict(objects))
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", here.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        place = web.TCPSite(runner, "127.0.0.1", 0)
        await place.start()
        here.port = runner.addresses[0][1]

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        if here.drip is not None:
            here.drip.set()
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
