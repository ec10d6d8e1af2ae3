"""Random faults, the same for the same seed, and a check of everything that happened: `./run chaos`.

proxy.py     a line to a server that can be slow, cut, silent, or lose answers
plan.py      which fault comes when: a value, made from a seed
house.py     servers, lines and workers, and what a fault does to them
agents.py    the agents, whose tools write down each execution
clients.py   those who submit, through every door, and write down what they were told
history.py   what was told and what became of it, and the verdict
ours.py      all of this together; stock.py: the same faults for a chord of stock Celery
"""
