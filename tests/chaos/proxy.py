"""A proxy to a server that can be slow, cut or silent, or deliver requests and lose answers.

It forwards bytes and knows no protocol, so it serves Postgres and Redis alike. TCP towards the client, because only TCP
knows a reset; the server may be at a unix socket.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
_CHUNK = 64 * 1024
_RESET = struct.pack(
    "ii", 1, 0
)  # SO_LINGER of 0 s: what is on its way is thrown away, and the peer is told so
_CALL_TIMEOUT_S = 10.0


class Mode(StrEnum):
    PASS = "pass"
    SLOW = "slow"
    """Each piece of data waits for `delay_s`, in both directions."""
    RESET = "reset"
    """All connections and new ones are reset."""
    SILENT = "silent"
    """Connections are accepted and nothing is forwarded; held data is delivered afterwards, as in a network."""
    LOSE_ANSWERS = "lose answers"
    """Requests arrive. The proxy drops a `share` of the answers, and resets their connections."""


class Proxy:
    """One proxy. Any thread may change its mode with `set`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: str | tuple[str, int]) -> None:
        self.target = target
        self.mode = Mode.PASS
        self.swallowed = 0
        self.resets = 0
        self._loop = loop
        self._delay_s = 0.0
        self._share = 1.0
        self._dice = random.Random(0)
        self._speaks = asyncio.Event()
        self._wires: set[_Wire] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def set(self, mode: Mode, *, delay_s: float = 0.0, share: float = 1.0, seed: int = 0) -> None:
        """Set the mode, also for existing connections."""
        _call(self._loop, self._set, mode, delay_s, share, seed)

    async def open(self) -> None:
        self._speaks.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset_all()

    def _set(self, mode: Mode, delay_s: float, share: float, seed: int) -> None:
        self.mode, self._delay_s, self._share = mode, delay_s, share
        self._dice = random.Random(seed)
        if mode is Mode.SILENT:
            self._speaks.clear()
        else:
            self._speaks.set()
        if mode is Mode.RESET:
            self._reset_all()

    def _reset_all(self) -> None:
        for wire in list(self._wires):
            self.resets += 1
            wire.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = _Wire(self, reader, writer)
        self._wires.add(wire)
        try:
            await self.turn()
            if self.mode is Mode.RESET:
                self.resets += 1
            else:
                await wire.carry()
        except OSError:
            pass  # one of the two has gone; so goes the other
        except asyncio.CancelledError:
            pass  # the network closes; asyncio's own callback would report it as an error
        finally:
            wire.reset()
            self._wires.discard(wire)

    async def turn(self) -> None:
        """Wait until a piece of data may be forwarded."""
        await self._speaks.wait()
        if self.mode is Mode.SLOW:
            await asyncio.sleep(self._delay_s)
            await self._speaks.wait()

    def loses_an_answer(self) -> bool:
        lost = self.mode is Mode.LOSE_ANSWERS and self._dice.random() < self._share
        self.swallowed += lost
        return lost


class _Wire:
    """A client's connection, and its connection to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._open = [writer]

    async def carry(self) -> None:
        server = await _connect(self._proxy.target)
        self._open.append(server[1])
        asking = asyncio.create_task(self._requests(server[1]))
        try:
            await self._answers(server[0])
        finally:
            asking.cancel()

    async def _requests(self, server: asyncio.StreamWriter) -> None:
        reader, _ = self._client
        try:
            while data := await reader.read(_CHUNK):
                await self._proxy.turn()
                server.write(data)
                await server.drain()
            await self._proxy.turn()
            server.write_eof()
        except OSError:
            self.reset()

    async def _answers(self, server: asyncio.StreamReader) -> None:
        _, writer = self._client
        while data := await server.read(_CHUNK):
            await self._proxy.turn()
            if self._proxy.loses_an_answer():
                return
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def reset(self) -> None:
        for writer in self._open:
            sock = writer.get_extra_info("socket")
            if not writer.is_closing() and sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Network:
    """Proxies on a thread of their own; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-network", daemon=True)
        self._proxies: list[Proxy] = []

    def proxy(self, target: str | tuple[str, int]) -> Proxy:
        """Start a proxy to a unix socket or a (host, port)."""
        proxy = Proxy(self._loop, target)
        self._run(proxy.open())
        self._proxies.append(proxy)
        return proxy

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for proxy in self._proxies:
            proxy.set(Mode.PASS)
            self._run(proxy.close())
        self._run(_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_CALL_TIMEOUT_S)
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=_CALL_TIMEOUT_S)


async def _connect(target: str | tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, str):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*target)


async def _rest() -> None:
    """Wait until reset connections are closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., T], *args: Any) -> T:
    """Call a function on the loop's thread, and wait for it."""

    async def call() -> T:
        return function(*args)

    return asyncio.run_coroutine_threadsafe(call(), loop).result(timeout=_CALL_TIMEOUT_S)
