"""Facts and decisions: no clock, no randomness, no socket, and no knowledge of any other floor."""
