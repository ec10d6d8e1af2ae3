"""The packages that this installation needs, and those of an extra: `pip install "agno-workers[knowledge]"`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def missing(extra: str = "") -> list[str]:
    """Return the packages of an extra, or those that are always needed, that are not installed here."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - only errors and `up` need it: 1 MB

    wanted = [Requirement(text) for text in requires("agno-workers") or ()]
    return [each.name for each in wanted if _belongs(each, extra) and not _is_installed(each.name)]


def problem(extra: str = "") -> str | None:
    """Return what is not installed, as the end of a sentence with the command that installs it, or None."""
    names = missing(extra)
    if not names:
        return None
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names)} {verb} not installed: {install(extra)}"


def install(extra: str = "") -> str:
    """Return the command that installs an extra."""
    return f'pip install "agno-workers{f"[{extra}]" if extra else ""}"'


def _belongs(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    is_always_needed = marker is None or marker.evaluate({"extra": ""})
    if not extra or marker is None or is_always_needed:
        return is_always_needed and not extra
    return marker.evaluate({"extra": extra})


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
