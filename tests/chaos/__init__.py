"""Random faults, the same for the same seed, and a check of the final state: `./run chaos`.

proxy.py     a proxy to a server that can be slow, cut, silent, or lose answers
plan.py      the plan of faults: a value, made from a seed
cluster.py   servers, proxied connections and workers, and their faults
agents.py    the agents, whose tools record each execution
clients.py   callers that submit through every door, and record the answers
history.py   the submissions, the final state, and the verdict
ours.py      a chaos run; stock.py: the same faults for a chord of stock Celery
"""
