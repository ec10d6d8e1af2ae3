"""The same model calls with nothing around them: `python -m benchmarks.peers.raw_calls URL CALLS SECONDS`, prints JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import aiohttp

from benchmarks.processes import cpu_s, peak_rss_bytes


def body(seconds: str) -> dict[str, Any]:
    """Return the request, which asks the fake provider to take this long."""
    system = {"role": "system", "content": "Be concise, reply with one sentence."}
    user = {"role": "user", "content": f"How are you?\ndelay={seconds}"}
    return {"model": "fake-1", "stream": True, "messages": [system, user]}


async def call_all(url: str, calls: int, asked: dict[str, Any]) -> float:
    """Send so many requests at once and read each answer in pieces. Return the seconds until the last was read."""
    headers = {"Authorization": "Bearer sk-fake"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=aiohttp.ClientTimeout(60)
    ) as session:
        began = time.perf_counter()
        await asyncio.gather(*(call(session, url, asked) for _ in range(calls)))
        return time.perf_counter() - began


async def call(session: aiohttp.ClientSession, url: str, asked: dict[str, Any]) -> str:
    """One answer's text."""
    text = []
    async with session.post(f"{url}/chat/completions", json=asked) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                text += [choice["delta"].get("content") or "" for choice in choices]
    return "".join(text)


if __name__ == "__main__":
    before = cpu_s(os.getpid())
    wall_s = asyncio.run(call_all(sys.argv[1], int(sys.argv[2]), body(sys.argv[3])))
    used = {
        "wall_s": wall_s,
        "cpu_s": cpu_s(os.getpid()) - before,
        "peak_rss_bytes": peak_rss_bytes(os.getpid()),
        "in_flight": int(sys.argv[2]),
    }
    print(json.dumps(used))
