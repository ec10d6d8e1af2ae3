"""How fast it is, each time beside a peer that is measured in the same minutes, on the same servers.

A number from a busy machine says little and a ratio of two says much, so every benchmark alternates: a round of ours,
a round of the peer's, and the ratio of the medians at the end. See `python -m benchmarks --help`.
"""
