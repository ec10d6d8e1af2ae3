"""The agent loop: turns and tool calls."""
