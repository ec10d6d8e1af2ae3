"""The application that `agno-workers demo` runs: four agents, a knowledge base, documents, and a check of the rows.

It uses the Python API as any application does; the terminal output is in `cli/demo.py`.
"""
