"""The CPU time and memory that a process and its children have used, from /proc."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(*roots: int) -> float:
    """CPU seconds of these processes and their children while they live, and of the children that they have waited for."""
    found = _stat_fields()
    parents = {pid: int(fields[1]) for pid, fields in found.items()}
    return sum(
        _own_cpu_s(pid) + sum(map(int, found[pid][13:15])) * _TICK_S
        for pid in found
        if any(_descends(pid, root, parents) for root in roots)
    )


def _own_cpu_s(pid: int) -> float:
    """Without the rounding to a tick of /proc: the clock that clock_getcpuclockid(3) names; 0 for a process that has ended."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def _stat_fields() -> dict[int, list[str]]:
    """Return the fields after the name in /proc/PID/stat, of each process."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if entry.name.isdigit():
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
    return found


def peak_rss_bytes(pid: int) -> int:
    """The most memory that a process has held since its start, or since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def tree_bytes(root: int) -> int:
    """The memory of a process and its children now; what they share counts once (PSS)."""
    parents = {pid: int(fields[1]) for pid, fields in _stat_fields().items()}
    return sum(_pss_bytes(pid) for pid in parents if _descends(pid, root, parents))


def _pss_bytes(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root
