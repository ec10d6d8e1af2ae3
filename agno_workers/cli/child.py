"""Keeps one worker process as `local/supervisor.py` keeps a server: it ends with us, even if we are killed.

The order stands on a command line, which every user of the machine can read; so the environment, with its keys and
passwords, is not part of it but inherited. Runs as `python -I -S child.py ORDER`, on the standard library alone.
"""

from __future__ import annotations

import json
import os
import runpy
import sys

KEEPER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "local", "supervisor.py")  # noqa: PTH118, PTH120 - pathlib is slow to import

if __name__ == "__main__":
    order = {**json.loads(sys.argv[1]), "environment": dict(os.environ)}
    sys.argv = [KEEPER, json.dumps(order)]
    runpy.run_path(KEEPER, run_name="__main__")
