"""What pyproject.toml cannot say: two lists of files that lie elsewhere than where they are installed.

`tasks/` at the top of the project is imported as `agno_workers.tasks`. `find` would see it only through the symlink
`agno_workers/tasks`, which an sdist does not carry; so it is left out of the search and named here.

Procfile, docker-compose.yml and some of `config/` are also what `agno-workers init` writes: a wheel has them beside that code.
"""

import ast
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PROJECT = Path("agno_workers/local/project")


class BuildWithProject(build_py):
    """Copies the files that `agno-workers init` writes; an editable install reads them where they are."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in _shared():
                target = Path(self.build_lib, PROJECT, name)
                self.mkpath(str(target.parent))
                self.copy_file(name, str(target))


def _shared():
    """Read SHARED without importing the package: its dependencies are not there when it is built."""
    for line in ast.parse((PROJECT / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "SHARED":
            return ast.literal_eval(line.value)
    raise SystemExit("setup.py: there is no SHARED in agno_workers/local/project/__init__.py")


found = find_packages(include=["agno_workers.*"], exclude=["agno_workers.tasks*"])
setup(
    packages=["agno_workers", "agno_workers.tasks", *found],
    package_dir={"agno_workers.tasks": "tasks"},
    cmdclass={"build_py": BuildWithProject},
)
