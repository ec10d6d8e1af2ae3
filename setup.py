"""The package list, the one thing pyproject.toml cannot say.

`tasks/` at the top of the project is imported as `agno_workers.tasks`. `find` would see it only through the symlink
`agno_workers/tasks`, which an sdist does not carry; so it is left out of the search and named here.
"""

from setuptools import find_packages, setup

found = find_packages(include=["agno_workers.*"], exclude=["agno_workers.tasks*"])
setup(
    packages=["agno_workers", "agno_workers.tasks", *found],
    package_dir={"agno_workers.tasks": "tasks"},
)
