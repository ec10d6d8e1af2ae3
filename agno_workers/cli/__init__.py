"""`agno-workers` on the command line. Each command is a file; `main.py` finds it."""
