"""What `agno-workers demo` runs: three agents, the documents they read, and what the rows tell afterwards.

An application like any user's: it knows the Python door, and nothing of the terminal.
"""
