"""The files of a new project, which `agno-workers init` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_HERE = Path(__file__).parent
_OURS = {
    "agents.py": "agents.py",
    "Dockerfile": "Dockerfile",
    ".dockerignore": "dockerignore",
    ".gitignore": "gitignore",
}
SHARED = (
    "Procfile",
    "docker-compose.yml",
    "config/alerts.yml",
    "config/compose.override.yml",
    "config/env.example",
    "config/flower.py",
    "config/k8s/kustomization.yaml",
    "config/k8s/metrics.yaml",
    "config/k8s/migrate.yaml",
    "config/k8s/process.yaml",
    "config/k8s/workers.yaml",
    "config/production.toml",
    "config/prometheus.yml",
)
"""Files that this project uses as they are. setup.py puts them into the wheel; a checkout has them at its top."""


def files(version: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each file in the new project, and its text. version: the one that its image installs."""
    shared = _HERE if (_HERE / SHARED[0]).exists() else _HERE.parents[2]
    for name, source in {**_OURS, **dict.fromkeys(SHARED)}.items():
        text = ((_HERE / source) if source else (shared / name)).read_text(encoding="utf-8")
        if name == "Dockerfile":
            text = text.replace("==VERSION", f"=={version}")
        elif name == "config/env.example":
            text = text.replace("AGNO_IMPORTS=\n", "AGNO_IMPORTS=agents\n")
        yield name, text
