"""What `agno-workers demo` runs: four agents and a knowledge base, the documents they read, and what the rows tell afterwards.

An application like any user's: it knows the Python door, and nothing of the terminal.
"""
