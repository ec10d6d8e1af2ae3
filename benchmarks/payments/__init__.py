"""How often a payment is made when the process that makes it is killed: ours beside agno's durable queue.

`settings` says when what is killed, `ours` and `theirs` are the contestants, `bench` lets each meet each setting,
`table` prints and writes what was found. The outside world is a ledger (`peers/ledger.py`) and a fake model on HTTP.
"""
