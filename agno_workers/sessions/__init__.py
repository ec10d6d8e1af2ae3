"""Sessions, and what agents remember across runs."""
