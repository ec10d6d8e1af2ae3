"""HTTP to everything outside of this machine: deadlines, address policy, size limits, server-sent events."""
